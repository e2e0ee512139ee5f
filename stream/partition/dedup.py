"""Deduplication: which event ids were seen within a window of event time.

Axes: N = events of a batch, in log order.
"""

from dataclasses import dataclass, field

import numpy as np

from stream.partition.hash_set import Hashes, HashSet, distinct
from stream.partition.watermark import Ints, Mask


@dataclass(slots=True)
class DedupWindow:
    """Event ids seen within a window of event time, as 64-bit hashes in segments one window long.

    An id is remembered until its segment is more than one window behind the newest event: for at
    least `window_ms`, at most twice that. Each event is judged on its own, so the result does not
    depend on how the log is cut into batches. `unsaved` holds the hashes not yet stored, by
    segment; the owner empties it.

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
        """Mask of the events whose id is not remembered; ids of late events are not remembered.

        `newest_N` is the newest event time when each event arrived.
        """
        segments = sorted(self.segments.items())
        known = [seen.contains(hash_N) for _, seen in segments]
        repeated = len(distinct(hash_N)) < len(hash_N)
        if not repeated and not any(known_N.any() for known_N in known):
            return np.ones(len(hash_N), np.bool_)
        remembered: dict[int, int] = {}
        for (start, _), known_N in zip(segments, known, strict=True):
            remembered.update(dict.fromkeys(hash_N[known_N].tolist(), start))
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
        """Add ids to a segment."""
        segment = self.segments.get(start_ms)
        if segment is None:
            segment = self.segments[start_ms] = HashSet()
        segment.add(hash_M)

    def forget_before(self, newest_ms: int) -> list[int]:
        """Drop segments more than a window behind `newest_ms`; returns their starts."""
        old = [start for start in self.segments if start + 2 * self.window_ms < newest_ms]
        for start in old:
            del self.segments[start]
            self.unsaved.pop(start, None)
        return old
