"""Event time: buckets, watermarks, verdicts and the deduplication window.

Second station of the path: the columns of `stream/codecs.py` are judged here before they are
summed. Everything is a function of event times and the order of the log; no clock is read. A
watermark is the newest event time of one input of one partition less the allowed lateness, and
never goes back.

Axes: N = events of a batch, in log order.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stream.hashset import Hashes, HashSet, distinct

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


#: Events in a row that are refused as too far ahead before the stream is believed to have jumped.
MAX_IMPLAUSIBLE = 100


@dataclass(slots=True)
class Watermark:
    """Watermark of one input of one partition; all times in ms, `newest_ms` None before any event.

    >>> watermark = Watermark(allowed_lateness_ms=5_000)
    >>> times = np.array([20_000, 14_000, 16_000])
    >>> (times < watermark.observe(times) - 5_000).tolist()  # which were late when they came
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
        """Observe events in log order; for each, the newest event time up to and with it."""
        if not len(event_time_N):
            return event_time_N
        newest_N = np.maximum.accumulate(event_time_N)
        if self.newest_ms is not None:
            newest_N = np.maximum(newest_N, self.newest_ms)
        self.newest_ms = int(newest_N[-1])
        return newest_N

    def implausible(self, event_time_N: Ints, *, max_gap_ms: int) -> Mask:
        """Events so far ahead of the stream that they must be wrong; call before `observe`.

        The reference is the newest event seen, or the median of the first batch. When
        `MAX_IMPLAUSIBLE` events in a row are ahead of it, it is the reference that was wrong (a
        first event dated 1970, say): from then on the stream is believed.

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


@dataclass(slots=True)
class DedupWindow:
    """Event ids seen within a window of event time, as 64-bit hashes in segments one window long.

    An id is remembered until its segment lies more than one window behind the newest event: for at
    least `window_ms`, at most twice that. This is judged event by event, so it does not depend on
    how the log was cut into batches. `unsaved` holds the hashes not yet stored, by segment; the
    owner empties it.

    >>> seen = DedupWindow(window_ms=1_000)
    >>> times, none_late = np.array([10, 10, 20]), np.zeros(3, np.bool_)
    >>> hashes = np.array([7, 7, 8], np.uint64)
    >>> seen.fresh(hashes, times, newest_N=times, late_N=none_late).tolist()
    [True, False, True]
    >>> seen.add(hashes[1:], times[1:])
    >>> seen.fresh(hashes[2:], times[2:], newest_N=times[2:], late_N=none_late[2:]).tolist()
    [False]
    """

    window_ms: int
    segments: dict[int, HashSet] = field(default_factory=dict)
    unsaved: dict[int, list[Hashes]] = field(default_factory=dict)

    def fresh(self, hash_N: Hashes, event_time_N: Ints, *, newest_N: Ints, late_N: Mask) -> Mask:
        """Which events carry an id that is not remembered; late ones are not counted or learnt.

        `newest_N` is the newest event time when each event came.
        """
        segments = sorted(self.segments.items())
        held = [seen.contains(hash_N) for _, seen in segments]
        repeated = len(distinct(hash_N)) < len(hash_N)
        if not repeated and not any(held_N.any() for held_N in held):
            return np.ones(len(hash_N), np.bool_)
        remembered: dict[int, int] = {}
        for (start, _), held_N in zip(segments, held, strict=True):
            remembered.update(dict.fromkeys(hash_N[held_N].tolist(), start))
        columns = (hash_N, event_time_N, newest_N, late_N)
        events = zip(*(column.tolist() for column in columns), strict=True)
        result = np.ones(len(hash_N), np.bool_)
        for place, (event_hash, time, newest, late) in enumerate(events):
            segment_ms = remembered.get(event_hash)
            if segment_ms is not None and segment_ms + 2 * self.window_ms >= newest:
                result[place] = False
            elif not late:
                remembered[event_hash] = time - time % self.window_ms
        return result

    def add(self, hash_M: Hashes, event_time_M: Ints) -> None:
        """Remember the ids of counted events."""
        if not len(hash_M):
            return
        start_M = event_time_M - event_time_M % self.window_ms
        first = int(start_M[0])
        if (start_M == first).all():
            self._remember(first, hash_M)
            return
        for start in np.unique(start_M).tolist():
            self._remember(start, hash_M[start_M == start])

    def _remember(self, start_ms: int, hash_M: Hashes) -> None:
        self.load(start_ms, hash_M)
        self.unsaved.setdefault(start_ms, []).append(hash_M)

    def load(self, start_ms: int, hash_M: Hashes) -> None:
        """Take a segment's ids in, from the store or as they come."""
        segment = self.segments.get(start_ms)
        if segment is None:
            segment = self.segments[start_ms] = HashSet()
        segment.add(hash_M)

    def forget_before(self, newest_ms: int) -> list[int]:
        """Drop segments more than a window behind `newest_ms`; their starts, for the store."""
        old = [start for start in self.segments if start + 2 * self.window_ms < newest_ms]
        for start in old:
            del self.segments[start]
            self.unsaved.pop(start, None)
        return old
