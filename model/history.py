"""A history: closed buckets of all series in one dense block, and what is known beside them.

What training makes of it is in `model/training/dataset.py`.

Axes: T = buckets, S = series of the history, F = stored features.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.contract import FEATURE_NAMES
from model.errors import InvalidValues
from model.inputs.plans import Plans
from model.inputs.static_features import N_STATIC, require_static

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class History:
    """Closed buckets of all series: `values_TSF` float32, T buckets × S series × F features.

    Bucket t covers ``[start_ms + t·bucket_ms, …)``. `static_SX` is what is known of the series
    beside it (`model.static.static_row`), None where nothing is. `plans` begin with the same bucket
    and reach beyond the last one as far as the future is known. Raises InvalidValues for a shape or
    values that are no demand.
    """

    values_TSF: Floats
    start_ms: int
    bucket_ms: int
    series: list[str]
    static_SX: Floats | None = None
    plans: Plans | None = None

    def __post_init__(self) -> None:
        """Check the shape; values are checked series by series as they are drawn."""
        shape = self.values_TSF.shape
        if len(shape) != 3 or shape[2] != len(FEATURE_NAMES):
            raise InvalidValues(f"history of shape {shape} is not [T, S, {len(FEATURE_NAMES)}]")
        if shape[1] != len(self.series):
            raise InvalidValues(f"history has {shape[1]} columns for {len(self.series)} series")
        if self.static_SX is not None:
            require_static(self.static_SX, len(self.series))
        if self.plans is not None and (self.plans.rows_N >= shape[1]).any():
            raise InvalidValues("the history has plans of series it does not have")

    @property
    def told_SX(self) -> Floats:
        """What is known of each series; zeros where nothing is."""
        if self.static_SX is None:
            return np.zeros((len(self.series), N_STATIC), np.float32)
        return self.static_SX

    @property
    def buckets(self) -> int:
        """Number of buckets T."""
        return int(self.values_TSF.shape[0])

    @property
    def end_ms(self) -> int:
        """End of the last bucket."""
        return self.start_ms + self.buckets * self.bucket_ms

    def volume(self, end: int | None = None) -> NDArray[np.float64]:
        """Units [S] of each series before bucket `end`."""
        total_S = np.zeros(len(self.series))
        for first in range(0, end or self.buckets, 512):
            part = self.values_TSF[first : min(first + 512, end or self.buckets), :, 0]
            total_S += part.sum(axis=0, dtype=np.float64)
        return total_S


def plans_between(history: History, first: int, last: int) -> Plans | None:
    """Plans of buckets `first` to `last` (left out, may lie behind the end) of a history."""
    return None if history.plans is None else history.plans.between(first, last)


def last_buckets(history: History, count: int) -> History:
    """The last `count` buckets, and the plans from there on."""
    first = history.buckets - count
    plans = history.plans
    return replace(
        history,
        values_TSF=history.values_TSF[first:],
        start_ms=history.start_ms + first * history.bucket_ms,
        plans=None if plans is None else plans.between(first, max(plans.buckets, history.buckets)),
    )
