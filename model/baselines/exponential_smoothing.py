"""Exponential smoothing with daily and weekly seasons: the fallback without a network.

Additive, without trend (Taylor 2003, *Short-term electricity demand forecasting using double
seasonal exponential smoothing*): a level and two seasonal profiles, each updated by a share of the
one-step error. The spread is learned as well: quantiles of the past errors, in multiples of a power
of the expected demand, are tracked by stochastic approximation of the pinball loss, so a series of
few units keeps its zeros. Buckets with zero expected demand, such as night hours, do not update the
spread: their errors of zero would make the band at noon too narrow. Numpy only, a few vector
operations per bucket: it needs no training, is independent of torch, and is ready after one pass
over the stored history.

Axes: S = series, P = phases of a season, H = horizon, Q = quantiles.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.baselines.seasonal import Quantiles, SeasonalForecaster
from model.config import DECILES

Floats = NDArray[np.float32]

#: Half-life of the level in days.
_HALF_LIFE_DAYS: Final = 4.0
#: Minimum rate of the daily and weekly profile; higher in the first seasons.
_DAY_RATE: Final = 0.03
_WEEK_RATE: Final = 0.07
_YOUNG: Final = 3
#: Minimum rate of the tracked error quantiles.
_QUANTILE_RATE: Final = 0.04
#: The spread grows as this power of the expected demand, for hourly and for daily buckets.
_POWER_OF_HOURS: Final = 1.0
_POWER_OF_DAYS: Final = 0.75
#: Added to the expected demand first, in multiples of the level.
_MIN_EXPECTED: Final = 0.1
_TINY: Final = 1e-3


class SmoothingStates:
    """Level, profiles and error quantiles of every series."""

    def __init__(self, capacity: int, *, day: int, week: int, start_Q: Floats) -> None:
        self.size = 0
        self.last_ms: int | None = None
        self._start_Q = start_Q
        self.level_S = np.zeros(capacity, np.float32)
        self.day_PS = np.zeros((day, capacity), np.float32)
        self.week_PS = np.zeros((week, capacity), np.float32)
        self.error_SQ = np.tile(start_Q, (capacity, 1))
        self.seen_S = np.zeros(capacity, np.int32)
        #: Weighted number of buckets the spread was learned from.
        self.spread_weight_S = np.zeros(capacity, np.float32)

    @property
    def season(self) -> int:
        """Buckets of the longer season."""
        return len(self.week_PS)

    def grow(self, size: int) -> None:
        """Make room for `size` series; new ones start at zero."""
        capacity = self.seen_S.size
        if size > capacity:
            extra = max(size, 2 * capacity) - capacity
            self.level_S = np.pad(self.level_S, (0, extra))
            self.day_PS = np.pad(self.day_PS, ((0, 0), (0, extra)))
            self.week_PS = np.pad(self.week_PS, ((0, 0), (0, extra)))
            self.error_SQ = np.concatenate((self.error_SQ, np.tile(self._start_Q, (extra, 1))))
            self.seen_S = np.pad(self.seen_S, (0, extra))
            self.spread_weight_S = np.pad(self.spread_weight_S, (0, extra))
        self.size = max(self.size, size)


class SmoothingForecaster(SeasonalForecaster[SmoothingStates]):
    """Double seasonal exponential smoothing with quantiles from its own errors.

    >>> smoothing = SmoothingForecaster(horizon=2, bucket_ms=86_400_000)
    >>> states = smoothing.new_states(1)
    >>> smoothing.warm_up(states, np.full((60, 1, 11), 3, np.float32), 0)
    >>> forecast = smoothing.step(states, np.full((1, 11), 3, np.float32), 60 * 86_400_000)
    >>> forecast.units_SHQ[0, :, 4].round(1).tolist()
    [3.0, 3.0]
    """

    model_id = "exponential-smoothing"
    states = SmoothingStates

    def __init__(
        self, *, horizon: int, bucket_ms: int, quantiles: tuple[float, ...] = DECILES
    ) -> None:
        super().__init__(horizon=horizon, bucket_ms=bucket_ms, quantiles=quantiles)
        self.alpha = 1 - 0.5 ** (1 / (_HALF_LIFE_DAYS * self.day))
        self.power = _POWER_OF_HOURS if self.day > 1 else _POWER_OF_DAYS
        self._q_Q = np.array(quantiles, np.float32)

    def new_states(self, capacity: int) -> SmoothingStates:
        """States without any series, with room for `capacity`."""
        return SmoothingStates(max(capacity, 1), day=self.day, week=self.season, start_Q=self._z_Q)

    def _spread(self, states: SmoothingStates, mean_SH: Floats) -> tuple[Quantiles, Quantiles]:
        """Quantiles by the tracked error quantiles, wider with the step."""
        width_SH = self._width(states, mean_SH)
        # h steps ahead, variance grows by 1 + (h - 1) α² as the level drifts (Hyndman 2008)
        steps_H = np.arange(self.horizon, dtype=np.float32)
        growth_H = np.sqrt(1 + steps_H * self.alpha**2)
        error_SQ = np.maximum.accumulate(states.error_SQ[: states.size], axis=1)
        units_SHQ = mean_SH[:, :, None] + (width_SH * growth_H)[:, :, None] * error_SQ[:, None, :]
        # errors of a sum: those of its buckets, each carried into all later buckets by α
        sums_SH = np.cumsum(mean_SH, axis=1)
        carry_H = np.cumsum((1 + self.alpha * steps_H) ** 2) / np.maximum(steps_H + 1, 1)
        spread_SH = np.sqrt(np.cumsum(width_SH**2, axis=1) * carry_H)
        sums_SHQ = sums_SH[:, :, None] + spread_SH[:, :, None] * self._sum_errors(error_SQ)
        return units_SHQ, sums_SHQ

    def _sum_errors(self, error_SQ: Floats) -> Floats:
        """Quantiles [S, H, Q] of a sum's error: closer to normal with each bucket added."""
        weight_H = (1 / np.arange(1, self.horizon + 1, dtype=np.float32))[:, None]
        # the median of skewed errors is below zero, that of their sum is not
        spread_S = (error_SQ[:, -1] - error_SQ[:, 0]) / (self._z_Q[-1] - self._z_Q[0] + _TINY)
        normal_SQ = spread_S[:, None] * self._z_Q
        mixed: Floats = weight_H * error_SQ[:, None, :] + (1 - weight_H) * normal_SQ[:, None, :]
        return mixed

    def _raw(self, states: SmoothingStates, start_ms: int) -> Floats:
        bucket, size = start_ms // self.bucket_ms, states.size
        day_S = states.day_PS[bucket % self.day, :size]
        raw_S: Floats = states.level_S[:size] + day_S + states.week_PS[bucket % self.season, :size]
        return raw_S

    def _expected(self, states: SmoothingStates, start_ms: int) -> Floats:
        """Mean demand [S] of the bucket at `start_ms`."""
        return np.maximum(self._raw(states, start_ms), 0)

    def _width(self, states: SmoothingStates, mean_SH: Floats) -> Floats:
        """Unit of the errors, in units sold: a power of the expected demand.

        The square root of the level where demand equals the level, so that counts of any size start
        alike; above and below it grows by `power`. The ratio to the level is at most one season,
        whatever an old profile adds to a level that has fallen since.
        """
        level_S1 = np.maximum(states.level_S[: states.size], 0)[:, None] + np.float32(_TINY)
        base_SH = mean_SH + np.float32(_MIN_EXPECTED) * level_S1
        ratio_SH = np.minimum(base_SH / level_S1, np.float32(self.season))
        power = np.float32(self.power - 0.5)
        width_SH: Floats = (np.sqrt(base_SH) * ratio_SH**power).astype(np.float32)
        return width_SH

    def _carry(self, states: SmoothingStates, values_SF: Floats, start_ms: int) -> None:
        """Learn one bucket: the error quantiles first, then level and profiles."""
        size, bucket = states.size, start_ms // self.bucket_ms
        units_S = np.zeros(size, np.float32)
        units_S[: len(values_SF)] = values_SF[:, 0]
        seen_S = states.seen_S[:size]
        begun_S = (seen_S > 0) | (units_S > 0)
        seen_S += begun_S
        mean_S = self._expected(states, start_ms)
        scaled_S = (units_S - mean_S) / self._width(states, mean_S[:, None])[:, 0]
        level_S = np.maximum(states.level_S[:size], np.float32(_TINY))
        weight_S = np.where(begun_S & (seen_S > self.day), np.minimum(mean_S / level_S, 1), 0)
        spread_weight_S = states.spread_weight_S[:size]
        spread_weight_S += weight_S
        tracked_SQ = states.error_SQ[:size]
        below_SQ = scaled_S[:, None] < tracked_SQ
        # a step proportional to the spread works for errors of any size
        spread_S = 0.1 + np.abs(tracked_SQ[:, -1] - tracked_SQ[:, 0])
        rate_S = np.maximum(1 / np.sqrt(np.maximum(spread_weight_S, 1)), _QUANTILE_RATE)
        tracked_SQ += (weight_S * rate_S * spread_S)[:, None] * (self._q_Q - below_SQ)
        error_S = np.where(begun_S, units_S - self._raw(states, start_ms), 0).astype(np.float32)
        share_S = np.maximum(1 / np.maximum(seen_S, 1), self.alpha).astype(np.float32)
        states.level_S[:size] += share_S * error_S
        if self.day > 1:
            day_S = _share(seen_S / self.day, _DAY_RATE)
            states.day_PS[bucket % self.day, :size] += day_S * error_S
        week_S = _share(seen_S / self.season, _WEEK_RATE)
        states.week_PS[bucket % self.season, :size] += week_S * error_S
        states.last_ms = start_ms


def _share(seasons_S: NDArray[np.floating], least: float) -> Floats:
    """Share of an error that updates a profile after some seasons: at first nearly their mean."""
    share_S: Floats = np.maximum(1 / (seasons_S + _YOUNG), least).astype(np.float32)
    return share_S
