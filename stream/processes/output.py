"""What a command answers on stdout: one JSON object, and nothing else."""

import json
import sys
from typing import Any


def print_json(value: Any) -> None:
    """Print one JSON object on stdout, and nothing else goes there."""
    sys.stdout.write(json.dumps(value, indent=2 if sys.stdout.isatty() else None) + "\n")
    sys.stdout.flush()
