"""JSON output of the commands."""

import json
import sys
from typing import Any


def print_json(value: Any) -> None:
    """Print one JSON object on stdout, the only output of a command there."""
    sys.stdout.write(json.dumps(value, indent=2 if sys.stdout.isatty() else None) + "\n")
    sys.stdout.flush()
