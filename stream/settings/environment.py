"""What is read of the environment, and given to child processes in it.

Settings come in as ``SURGECAST_SECTION__NAME`` (`stream/settings/tree.py`), and leave the same way.
"""

import os
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from stream.errors import UsageError

PREFIX: Final = "SURGECAST_"
DELIMITER: Final = "__"


def variable(*names: object) -> str:
    """The environment variable of a setting.

    >>> variable("window", "bucket")
    'SURGECAST_WINDOW__BUCKET'
    """
    return PREFIX + DELIMITER.join(str(name).upper() for name in names)


def kafka_home() -> Path | None:
    """Apache Kafka distribution named by KAFKA_HOME, to start in place of the in-memory broker.

    Raises UsageError when it is set and holds no `libs/` with jars.
    """
    text = os.environ.get("KAFKA_HOME")
    if not text:
        return None
    home = Path(text)
    if not any(home.glob("libs/kafka*.jar")):
        raise UsageError(f"KAFKA_HOME={text} is no Apache Kafka distribution: no libs/kafka*.jar")
    return home


def child_environment(settings: BaseModel) -> dict[str, str]:
    """Environment that makes a child process read these same settings."""
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
            f'"{_as_text(part)}"' if not isinstance(part, float) else str(part) for part in leaf
        )
        return "[" + ",".join(parts) + "]"
    return str(leaf)
