"""How long an input has been silent, as far as the broker was there to say so.

Silence is the one thing in the ingest that looks at processing time. What counts is not how long
ago the last record came, but for how long the broker has kept answering that there is none: while
it is away, or the worker itself was stopped or held up, nobody knows whether an input is silent,
and its producers may be waiting as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from faust.types import TP

#: Records of a topic partition that are not counted yet; None when not known.
Lag = Callable[[TP], int | None]

#: When the broker last answered for a topic partition, in ms of any clock; None when it never did.
LastAnswer = Callable[[TP], int | None]

#: At most this part of the timeout passes between two answers: it takes so many to be idle.
MIN_ANSWERS: Final = 4


@dataclass(frozen=True, slots=True)
class InputStatus:
    """What the consumer knows of its inputs, and after what silence one of them is idle."""

    lag: Lag
    answered: LastAnswer
    idle_timeout_ms: int


@dataclass(slots=True)
class IdleTimer:
    """Silence of one input, added up from answer to answer.

    >>> silence = IdleTimer()
    >>> [silence.after(answered_ms, 2_000) for answered_ms in (100, 200, 300, 9_000)]
    [0, 100, 200, 700]
    >>> silence.end()
    >>> silence.after(9_100, 2_000)
    0
    """

    silent_ms: int = 0
    _answered_ms: int | None = None

    def end(self) -> None:
        """Records came."""
        self.silent_ms = 0
        self._answered_ms = None

    def after(self, answered_ms: int | None, timeout_ms: int) -> int:
        """The silence in ms, now that the broker's last answer is of `answered_ms`.

        However far two answers are apart, they count for a quarter of `timeout_ms` at most.
        """
        if self._answered_ms is not None and answered_ms is not None:
            passed_ms = answered_ms - self._answered_ms
            self.silent_ms += min(max(passed_ms, 0), timeout_ms // MIN_ANSWERS)
        self._answered_ms = answered_ms
        return self.silent_ms
