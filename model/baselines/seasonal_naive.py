"""Seasonal naive: the baseline every other forecaster is measured against.

The median forecast of a bucket is the demand of the same bucket in the last season (one week; for
weeks and longer buckets one year); with less history, the same time yesterday or the last of such
long buckets; with less than a day, the mean so far. The
spread comes from the carried errors, so it is usable from the first error on and never NaN.

Axes: S = series, P = phase within the season, F = stored features, H = horizon, Q = quantiles.
"""

import numpy as np
from numpy.typing import NDArray

from model.baselines.seasonal import Quantiles, SeasonalForecaster
from model.config import CENSORED_SHARE
from model.contract import FeatureSpec

Floats = NDArray[np.float32]

_ERROR_MEMORY = 200.0
_STOCK = FeatureSpec().index("stock")
_STOCKOUT_SHARE = FeatureSpec().index("stockout_share")


class NaiveStates:
    """The last season of every series, its mean so far and its mean error."""

    def __init__(self, capacity: int, season: int) -> None:
        self.size = 0
        self.last_ms: int | None = None
        self.season_PS = np.zeros((season, capacity), np.float32)
        self.seen_S = np.zeros(capacity, np.int64)
        self.mean_S = np.zeros(capacity, np.float32)
        self.error_S = np.zeros(capacity, np.float32)

    @property
    def season(self) -> int:
        """Buckets of a season."""
        return len(self.season_PS)

    def grow(self, size: int) -> None:
        """Make room for `size` series; new ones start at zero."""
        capacity = self.seen_S.size
        if size > capacity:
            extra = max(size, 2 * capacity) - capacity
            self.season_PS = np.pad(self.season_PS, ((0, 0), (0, extra)))
            self.seen_S = np.pad(self.seen_S, (0, extra))
            self.mean_S = np.pad(self.mean_S, (0, extra))
            self.error_S = np.pad(self.error_S, (0, extra))
        self.size = max(self.size, size)


class SeasonalNaiveForecaster(SeasonalForecaster[NaiveStates]):
    """The last season's demand at the same time, with the spread of its own past errors.

    >>> naive = SeasonalNaiveForecaster(horizon=2, bucket_ms=86_400_000)
    >>> states = naive.new_states(1)
    >>> forecast = naive.step(states, np.full((1, 11), 3, np.float32), 0)
    >>> forecast.units_SHQ[0, 0, 4].item()
    3.0
    """

    model_id = "seasonal-naive"
    states = NaiveStates

    def new_states(self, capacity: int) -> NaiveStates:
        """States without any series, with room for `capacity`."""
        return NaiveStates(max(capacity, 1), self.season)

    def _spread(self, states: NaiveStates, mean_SH: Floats) -> tuple[Quantiles, Quantiles]:
        """Normal quantiles with the standard deviation of the past errors."""
        steps_H = np.arange(self.horizon)
        # errors one season ahead apply to the whole season, and grow with each further season
        growth_H = np.sqrt(steps_H // self.season + 1).astype(np.float32)
        # mean absolute error of a normal variable is sqrt(2 / pi) standard deviations
        spread_S = states.error_S[: states.size] * np.float32(np.sqrt(np.pi / 2))
        spread_SH = spread_S[:, None] * growth_H
        units_SHQ = mean_SH[:, :, None] + spread_SH[:, :, None] * self._z_Q
        sums_SH = np.cumsum(mean_SH, axis=1)
        spread_sums_SH = np.sqrt(np.cumsum(spread_SH**2, axis=1))
        sums_SHQ = sums_SH[:, :, None] + spread_sums_SH[:, :, None] * self._z_Q
        return units_SHQ, sums_SHQ

    def _expected(self, states: NaiveStates, start_ms: int) -> Floats:
        """Demand last week or yesterday, or the mean so far, for the bucket at `start_ms`."""
        size = states.size
        bucket = start_ms // self.bucket_ms
        seen_S = states.seen_S[:size]
        week_S = states.season_PS[bucket % self.season, :size]
        # yesterday's bucket, or that of the newest known day for a longer horizon
        last = bucket if states.last_ms is None else states.last_ms // self.bucket_ms
        behind = max(1, -(-(bucket - last) // self.day)) * self.day
        day_S = states.season_PS[(bucket - behind) % self.season, :size]
        short_S = np.where(seen_S >= self.day, day_S, states.mean_S[:size])
        return np.where(seen_S >= self.season, week_S, short_S)

    def _carry(self, states: NaiveStates, values_SF: Floats, start_ms: int) -> None:
        """Learn one bucket: its error first, then its demand."""
        size = states.size
        units_S = np.zeros(size, np.float32)
        units_S[: len(values_SF)] = values_SF[:, 0]
        seen_S = states.seen_S[:size]
        expected_S = self._expected(states, start_ms)
        rows = slice(len(values_SF))
        short = (values_SF[:, _STOCK] > 0) & (values_SF[:, _STOCKOUT_SHARE] >= CENSORED_SHARE)
        # without stock, sales are a lower bound of demand
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
