"""Closed buckets of all series in one dense block, with static features and plans.

Axes: T = buckets, S = series of the history, F = stored features, X = static features.
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

    Bucket t covers ``[start_ms + t·bucket_ms, …)``. `static_SX` are static features
    (`model.inputs.static_features.static_row`), None if all are unknown. `plans` start at the same
    bucket and extend beyond the last one. Raises InvalidValues for a wrong shape, or plans of
    series that are not in the history.
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
            raise InvalidValues("the history has plans of unknown series")

    @property
    def static_features_SX(self) -> Floats:
        """Static features [S, X] of each series; zeros where unknown."""
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

    @property
    def whole_units_S(self) -> NDArray[np.bool_]:
        """True [S] for series whose units are whole numbers in every bucket."""
        whole_S = np.ones(len(self.series), np.bool_)
        for first in range(0, self.buckets, 512):
            units_TS = self.values_TSF[first : first + 512, :, 0]
            whole_S &= (units_TS == np.rint(units_TS)).all(axis=0)
        return whole_S

    def volume(self, end: int | None = None) -> NDArray[np.float64]:
        """Units [S] of each series before bucket `end`."""
        total_S = np.zeros(len(self.series))
        for first in range(0, end or self.buckets, 512):
            part = self.values_TSF[first : min(first + 512, end or self.buckets), :, 0]
            total_S += part.sum(axis=0, dtype=np.float64)
        return total_S


def plans_between(history: History, first: int, last: int) -> Plans | None:
    """Plans of buckets `first` (included) to `last` (excluded), also beyond the end."""
    return None if history.plans is None else history.plans.between(first, last)


def last_buckets(history: History, count: int) -> History:
    """The last `count` buckets, with the plans from there on."""
    first = history.buckets - count
    plans = history.plans
    return replace(
        history,
        values_TSF=history.values_TSF[first:],
        start_ms=history.start_ms + first * history.bucket_ms,
        plans=None if plans is None else plans.between(first, max(plans.buckets, history.buckets)),
    )
