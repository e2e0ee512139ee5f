"""Peers that fit every series separately: seasonal naive, and those of statsforecast.

Axes: T = buckets, S = series, H = horizon, Q = quantiles.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.problem import Floats, OriginForecast, Problem, timed
from model.config import DECILES

_LEVELS: Final = (20, 40, 60, 80)
_LONGEST_HOURLY: Final = 4 * 168


class SeasonalNaive:
    """The last week repeated; quantiles from its own errors, never negative."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def forecast(self, place: int) -> OriginForecast:
        """Forecast from `place` on."""
        units_SHQ, seconds = timed(lambda: self._forecast(place))
        return OriginForecast(units_SHQ, 0.0, seconds)

    def _forecast(self, place: int) -> Floats:
        season = self.problem.week
        past_TS = self.problem.units_TS[:place]
        steps = range(self.problem.horizon)
        last_SH = np.stack([past_TS[place - season + h % season] for h in steps], axis=1)
        error_TS = past_TS[season:] - past_TS[:-season]
        spread_QS = np.quantile(error_TS, DECILES, axis=0)
        block = last_SH[:, :, None] + spread_QS.T[:, None, :]
        return np.maximum(block, 0).astype(np.float32)


class Statistical:
    """AutoETS, a Theta or CrostonSBA of statsforecast, a model for each series.

    Refitted at every `refit_every`-th origin; in between the parameters are kept and the newest
    buckets are filtered through them. The season is a week of days or a day of hours; on hours, the
    last four weeks are read (a season of 168 is beyond these models). CrostonSBA has no quantiles
    of its own and gets conformal ones.
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

    def _past(self, place: int) -> NDArray[np.float64]:
        longest = _LONGEST_HOURLY if self.problem.hourly else place
        return self.problem.units_TS[place - longest : place].astype(np.float64)

    def _model(self) -> Any:
        from statsforecast import models
        from statsforecast.utils import ConformalIntervals

        season = 24 if self.problem.hourly else 7
        if self.name == "CrostonSBA":
            spread = ConformalIntervals(n_windows=2, h=self.problem.horizon)
            return models.CrostonSBA(prediction_intervals=spread)
        return getattr(models, self.name)(season_length=season)

    def _fit(self, place: int) -> None:
        self.fitted = [self._model() for _ in range(self.problem.units_TS.shape[1])]
        if self.name != "CrostonSBA":  # which can only fit and forecast at once
            self.fitted = [self._model().fit(past_T) for past_T in self._past(place).T]

    def _filter(self, place: int) -> Floats:
        horizon, levels = self.problem.horizon, list(_LEVELS)
        blocks = []
        for model, past_T in zip(self.fitted, self._past(place).T, strict=True):
            make = model.forecast if self.name == "CrostonSBA" else model.forward
            made = make(past_T, horizon, level=levels)
            lows = [made[f"lo-{level}"] for level in reversed(_LEVELS)]
            highs = [made[f"hi-{level}"] for level in _LEVELS]
            blocks.append(np.stack([*lows, made["mean"], *highs], axis=-1))
        return np.maximum(np.sort(np.stack(blocks), axis=-1), 0).astype(np.float32)
