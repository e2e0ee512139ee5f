"""The wall clock, passed in wherever results depend on it."""

import time


def wall_clock_ms() -> int:
    """Return the current time in ms since the epoch."""
    return time.time_ns() // 1_000_000
