"""Common part of all peers: count events; report events, seconds and CPU seconds."""

import json
import os
import sys
import time
from dataclasses import dataclass, field

BOOTSTRAP, EVENTS, SECONDS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
TOPICS = ("orders", "clicks")


@dataclass
class Meter:
    """Counts events; `done` after all events or at the deadline."""

    events: int = 0
    first: tuple[float, float, int] | None = None
    deadline: float = field(default_factory=lambda: time.monotonic() + SECONDS + 60)

    def add(self, n: int) -> None:
        """Count n more; the clock starts with the first batch, which is not counted."""
        self.events += n
        if self.first is None:
            self.first = (time.monotonic(), time.process_time(), self.events)
            self.deadline = time.monotonic() + SECONDS

    @property
    def done(self) -> bool:
        """True if the peer should stop."""
        return self.events >= EVENTS or time.monotonic() > self.deadline

    def finish(self) -> None:
        """Print the result and exit at once, whatever framework is running."""
        began, cpu, before = self.first or (time.monotonic(), time.process_time(), 0)
        result = {
            "events": max(self.events - before, 1),
            "seconds": max(time.monotonic() - began, 1e-9),
            "cpu_seconds": time.process_time() - cpu,
        }
        sys.__stdout__.write("\n" + json.dumps(result) + "\n")  # frameworks redirect sys.stdout
        sys.__stdout__.flush()
        os._exit(0)
