"""Top movers: series by units of the last 24 hours of event time against the mean day before.

Each closed block is read once, and only its non-zero units stay in memory. Each series has two
sliding sums, the last day and the seven days before it; both are exact (whole units in float64).

Axes: S = series slots.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from model.durations import DAY_MS
from stream.errors import ServiceUnavailable
from stream.features.definitions import UNITS
from stream.readside.overview import Overview
from stream.state import keys
from stream.state.closed_buckets import closed_paths, closed_sums
from stream.state.keys import ROLLUPS, Tag

BASE_DAYS: Final = 7
_BLOCKS_PER_READ: Final = 24


@dataclass(frozen=True, slots=True)
class Mover:
    """Units in the last 24 h, in the mean day before, and eight daily sums, oldest first."""

    series_id: str
    units: float
    mean_day: float
    daily: tuple[float, ...]

    @property
    def change(self) -> float:
        """Units above (below, if negative) the mean day."""
        return self.units - self.mean_day


@dataclass(frozen=True, slots=True)
class _BucketUnits:
    start_ms: int
    slots: NDArray[np.int32]
    units: NDArray[np.float32]


class SlidingUnits:
    """Units of a partition's series in the last day and in the seven days before it.

    >>> sums = SlidingUnits()
    >>> sums.add(0, np.array([8.0, 0.0], np.float32))
    >>> sums.slide(end_ms=DAY_MS); sums.day_S.tolist(), sums.base_S.tolist()
    ([8.0, 0.0], [0.0, 0.0])
    >>> sums.slide(end_ms=2 * DAY_MS); sums.day_S.tolist(), sums.base_S.tolist()
    ([0.0, 0.0], [8.0, 0.0])
    >>> sums.slide(end_ms=9 * DAY_MS); sums.base_S.tolist()
    [0.0, 0.0]
    """

    def __init__(self) -> None:
        self.end_ms: int | None = None
        self.day_S = np.zeros(0)
        self.base_S = np.zeros(0)
        self._day: deque[_BucketUnits] = deque()
        self._base: deque[_BucketUnits] = deque()

    def grow(self, n_slots: int) -> None:
        """Extend the sums to `n_slots` series; new ones start at zero."""
        missing = n_slots - len(self.day_S)
        if missing > 0:
            self.day_S = np.concatenate([self.day_S, np.zeros(missing)])
            self.base_S = np.concatenate([self.base_S, np.zeros(missing)])

    def add(self, start_ms: int, units_S: NDArray[np.float32]) -> None:
        """Add a closed bucket; it must be newer than those added before."""
        self.grow(len(units_S))
        slots = np.flatnonzero(units_S).astype(np.int32)
        bucket = _BucketUnits(start_ms, slots, units_S[slots])
        self._day.append(bucket)
        self.day_S[slots] += bucket.units

    def slide(self, end_ms: int) -> None:
        """End both windows at `end_ms` and drop buckets older than eight days."""
        self.end_ms = end_ms
        while self._day and self._day[0].start_ms < end_ms - DAY_MS:
            bucket = self._day.popleft()
            self.day_S[bucket.slots] -= bucket.units
            self.base_S[bucket.slots] += bucket.units
            self._base.append(bucket)
        while self._base and self._base[0].start_ms < end_ms - (BASE_DAYS + 1) * DAY_MS:
            bucket = self._base.popleft()
            self.base_S[bucket.slots] -= bucket.units

    def daily(self, slots: NDArray[np.int64]) -> NDArray[np.float64]:
        """Sums of the last eight days, oldest first, float64 [len(slots), 8]."""
        sums = np.zeros((len(slots), BASE_DAYS + 1))
        for bucket in (*self._base, *self._day):
            if not len(bucket.slots):
                continue
            day = BASE_DAYS - ((self.end_ms or 0) - 1 - bucket.start_ms) // DAY_MS
            at = np.searchsorted(bucket.slots, slots)
            at[at == len(bucket.slots)] = 0
            hit = np.flatnonzero(bucket.slots[at] == slots)
            sums[hit, day] += bucket.units[at[hit]]
        return sums


class Movers:
    """`SlidingUnits` of all partitions, updated from the store."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._parts: dict[Tag, SlidingUnits] = {}
        self._names: dict[Tag, list[str]] = {}
        self._base_days: dict[Tag, float] = {}
        self._catalog: object = None

    def update(self, overview: Overview) -> None:
        """Read the blocks closed since the last call. Raises ServiceUnavailable."""
        if overview.catalog is not self._catalog:  # another deployment: start over
            self._catalog = overview.catalog
            self._parts, self._names, self._base_days = {}, {}, {}
        for tag in overview.tags():
            progress = overview.progress.get(tag)
            if progress is None or overview.info is None:
                continue
            part = self._parts.setdefault(tag, SlidingUnits())
            end_ms = progress.closed_through_ms
            oldest_ms = max(end_ms - (BASE_DAYS + 1) * DAY_MS, part.end_ms or 0)
            self._names[tag] = overview.catalog.ids_in(tag)
            starts = list(
                progress.closed_starts(oldest_ms, end_ms, bucket_ms=overview.info.bucket_ms)
            )
            for at in range(0, len(starts), _BLOCKS_PER_READ):
                self._read(tag, part, starts[at : at + _BLOCKS_PER_READ], overview.info.bucket_ms)
            part.grow(len(self._names[tag]))
            part.slide(end_ms)
            before_ms = end_ms - DAY_MS - progress.first_bucket_ms
            self._base_days[tag] = min(BASE_DAYS, before_ms / DAY_MS)

    def _read(self, tag: Tag, part: SlidingUnits, starts: list[int], bucket_ms: int) -> None:
        n_series = len(self._names[tag])
        pipe = self._redis.pipeline(transaction=False)
        for start in starts:
            pipe.mget([keys.of(tag, *path) for path in closed_paths(start, n_series)])
        try:
            blocks = pipe.execute()
        except RedisError as error:
            raise ServiceUnavailable(f"the store does not answer: {error}") from error
        for start, stored in zip(starts, blocks, strict=True):
            part.add(start, closed_sums(stored)[:, UNITS])
            part.slide(start + bucket_ms)

    def top(self, n: int) -> list[Mover]:
        """The n largest rises, then the n largest falls, without roll-ups.

        Empty without a full day to compare.
        """
        movers: list[Mover] = []
        for tag, part in self._parts.items():
            days = self._base_days.get(tag, 0)
            if tag == ROLLUPS or days < 1:
                continue
            mean_S = part.base_S / days
            change_S = part.day_S - mean_S
            order = np.argsort(change_S, kind="stable")
            slots = np.unique(np.concatenate([order[:n], order[max(0, len(order) - n) :]]))
            slots = slots[(change_S[slots] != 0) & (slots < len(self._names[tag]))]
            daily = part.daily(slots)
            for slot, row in zip(slots.tolist(), daily.tolist(), strict=True):
                name = self._names[tag][slot]
                movers.append(Mover(name, float(part.day_S[slot]), float(mean_S[slot]), tuple(row)))
        ups = sorted((m for m in movers if m.change > 0), key=lambda m: (-m.change, m.series_id))
        downs = sorted((m for m in movers if m.change < 0), key=lambda m: (m.change, m.series_id))
        return ups[:n] + downs[:n][::-1]

    def volumes(self) -> dict[str, float]:
        """Units of the last eight days of every series that has closed buckets."""
        units: dict[str, float] = {}
        for tag, part in self._parts.items():
            total_S = part.day_S + part.base_S
            units |= zip(self._names.get(tag, ()), total_S.tolist(), strict=False)
        return units

    def by_volume(self) -> list[str]:
        """Series ids by units of the last eight days, most first, without roll-ups."""
        units = self.volumes()
        rollups = frozenset(self._names.get(ROLLUPS, ()))
        return sorted(units.keys() - rollups, key=lambda name: (-units[name], name))
