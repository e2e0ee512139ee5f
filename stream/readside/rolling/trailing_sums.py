"""Sums over trailing spans of event time, up to the newest closed bucket.

Axes: T = closed buckets, F = features in the order of `model.contract.FEATURE_NAMES`.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS
from stream.readside.series_answers import Floats

BASE_DAYS: Final = 7


def trailing_sums(
    start_T: NDArray[np.int64], values_TF: Floats, *, end_ms: int, span_ms: int
) -> NDArray[np.float64]:
    """Sums of the buckets that start in the last `span_ms` before `end_ms`, float64 [F].

    >>> start_T, values_TF = np.array([0, 10, 20]), np.array([[1.0], [2.0], [4.0]], np.float32)
    >>> trailing_sums(start_T, values_TF, end_ms=30, span_ms=20).tolist()
    [6.0]
    """
    inside = (start_T >= end_ms - span_ms) & (start_T < end_ms)
    return np.asarray(values_TF[inside].sum(axis=0, dtype=np.float64))


def mean_day(
    start_T: NDArray[np.int64], values_TF: Floats, *, end_ms: int
) -> NDArray[np.float64] | None:
    """Sums of the mean day over up to seven days before the last 24 h, float64 [F].

    None with less than one full day of history before those 24 h.

    >>> values_TF = np.array([[4.0], [8.0], [1.0]], np.float32)
    >>> mean_day(np.arange(3) * DAY_MS, values_TF, end_ms=3 * DAY_MS).tolist()
    [6.0]
    >>> mean_day(np.arange(1) * DAY_MS, values_TF[:1], end_ms=DAY_MS) is None
    True
    """
    day_ms = end_ms - DAY_MS
    before_T = start_T[(start_T < day_ms) & (start_T >= day_ms - BASE_DAYS * DAY_MS)]
    span_ms = day_ms - int(before_T[0]) if len(before_T) else 0
    if span_ms < DAY_MS:
        return None
    sums_F = trailing_sums(start_T, values_TF, end_ms=day_ms, span_ms=BASE_DAYS * DAY_MS)
    return sums_F * (DAY_MS / span_ms)
