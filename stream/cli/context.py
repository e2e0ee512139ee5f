"""What the commands share: global options, the settings made from them, output."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from stream.errors import UsageError
from stream.settings import Settings, load_settings
from stream.telemetry import configure_logging


@dataclass(frozen=True, slots=True)
class Globals:
    """Options given before the command."""

    config: Path | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)


def settings_of(context: typer.Context, **flags: Any) -> Settings:
    """Settings from the file, the environment and the flags; logging set up by them.

    `flags` are nested as the tree is (`kafka={"partitions": 4}`). Raises UsageError.
    """
    given: Globals = context.obj
    settings = load_settings(given.config, **given.flags, **flags)
    configure_logging(settings.log_level)
    return settings


def with_store(settings: Settings) -> Settings:
    """The settings. Raises UsageError where they name no store."""
    if settings.redis.url is None:
        raise UsageError(
            "no store named: set SURGECAST_REDIS__URL (for example redis://127.0.0.1:6379/0), "
            "or run everything with `surgecast up`"
        )
    return settings
