"""Peers that fit every series separately: seasonal naive, and those of statsforecast.

Axes: T = buckets, S = series, H = horizon, Q = quantiles.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.problem import Floats, OriginForecast, Problem, timed
from model.config import DECILES
from model.durations import DAY_MS, HOUR_MS

_LEVELS: Final = (20, 40, 60, 80)
#: Buckets that are read at most: a season of 168 is beyond these models.
_LONGEST: Final = {HOUR_MS: 4 * 168, DAY_MS: 3 * 364}
#: Longest season of exponential smoothing; a longer one is taken out before (MSTL).
_LONGEST_SEASON: Final = 24


class SeasonalNaive:
    """The last season repeated; quantiles of the series' own seasonal differences, not negative."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def forecast(self, place: int) -> OriginForecast:
        """Forecast from `place` on."""
        units_SHQ, seconds = timed(lambda: self._forecast(place))
        return OriginForecast(units_SHQ, 0.0, seconds)

    def _forecast(self, place: int) -> Floats:
        season = self.problem.task.season
        past_TS = self.problem.known_units_TS[:place]
        steps = range(self.problem.horizon)
        filled_TS = seasonally_filled(past_TS, season)
        last_SH = np.stack([filled_TS[place - season + h % season] for h in steps], axis=1)
        error_TS = past_TS[season:] - past_TS[:-season]
        spread_QS = np.zeros((len(DECILES), past_TS.shape[1]))
        some_S = np.isfinite(error_TS).any(axis=0)
        spread_QS[:, some_S] = np.nanquantile(error_TS[:, some_S], DECILES, axis=0)
        block = last_SH[:, :, None] + spread_QS.T[:, None, :]
        return np.maximum(block, 0).astype(np.float32)


def seasonally_filled(units_TS: NDArray[Any], season: int) -> NDArray[np.float64]:
    """Unknown buckets (NaN) replaced by those of the season before; zeros where there is none.

    >>> seasonally_filled(np.array([[1.0], [2.0], [np.nan], [4.0]]), 2).ravel().tolist()
    [1.0, 2.0, 1.0, 4.0]
    """
    filled_TS = np.array(units_TS, np.float64)
    for t in range(len(filled_TS)):
        before_S = filled_TS[t - season] if t >= season else np.zeros(filled_TS.shape[1])
        filled_TS[t] = np.where(np.isnan(filled_TS[t]), before_S, filled_TS[t])
    return filled_TS


class Statistical:
    """AutoETS, a Theta or CrostonSBA of statsforecast, a model for each series since its begin.

    Refitted at every `refit_every`-th origin; in between the parameters are kept and the newest
    buckets are filtered through them. The season is a week of days, a day of hours, else that of
    the task; of weeks MSTL takes the year out and AutoETS forecasts the rest. Without a season
    AutoETS is simple exponential smoothing with additive errors: its multiplicative models explode
    on spiky series. CrostonSBA has no quantiles of its own and gets conformal ones.
    """

    def __init__(self, problem: Problem, name: str, *, refit_every: int) -> None:
        self.problem = problem
        self.name = name
        self.refit_every = refit_every
        self.fitted: list[Any] = []

    def forecast(self, place: int) -> OriginForecast:
        """Fit if due, and forecast from `place` on."""
        number = self.problem.places.index(place)
        seconds = 0.0
        if number % self.refit_every == 0 or not self.fitted:
            fitted_at = self.problem.places[number - number % self.refit_every]
            _, seconds = timed(lambda: self._fit(fitted_at))
        units_SHQ, refresh = timed(lambda: self._filter(place))
        return OriginForecast(units_SHQ, seconds, refresh)

    @property
    def _season(self) -> int:
        return 24 if self.problem.hourly else self.problem.task.season

    def _past(self, place: int) -> list[NDArray[np.float64]]:
        """Units of each series since its first sale, at least two seasons and the horizon."""
        units_TS = self.problem.known_units_TS[:place]
        filled_TS = seasonally_filled(units_TS, self._season)
        longest = _LONGEST.get(self.problem.task.history.bucket_ms, place)
        least = 2 * self._season + self.problem.horizon
        begun_S = np.where((filled_TS > 0).any(axis=0), (filled_TS > 0).argmax(axis=0), place)
        first_S = np.maximum(np.minimum(begun_S, place - least), max(0, place - longest))
        return [filled_TS[first:, s] for s, first in enumerate(first_S)]

    def _model(self, length: int) -> Any:
        from statsforecast import models
        from statsforecast.utils import ConformalIntervals

        season = self._season
        if self.name == "CrostonSBA":
            spread = ConformalIntervals(n_windows=2, h=self.problem.horizon)
            return models.CrostonSBA(prediction_intervals=spread)
        if self.name != "AutoETS":
            return getattr(models, self.name)(season_length=season)
        if season > _LONGEST_SEASON and length > 2 * season:
            trend = models.AutoETS(season_length=1, model="ZZN")
            return models.MSTL(season_length=season, trend_forecaster=trend)
        if season == 1 or season > _LONGEST_SEASON:
            return models.AutoETS(season_length=1, model="ANN")
        return models.AutoETS(season_length=season)

    def _fit(self, place: int) -> None:
        past = self._past(place)
        self.fitted = [self._model(len(past_T)) for past_T in past]
        if self.name != "CrostonSBA":  # which can only fit and forecast at once
            self.fitted = [
                model.fit(past_T) for model, past_T in zip(self.fitted, past, strict=True)
            ]

    def _filter(self, place: int) -> Floats:
        horizon, levels = self.problem.horizon, list(_LEVELS)
        blocks = []
        for model, past_T in zip(self.fitted, self._past(place), strict=True):
            make = model.forecast if self.name == "CrostonSBA" else model.forward
            made = make(past_T, horizon, level=levels)
            lows = [made[f"lo-{level}"] for level in reversed(_LEVELS)]
            highs = [made[f"hi-{level}"] for level in _LEVELS]
            blocks.append(np.stack([*lows, made["mean"], *highs], axis=-1))
        block: Floats = np.nan_to_num(np.stack(blocks), nan=0.0)
        return np.maximum(np.sort(block, axis=-1), 0).astype(np.float32)
