"""The environment: which variables set a setting, and what child processes inherit."""

import json
import os
import re
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from stream.errors import UsageError

PREFIX: Final = "SURGECAST_"
DELIMITER: Final = "__"
_SERVICE_VARIABLE: Final = re.compile(
    r"[A-Z0-9]_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)$"
)


def variable(*names: object) -> str:
    """Return the environment variable of a setting.

    >>> variable("window", "bucket")
    'SURGECAST_WINDOW__BUCKET'
    """
    return PREFIX + DELIMITER.join(str(name).upper() for name in names)


def given_variables() -> list[str]:
    """Return the environment variables that begin like a setting, in alphabetical order.

    Without those that Kubernetes adds for a service whose name begins with `surgecast`.
    """
    return sorted(
        name
        for name, value in os.environ.items()
        if name.upper().startswith(PREFIX) and not _of_a_service(name, value)
    )


def _of_a_service(name: str, value: str) -> bool:
    """True for a variable that describes a service of the cluster.

    >>> _of_a_service("SURGECAST_API_SERVICE_HOST", "10.0.0.1")
    True
    >>> _of_a_service("SURGECAST_API__PORT", "8000")
    False
    """
    return bool(_SERVICE_VARIABLE.search(name)) or (
        name.endswith("_PORT") and value.startswith(("tcp://", "udp://"))
    )


def kafka_home() -> Path | None:
    """Return the Apache Kafka distribution that replaces the in-memory broker, from KAFKA_HOME.

    None if it is not set. Raises UsageError if it has no `libs/kafka*.jar`.
    """
    text = os.environ.get("KAFKA_HOME")
    if not text:
        return None
    home = Path(text)
    if not any(home.glob("libs/kafka*.jar")):
        raise UsageError(f"KAFKA_HOME={text} is not an Apache Kafka folder: no libs/kafka*.jar")
    return home


def child_environment(settings: BaseModel) -> dict[str, str]:
    """Return an environment in which a child process reads the same settings."""
    environment = dict(os.environ)
    for section, value in settings.model_dump(mode="python").items():
        leaves = value if isinstance(value, dict) else {None: value}
        for name, leaf in leaves.items():
            text = _as_text(leaf)
            if text is not None:
                names = (section,) if name is None else (section, name)
                environment[variable(*names)] = text
    return environment


def _as_text(leaf: Any) -> str | None:
    if leaf is None:
        return None
    if isinstance(leaf, SecretStr):
        return leaf.get_secret_value()
    if isinstance(leaf, tuple):
        parts = (
            str(part) if isinstance(part, float) else json.dumps(_as_text(part)) for part in leaf
        )
        return "[" + ",".join(parts) + "]"
    return str(leaf)
