"""What the commands share: global options, the settings made from them, output."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

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


def print_json(value: Any) -> None:
    """Print one JSON object on stdout, and nothing else goes there."""
    sys.stdout.write(json.dumps(value, indent=2 if sys.stdout.isatty() else None) + "\n")
    sys.stdout.flush()
