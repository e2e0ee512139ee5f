"""Paths that tests read from."""

from pathlib import Path

#: The root of the repository.
ROOT = Path(__file__).parents[2]
