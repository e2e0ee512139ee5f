"""Event time: bucket starts, and the watermark that decides which events are late.

Everything here is a function of event times and the order of the log; no clock is read. A watermark
is the newest event time of one input of one partition less the allowed lateness. It never goes
back.

Axes: N = events of a batch, in log order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def bucket_start_ms(event_time_ms: int, *, width_ms: int) -> int:
    """Start of the half-open bucket ``[start, start + width)``.

    >>> bucket_start_ms(3_700_000, width_ms=3_600_000)
    3600000
    >>> bucket_start_ms(3_600_000, width_ms=3_600_000)
    3600000
    """
    return event_time_ms - event_time_ms % width_ms


#: Events in a row that are refused as too far ahead before the stream counts as having jumped.
MAX_IMPLAUSIBLE = 100


@dataclass(slots=True)
class Watermark:
    """Watermark of one input of one partition; all times in ms, `newest_ms` None before any event.

    >>> watermark = Watermark(allowed_lateness_ms=5_000)
    >>> times = np.array([20_000, 14_000, 16_000])
    >>> (times < watermark.observe(times) - 5_000).tolist()  # late on arrival
    [False, True, False]
    >>> watermark.now_ms
    15000
    """

    allowed_lateness_ms: int
    newest_ms: int | None = None
    implausible_run: int = 0

    @property
    def now_ms(self) -> int | None:
        """The watermark: events older than this are late."""
        return None if self.newest_ms is None else self.newest_ms - self.allowed_lateness_ms

    def observe(self, event_time_N: Ints) -> Ints:
        """Observe events in log order; returns the newest event time [N] up to each of them."""
        if not len(event_time_N):
            return event_time_N
        newest_N = np.maximum.accumulate(event_time_N)
        if self.newest_ms is not None:
            newest_N = np.maximum(newest_N, self.newest_ms)
        self.newest_ms = int(newest_N[-1])
        return newest_N

    def implausible(self, event_time_N: Ints, *, max_gap_ms: int) -> Mask:
        """Mask of events too far ahead of the stream to be true; call before `observe`.

        The reference is the newest event seen, or the median of the first batch. After
        `MAX_IMPLAUSIBLE` such events in a row the reference itself was wrong (a first event dated
        1970, say), and the stream is accepted from there on.

        >>> watermark = Watermark(0, newest_ms=0)
        >>> ahead = np.full(MAX_IMPLAUSIBLE + 2, 1_000)
        >>> watermark.implausible(ahead, max_gap_ms=10).sum().item()
        100
        """
        if not len(event_time_N):
            return np.zeros(0, np.bool_)
        reference = self.newest_ms
        if reference is None:
            reference = int(np.sort(event_time_N)[(len(event_time_N) - 1) // 2])
        wild_N = event_time_N > reference + max_gap_ms
        if not wild_N.any():
            self.implausible_run = 0
            return wild_N
        for place, wild in enumerate(wild_N.tolist()):
            self.implausible_run = self.implausible_run + 1 if wild else 0
            if self.implausible_run > MAX_IMPLAUSIBLE:
                self.implausible_run = 0
                wild_N[place:] = event_time_N[place:] > int(event_time_N[place]) + max_gap_ms
                break
        return wild_N
