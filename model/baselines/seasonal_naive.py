"""Seasonal naive: the yardstick, and what serves until a network has been trained.

The median forecast of a bucket is what the same bucket of the last season (one week) brought;
before a whole week is known, the same time yesterday; before that, the mean so far. The spread
comes from the carried quantiles of past errors, so it is honest from the first error on and never
NaN.

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
    """The last season of every series, its mean so far and its errors."""

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
        """Make room for `size` series; new ones start with nothing."""
        capacity = self.seen_S.size
        if size > capacity:
            extra = max(size, 2 * capacity) - capacity
            self.season_PS = np.pad(self.season_PS, ((0, 0), (0, extra)))
            self.seen_S = np.pad(self.seen_S, (0, extra))
            self.mean_S = np.pad(self.mean_S, (0, extra))
            self.error_S = np.pad(self.error_S, (0, extra))
        self.size = max(self.size, size)


class SeasonalNaiveForecaster(SeasonalForecaster[NaiveStates]):
    """Last week's demand at the same time, with the spread of its own past errors.

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
        """Normal, as wide as the errors of the past."""
        steps_H = np.arange(self.horizon)
        # errors of one season ahead hold for the whole season, and grow with each further one
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
