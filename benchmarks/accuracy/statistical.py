"""Peers that fit every series for itself: seasonal naive, and those of statsforecast.

Axes: T = buckets, S = series, H = horizon, Q = quantiles.
"""

from typing import Final

import numpy as np

from benchmarks.accuracy.problem import Floats, Made, Problem, clocked
from model.config import DECILES

_LEVELS: Final = (20, 40, 60, 80)
_LONGEST_HOURLY: Final = 4 * 168


class SeasonalNaive:
    """The last week repeated; quantiles from its own errors, never below zero."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def forecast(self, place: int) -> Made:
        """Forecast from `place` on."""
        units_SHQ, seconds = clocked(lambda: self._forecast(place))
        return Made(units_SHQ, 0.0, seconds)

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
    """AutoETS, a Theta or CrostonSBA of statsforecast, fitted anew at every origin.

    The season is a week of days or a day of hours; of hours, the last four weeks are read (a week
    of 168 hours is beyond these models). CrostonSBA has no quantiles of its own and gets conformal
    ones.
    """

    def __init__(self, problem: Problem, name: str) -> None:
        self.problem = problem
        self.name = name

    def forecast(self, place: int) -> Made:
        """Fit and forecast from `place` on; these models cannot do one without the other."""
        units_SHQ, seconds = clocked(lambda: self._forecast(place))
        return Made(units_SHQ, seconds, seconds)

    def _forecast(self, place: int) -> Floats:
        import pandas as pd
        from statsforecast import StatsForecast, models
        from statsforecast.utils import ConformalIntervals

        horizon = self.problem.horizon
        season = 24 if self.problem.hourly else 7
        longest = _LONGEST_HOURLY if self.problem.hourly else place
        past_TS = self.problem.units_TS[place - longest : place]
        n_series = past_TS.shape[1]
        made_by = {
            "AutoETS": lambda: models.AutoETS(season_length=season),
            "AutoTheta": lambda: models.AutoTheta(season_length=season),
            "DynamicOptimizedTheta": lambda: models.DynamicOptimizedTheta(season_length=season),
            "CrostonSBA": lambda: models.CrostonSBA(
                prediction_intervals=ConformalIntervals(n_windows=2, h=horizon)
            ),
        }
        frame = pd.DataFrame(
            {
                "unique_id": np.repeat(np.arange(n_series), len(past_TS)),
                "ds": np.tile(np.arange(len(past_TS)), n_series),
                "y": past_TS.T.reshape(-1).astype(float),
            }
        )
        made = StatsForecast([made_by[self.name]()], freq=1, n_jobs=1).forecast(
            df=frame, h=horizon, level=list(_LEVELS)
        )
        column = next(c for c in made.columns if c not in ("unique_id", "ds"))
        lows = [made[f"{column}-lo-{level}"] for level in reversed(_LEVELS)]
        highs = [made[f"{column}-hi-{level}"] for level in _LEVELS]
        block = np.stack([*lows, made[column], *highs], axis=-1)
        block = block.reshape(n_series, horizon, len(DECILES))
        return np.maximum(np.sort(block, axis=-1), 0).astype(np.float32)
