"""The buckets of a synthetic shop and the cells that they consist of.

A cell is a bucket, or a day where buckets are longer than a day: seasons and plans are drawn by
cells and averaged over the buckets. Times are the shop's wall clock.

Axes: C = cells, T = buckets.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS, MINUTE_MS, MONTH_MS
from model.errors import InvalidValues
from model.pretraining.synthetic.draws import Floats, Ints

_MINUTES: Final = DAY_MS // MINUTE_MS
_FIRST, _LAST, _END = (np.datetime64(day, "D").astype(np.int64) for day in (
    "1995-01-01", "2024-12-31", "2040-01-01",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Clock:
    """Cells of T buckets from `start_ms` on: `day_C` since 1970, `slot_C` of the day, `first_T`.

    `slots` is the number of cells of a day, `first_T` the first cell of each bucket.
    """

    start_ms: int
    bucket_ms: int
    day_C: Ints
    slot_C: Ints
    slots: int
    first_T: Ints

    @property
    def cells(self) -> int:
        """Number of cells C."""
        return len(self.day_C)

    @property
    def buckets(self) -> int:
        """Number of buckets T."""
        return len(self.first_T)

    @property
    def weekday_C(self) -> Ints:
        """Day of the week, 0 = Monday."""
        return (self.day_C + 3) % 7

    @property
    def cells_per_day(self) -> float:
        """Cells of a day; 1 where buckets are longer."""
        return float(self.slots)

    @property
    def buckets_per_day(self) -> float:
        """Buckets of a day; less than 1 where they are longer."""
        return DAY_MS / self.bucket_ms

    @property
    def days(self) -> float:
        """Length of all buckets in days."""
        return self.buckets / self.buckets_per_day

    def mean(self, value_CG: Floats) -> Floats:
        """Mean [T, G] over the cells of each bucket, relative to the bucket's nominal width.

        >>> clock = Clock(0, 2 * DAY_MS, np.arange(4), np.zeros(4, np.int64), 1, np.array([0, 2]))
        >>> clock.mean(np.array([[1.0], [2.0], [3.0], [4.0]], np.float32))[:, 0].tolist()
        [1.5, 3.5]
        """
        if self.cells == self.buckets:
            return value_CG
        nominal = self.bucket_ms / DAY_MS
        return np.add.reduceat(value_CG, self.first_T, axis=0) / np.float32(nominal)


def make_clock(rng: np.random.Generator, *, bucket_ms: int, buckets: int) -> Clock:
    """Draw a start between 1995 and 2024, at the edge of a bucket.

    Raises InvalidValues unless the bucket is whole minutes that divide a day, whole days or the
    nominal month, and there are at least 2 buckets.

    >>> clock = make_clock(np.random.default_rng(3), bucket_ms=MONTH_MS, buckets=24)
    >>> clock.start_ms % MONTH_MS, clock.cells in (730, 731)
    (0, True)
    """
    days = buckets * bucket_ms // DAY_MS
    latest = int(max(_FIRST, min(_LAST, _END - days)))
    day = int(rng.integers(_FIRST, latest + 1))
    whole_minutes = bucket_ms % MINUTE_MS == 0 and bucket_ms > 0 and DAY_MS % bucket_ms == 0
    known = whole_minutes or bucket_ms == MONTH_MS or (bucket_ms > 0 and bucket_ms % DAY_MS == 0)
    if not known or buckets < 2:
        raise InvalidValues(
            f"{buckets} buckets of {bucket_ms} ms: give 2 or more, of whole minutes that divide a "
            f"day, of whole days, or of a nominal month ({MONTH_MS} ms)"
        )
    if bucket_ms == MONTH_MS:
        month = day * DAY_MS // MONTH_MS
        edge_T = (month + np.arange(buckets + 1)).astype("datetime64[M]").astype("datetime64[D]")
        return _of_days(month * MONTH_MS, bucket_ms, edge_T.astype(np.int64))
    if bucket_ms >= DAY_MS:
        edge_T = day + np.arange(buckets + 1, dtype=np.int64) * (bucket_ms // DAY_MS)
        return _of_days(day * DAY_MS, bucket_ms, edge_T)
    slots = DAY_MS // bucket_ms
    cell_C = day * slots + int(rng.integers(0, slots)) + np.arange(buckets, dtype=np.int64)
    start_ms = int(cell_C[0]) * bucket_ms
    return Clock(start_ms, bucket_ms, cell_C // slots, cell_C % slots, slots, np.arange(buckets))


def _of_days(start_ms: int, bucket_ms: int, edge_T: Ints) -> Clock:
    day_C = np.arange(edge_T[0], edge_T[-1])
    return Clock(start_ms, bucket_ms, day_C, np.zeros_like(day_C), 1, edge_T[:-1] - edge_T[0])


def slot_means(minutes_PM: NDArray[np.float64], slots: int) -> Floats:
    """Means [P, slots] of values [P, 1440] by minute of the day.

    >>> slot_means(np.arange(1440.0)[None], 2).tolist()
    [[359.5, 1079.5]]
    """
    parts = minutes_PM.reshape(len(minutes_PM), slots, _MINUTES // slots)
    means_PN: Floats = parts.mean(axis=2).astype(np.float32)
    return means_PN
