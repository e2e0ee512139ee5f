"""Progress of a job, passed from a child process to its supervisor as JSON lines.

A job with `--progress-lines` writes them to its stdout; a `Follower` reads them from the pipe.
"""

import json
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import IO, Any


@dataclass(frozen=True, slots=True)
class Step:
    """`done` of `total` units of a stage (0: unknown), with further `facts` to show."""

    stage: str
    done: int = 0
    total: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return the step as one line of JSON.

        >>> Step.parse(Step("replay", 2, 9, {"rate": 1.5}).line()).facts["rate"]
        1.5
        """
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def parse(cls, line: str | bytes) -> "Step":
        """Parse a line. Raises ValueError if it is not a step."""
        fields = json.loads(line)
        if not isinstance(fields, dict) or set(fields) != {"stage", "done", "total", "facts"}:
            raise ValueError(f"not a step of progress: {line!r}")
        return cls(**fields)


def report(step: Step) -> None:
    """Write a step to stdout and flush."""
    sys.stdout.write(step.line() + "\n")
    sys.stdout.flush()


class Follower:
    """Reads a child's steps in a thread and keeps the newest of every stage."""

    def __init__(self, lines: IO[bytes]) -> None:
        self._lines = lines
        self._steps: dict[str, Step] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="progress", daemon=True)
        self._thread.start()

    def newest(self) -> dict[str, Step]:
        """Return the newest step by stage, in order of first appearance."""
        with self._lock:
            return dict(self._steps)

    def finish(self, timeout_s: float = 5.0) -> dict[str, Step]:
        """Read to the end of the pipe, after the child has ended; return the newest steps."""
        self._thread.join(timeout_s)
        return self.newest()

    def _read(self) -> None:
        try:
            for line in self._lines:
                try:
                    step = Step.parse(line)
                except ValueError:
                    continue  # printed by a library
                with self._lock:
                    self._steps[step.stage] = step
        except ValueError:
            return  # the supervisor closed the pipe
