"""How long an input has been silent, measured only while the broker answers.

Idleness is the one thing in the ingest that depends on processing time. What counts is not the time
since the last record, but how long the broker keeps answering that there is none. While the broker
is away, or the worker is stopped or stalled, nobody can know whether an input is silent, and its
producers may be waiting as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from faust.types import TP

#: Returns the records of a topic partition that are not counted yet; None when unknown.
Lag = Callable[[TP], int | None]

#: Returns when the broker last answered for a topic partition, in ms of any clock; None if never.
LastAnswer = Callable[[TP], int | None]

#: Answers it takes at least to be idle: two answers add at most this fraction of the timeout.
MIN_ANSWERS: Final = 4


@dataclass(frozen=True, slots=True)
class InputStatus:
    """Lag and last answer of the inputs, and the silence after which one of them is idle."""

    lag: Lag
    answered: LastAnswer
    idle_timeout_ms: int


@dataclass(slots=True)
class IdleTimer:
    """Silence of one input, added up from answer to answer.

    >>> timer = IdleTimer()
    >>> [timer.after(answered_ms, 2_000) for answered_ms in (100, 200, 300, 9_000)]
    [0, 100, 200, 700]
    >>> timer.end()
    >>> timer.after(9_100, 2_000)
    0
    """

    silent_ms: int = 0
    _answered_ms: int | None = None

    def end(self) -> None:
        """Reset: records arrived."""
        self.silent_ms = 0
        self._answered_ms = None

    def after(self, answered_ms: int | None, timeout_ms: int) -> int:
        """Silence in ms, up to the broker's last answer at `answered_ms`.

        Two answers count for a quarter of `timeout_ms` at most, however long the time between them.
        """
        if self._answered_ms is not None and answered_ms is not None:
            passed_ms = answered_ms - self._answered_ms
            self.silent_ms += min(max(passed_ms, 0), timeout_ms // MIN_ANSWERS)
        self._answered_ms = answered_ms
        return self.silent_ms
