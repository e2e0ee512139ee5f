"""Seasonal naive: the yardstick, and what serves until a network has been trained.

The median forecast of a bucket is what the same bucket of the last season (one week) brought;
before a whole week is known, the same time yesterday; before that, the mean so far. The spread
comes from the carried quantiles of past errors, so it is honest from the first error on and never
NaN.

Axes: S = series, P = phase within the season, F = stored features, H = horizon, Q = quantiles.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from model.config import CENSORED_SHARE, DAY_MS, DECILES
from model.contract import FEATURE_NAMES, FeatureSpec, QuantileForecast
from model.errors import InvalidValues
from model.incremental import States, missing_buckets, require_demand
from model.plans import Plans

Floats = NDArray[np.float32]

_WEEK_DAYS = 7
_ERROR_MEMORY = 200.0
_STOCK = FeatureSpec().index("stock")
_STOCKOUT_SHARE = FeatureSpec().index("stockout_share")


class NaiveStates:
    """The last season of every series, its mean so far and its errors."""

    def __init__(self, capacity: int, season: int) -> None:
        self.size = 0
        self.last_ms: int | None = None
        self.season_PS = np.zeros((season, capacity), np.float32)
        self.seen_S = np.zeros(capacity, np.int64)
        self.mean_S = np.zeros(capacity, np.float32)
        self.error_S = np.zeros(capacity, np.float32)

    def grow(self, size: int) -> None:
        """Make room for `size` series; new ones start with nothing."""
        capacity = self.seen_S.size
        if size > capacity:
            extra = max(size, 2 * capacity) - capacity
            self.season_PS = np.pad(self.season_PS, ((0, 0), (0, extra)))
            self.seen_S = np.pad(self.seen_S, (0, extra))
            self.mean_S = np.pad(self.mean_S, (0, extra))
            self.error_S = np.pad(self.error_S, (0, extra))
        self.size = max(self.size, size)


class SeasonalNaiveForecaster:
    """Last week's demand at the same time, with the spread of its own past errors.

    >>> naive = SeasonalNaiveForecaster(horizon=2, bucket_ms=86_400_000)
    >>> states = naive.new_states(1)
    >>> forecast = naive.step(states, np.full((1, 11), 3, np.float32), 0)
    >>> forecast.units_SHQ[0, 0, 4].item()
    3.0
    """

    def __init__(
        self, *, horizon: int, bucket_ms: int, quantiles: tuple[float, ...] = DECILES
    ) -> None:
        if horizon < 1 or bucket_ms < 1:
            raise ValueError(f"horizon {horizon} and bucket_ms {bucket_ms} must be positive")
        self.model_id = "seasonal-naive"
        self.horizon = horizon
        self.bucket_ms = bucket_ms
        self.quantiles = quantiles
        self.day = max(1, DAY_MS // bucket_ms)
        self.season = _WEEK_DAYS * self.day
        normal = NormalDist()
        self._z_Q = np.array([normal.inv_cdf(q) for q in quantiles], np.float32)

    def new_states(self, capacity: int) -> NaiveStates:
        """States without any series, with room for `capacity`."""
        return NaiveStates(max(capacity, 1), self.season)

    def step(
        self, states: States, values_SF: Floats, bucket_start_ms: int, plans: Plans | None = None
    ) -> QuantileForecast:
        """Carry `states` over one closed bucket and forecast from its end on, plans unread."""
        mine = self._advance(states, values_SF, bucket_start_ms)
        self._carry(mine, values_SF, bucket_start_ms)
        origin_ms = bucket_start_ms + self.bucket_ms
        size, steps_H = mine.size, np.arange(self.horizon)
        starts_H = origin_ms + steps_H * self.bucket_ms
        middle_SH = np.stack([self._expected(mine, int(start)) for start in starts_H], axis=1)
        # errors of one season ahead hold for the whole season, and grow with each further one
        growth_H = np.sqrt(steps_H // self.season + 1).astype(np.float32)
        # mean absolute error of a normal variable is sqrt(2 / pi) standard deviations
        spread_S = mine.error_S[:size] * np.float32(np.sqrt(np.pi / 2))
        spread_SH = spread_S[:, None] * growth_H
        units_SHQ = middle_SH[:, :, None] + spread_SH[:, :, None] * self._z_Q
        np.maximum(units_SHQ, 0, out=units_SHQ)
        sums_SH = np.cumsum(middle_SH, axis=1)
        spread_sums_SH = np.sqrt(np.cumsum(spread_SH**2, axis=1))
        sums_SHQ = sums_SH[:, :, None] + spread_sums_SH[:, :, None] * self._z_Q
        np.maximum(sums_SHQ, 0, out=sums_SHQ)
        np.maximum.accumulate(sums_SHQ, axis=1, out=sums_SHQ)
        return QuantileForecast(
            origin_ms=origin_ms,
            bucket_ms=self.bucket_ms,
            quantiles=self.quantiles,
            units_SHQ=units_SHQ.astype(np.float32),
            cumulative_SHQ=sums_SHQ.astype(np.float32),
            model_id=self.model_id,
        )

    def warm_up(
        self, states: States, history_TSF: Floats, start_ms: int, plans: Plans | None = None
    ) -> None:
        """Carry `states` over stored history, oldest bucket first, without forecasting."""
        if history_TSF.shape[0] == 0:
            return
        mine = self._advance(states, history_TSF, start_ms)
        for t, values_SF in enumerate(history_TSF):
            self._carry(mine, values_SF, start_ms + t * self.bucket_ms)

    def _advance(self, states: States, values: Floats, start_ms: int) -> NaiveStates:
        if not isinstance(states, NaiveStates):
            raise TypeError(f"states of {type(states).__name__} belong to another forecaster")
        if states.season_PS.shape[0] != self.season:
            raise InvalidValues("states were made for another bucket width")
        require_demand(values)
        silent = missing_buckets(states.last_ms, start_ms, self.bucket_ms)
        nothing = np.zeros((states.size, len(FEATURE_NAMES)), np.float32)
        for k in range(silent):
            self._carry(states, nothing, start_ms + (k - silent) * self.bucket_ms)
        states.grow(values.shape[-2])
        return states

    def _expected(self, states: NaiveStates, start_ms: int) -> Floats:
        """What last week, yesterday or the mean so far say of the bucket at `start_ms`."""
        size = states.size
        bucket = start_ms // self.bucket_ms
        seen_S = states.seen_S[:size]
        week_S = states.season_PS[bucket % self.season, :size]
        # yesterday's bucket, or the newest day's that is known where the horizon reaches further
        last = bucket if states.last_ms is None else states.last_ms // self.bucket_ms
        behind = max(1, -(-(bucket - last) // self.day)) * self.day
        day_S = states.season_PS[(bucket - behind) % self.season, :size]
        short_S = np.where(seen_S >= self.day, day_S, states.mean_S[:size])
        return np.where(seen_S >= self.season, week_S, short_S)

    def _carry(self, states: NaiveStates, values_SF: Floats, start_ms: int) -> None:
        """Learn one bucket: the error made on it, then the bucket itself."""
        size = states.size
        units_S = np.zeros(size, np.float32)
        units_S[: len(values_SF)] = values_SF[:, 0]
        seen_S = states.seen_S[:size]
        expected_S = self._expected(states, start_ms)
        rows = slice(len(values_SF))
        short = (values_SF[:, _STOCK] > 0) & (values_SF[:, _STOCKOUT_SHARE] >= CENSORED_SHARE)
        # without stock, what was sold is the least that was wanted
        units_S[rows][short] = np.maximum(units_S[rows], expected_S[rows])[short]
        error_S = np.abs(units_S - expected_S)
        share_S = 1.0 / np.minimum(np.maximum(seen_S, 1), _ERROR_MEMORY)
        carried_S = states.error_S[:size]
        carried_S += np.where(seen_S > 0, share_S * (error_S - carried_S), 0).astype(np.float32)
        begun_S = (seen_S > 0) | (units_S > 0)
        seen_S += begun_S
        mean_S = states.mean_S[:size]
        share_S = 1.0 / np.minimum(np.maximum(seen_S, 1), self.season)
        mean_S += np.where(begun_S, share_S * (units_S - mean_S), 0).astype(np.float32)
        states.season_PS[(start_ms // self.bucket_ms) % self.season, :size] = units_S
        states.last_ms = start_ms
