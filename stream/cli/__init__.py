"""The command line `surgecast`: one module per group of commands."""

from stream.cli.entry import app, main

__all__ = ["app", "main"]
