"""Base of the forecasters without training: one season per series, one pass per bucket.

Subclasses (`seasonal_naive`, `exponential_smoothing`) give the expected demand and its spread; this
class carries their states from bucket to bucket and enforces that units are never negative and
cumulative quantiles never decrease along the horizon.

Axes: S = series, T = buckets, F = stored features, H = horizon, Q = quantiles.
"""

from abc import ABC, abstractmethod
from statistics import NormalDist
from typing import Final, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.config import DECILES
from model.contract import FEATURE_NAMES, QuantileForecast
from model.durations import DAY_MS, WEEK_MS
from model.errors import InvalidValues
from model.inference.forecaster import States, missing_buckets, require_demand
from model.inputs.plans import Plans
from model.quantiles.coherence import make_coherent

Floats = NDArray[np.float32]
Quantiles = NDArray[np.floating]

_WEEK_DAYS: Final = 7
_YEAR_MS: Final = 365.2425 * DAY_MS


def season_of(bucket_ms: int) -> int:
    """Buckets of a season: those of a week, or of a year from weeks on.

    >>> season_of(3_600_000), season_of(DAY_MS), season_of(WEEK_MS), season_of(52 * WEEK_MS // 12)
    (168, 7, 52, 12)
    """
    if bucket_ms < WEEK_MS:
        return _WEEK_DAYS * max(1, DAY_MS // bucket_ms)
    return max(1, round(_YEAR_MS / bucket_ms))


class SeasonalStates(States, Protocol):
    """States with the profile of one season of every series."""

    @property
    def season(self) -> int:
        """Buckets of a season."""
        ...

    def grow(self, size: int) -> None:
        """Make room for `size` series; new ones start at zero."""
        ...


C = TypeVar("C", bound=SeasonalStates)


class SeasonalForecaster(ABC, Generic[C]):
    """A forecaster with the season of `season_of`, carried bucket by bucket; it ignores plans.

    `quantiles` default to the deciles. Raises ValueError for a horizon or bucket width below 1.
    """

    model_id: str
    #: Class of its states.
    states: type[C]

    def __init__(
        self, *, horizon: int, bucket_ms: int, quantiles: tuple[float, ...] = DECILES
    ) -> None:
        if horizon < 1 or bucket_ms < 1:
            raise ValueError(f"horizon {horizon} and bucket_ms {bucket_ms} must be positive")
        self.horizon = horizon
        self.bucket_ms = bucket_ms
        self.quantiles = quantiles
        self.day = max(1, DAY_MS // bucket_ms)
        self.season = season_of(bucket_ms)
        normal = NormalDist()
        self._z_Q = np.array([normal.inv_cdf(q) for q in quantiles], np.float32)

    @abstractmethod
    def new_states(self, capacity: int) -> C:
        """States without any series, with room for `capacity`."""

    def step(
        self, states: States, values_SF: Floats, bucket_start_ms: int, plans: Plans | None = None
    ) -> QuantileForecast:
        """Carry `states` over one closed bucket and forecast from its end on; ignores plans."""
        own = self._advance(states, values_SF, bucket_start_ms)
        self._carry(own, values_SF, bucket_start_ms)
        origin_ms = bucket_start_ms + self.bucket_ms
        starts_H = origin_ms + np.arange(self.horizon) * self.bucket_ms
        mean_SH = np.stack([self._expected(own, int(at)) for at in starts_H], axis=1)
        units_SHQ, sums_SHQ = self._spread(own, mean_SH)
        np.maximum(units_SHQ, 0, out=units_SHQ)
        np.maximum(sums_SHQ, 0, out=sums_SHQ)
        make_coherent(units_SHQ, sums_SHQ)
        return QuantileForecast(
            origin_ms=origin_ms,
            bucket_ms=self.bucket_ms,
            quantiles=self.quantiles,
            units_SHQ=units_SHQ.astype(np.float32),
            cumulative_SHQ=sums_SHQ.astype(np.float32),
            mean_SH=np.maximum(mean_SH, 0).astype(np.float32),
            model_id=self.model_id,
        )

    def warm_up(
        self, states: States, history_TSF: Floats, start_ms: int, plans: Plans | None = None
    ) -> None:
        """Carry `states` over stored history, oldest bucket first, without forecasting."""
        if history_TSF.shape[0] == 0:
            return
        own = self._advance(states, history_TSF, start_ms)
        for t, values_SF in enumerate(history_TSF):
            self._carry(own, values_SF, start_ms + t * self.bucket_ms)

    def _advance(self, states: States, values: Floats, start_ms: int) -> C:
        """The states at a bucket, with room for its series; silent buckets before it are zeros."""
        if not isinstance(states, self.states):
            raise TypeError(f"states of {type(states).__name__} belong to another forecaster")
        if states.season != self.season:
            raise InvalidValues("the states belong to another bucket width")
        require_demand(values)
        silent = missing_buckets(states.last_ms, start_ms, self.bucket_ms)
        nothing = np.zeros((states.size, len(FEATURE_NAMES)), np.float32)
        for k in range(silent):
            self._carry(states, nothing, start_ms + (k - silent) * self.bucket_ms)
        states.grow(values.shape[-2])
        return states

    @abstractmethod
    def _expected(self, states: C, start_ms: int) -> Floats:
        """Expected demand [S] of the bucket at `start_ms`."""

    @abstractmethod
    def _spread(self, states: C, mean_SH: Floats) -> tuple[Quantiles, Quantiles]:
        """Quantiles [S, H, Q] of units and of their running sum around the expected demand."""

    @abstractmethod
    def _carry(self, states: C, values_SF: Floats, start_ms: int) -> None:
        """Learn one bucket."""
