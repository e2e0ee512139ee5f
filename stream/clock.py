"""The wall clock; whoever needs it gets it as an argument."""

import time


def wall_clock_ms() -> int:
    """Milliseconds since the epoch, now."""
    return time.time_ns() // 1_000_000
