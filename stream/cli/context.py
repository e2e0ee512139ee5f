"""Settings of a command, from the global options, a file and the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from stream.errors import UsageError
from stream.processes.child import writable_folder
from stream.settings import NO_STORE, Settings, load_settings
from stream.telemetry import configure_logging


@dataclass(frozen=True, slots=True)
class Globals:
    """Options given before the command."""

    config: Path | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)


def settings_of(context: typer.Context, **flags: Any) -> Settings:
    """Load the settings from the file, the environment and the flags, and configure logging.

    `flags` are nested like the settings (`kafka={"partitions": 4}`). Raises UsageError.
    """
    given: Globals = context.obj
    settings = load_settings(given.config, **given.flags, **flags)
    configure_logging(settings.log_level)
    return settings


def require_folder(settings: Settings) -> Settings:
    """Return the settings; creates their data folder. Raises UsageError if it is not writable."""
    writable_folder(settings.data_dir)
    return settings


def require_store(settings: Settings) -> Settings:
    """Return the settings. Raises UsageError if they have no store URL."""
    if settings.redis.url is None:
        raise UsageError(NO_STORE)
    return settings
