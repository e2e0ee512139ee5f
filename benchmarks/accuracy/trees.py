"""LightGBM: one direct model for each quantile, with the covariates of Surgecast.

A row is a series at an origin and a step. Its columns: lags, means over seven spans and over the
year, the same phase of past weeks, last year's level, order lines, price relative to its usual one,
age, the calendar of the target bucket (holidays and closures included) and the step.

Axes: T = buckets, S = series, R = rows, X = columns, C = calendar.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.problem import Floats, OriginForecast, Problem, timed
from model.config import DECILES
from model.inputs.carried_statistics import ORDERS, REVENUE

_MAX_ROWS: Final = 300_000
_SETTINGS: Final[dict[str, Any]] = {
    "objective": "quantile",
    "num_leaves": 63,
    "learning_rate": 0.08,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.8,
    "verbose": -1,
    "seed": 0,
}


class LightGbm:
    """Nine quantile models, refitted at every `refit_every`-th origin."""

    def __init__(
        self,
        problem: Problem,
        *,
        refit_every: int,
        spacing: int,
        rows_power: float,
        trees: int = 150,
        threads: int = 1,
    ) -> None:
        self.problem = problem
        self.refit_every = refit_every
        self.spacing = spacing
        self.rows_power = rows_power
        self.trees = trees
        self.settings = _SETTINGS | {"num_threads": threads}
        self.models: list[Any] = []
        self.table = _Columns(problem)

    def forecast(self, place: int) -> OriginForecast:
        """Fit if due, and forecast from `place` on."""
        number = self.problem.places.index(place)
        seconds = 0.0
        if number % self.refit_every == 0 or not self.models:
            fitted_at = self.problem.places[number - number % self.refit_every]
            _, seconds = timed(lambda: self._fit(fitted_at))
        units_SHQ, refresh = timed(lambda: self._predict(place))
        return OriginForecast(units_SHQ, seconds, refresh)

    def _fit(self, place: int) -> None:
        import lightgbm

        problem = self.problem
        first = max(8 * problem.week, place - 400 * self.spacing)
        origins = range(first, place - problem.horizon + 1, self.spacing)
        series = problem.units_TS.shape[1]
        volume_S = problem.units_TS[:place].mean(axis=0) ** self.rows_power
        share_S = shares(volume_S, _MAX_ROWS / (len(origins) * problem.horizon))
        rng = np.random.default_rng(0)
        parts = []
        for origin in origins:
            for step in range(problem.horizon):
                chosen = np.flatnonzero(rng.random(series) < share_S)
                parts.append((self.table.rows(origin, step, chosen), origin + step, chosen))
        design = np.concatenate([rows for rows, _, _ in parts])
        target = np.concatenate([problem.units_TS[at, chosen] for _, at, chosen in parts])
        table = lightgbm.Dataset(design, target, free_raw_data=False)
        self.models = [
            lightgbm.train(self.settings | {"alpha": q}, table, self.trees) for q in DECILES
        ]

    def _predict(self, place: int) -> Floats:
        horizon, series = self.problem.horizon, self.problem.units_TS.shape[1]
        everyone = np.arange(series)
        ahead = np.concatenate([self.table.rows(place, step, everyone) for step in range(horizon)])
        columns = np.stack([model.predict(ahead) for model in self.models], axis=-1)
        block = np.maximum(np.sort(columns, axis=-1), 0)
        return block.reshape(horizon, series, -1).transpose(1, 0, 2).astype(np.float32)


def shares(weight_S: NDArray[Any], wanted: float) -> NDArray[np.float64]:
    """Share of rows to sample from each series: by weight, at most 1, with sum `wanted`.

    >>> shares(np.array([6.0, 1.0, 1.0]), 2.0)
    array([1. , 0.5, 0.5])
    """
    open_S = weight_S > 0
    share_S = open_S.astype(np.float64)
    while wanted < share_S.sum() and open_S.any():
        left = wanted - share_S[~open_S].sum()
        drawn_S = weight_S * (left / weight_S[open_S].sum())
        over_S = open_S & (drawn_S > 1)
        if not over_S.any():
            return np.where(open_S, drawn_S, share_S)
        open_S &= ~over_S
    return share_S


class _Columns:
    """The columns of rows; those of an origin are computed once."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        values_TSF = problem.task.history.values_TSF[:, : problem.task.scored]
        units_TS = problem.units_TS
        self.sums = _running(units_TS)
        self.sold = _running(units_TS > 0)
        self.orders = _running(values_TSF[:, :, ORDERS])
        self.revenue = _running(values_TSF[:, :, REVENUE])
        self.place = -1
        self.fixed_SX = np.zeros((0, 0), np.float32)

    def _mean(self, place: int, span: int) -> NDArray[np.float64]:
        first = max(0, place - span)
        level_S: NDArray[np.float64] = (self.sums[place] - self.sums[first]) / (place - first)
        return level_S

    def _price(self, place: int, span: int) -> NDArray[np.float64]:
        first = max(0, place - span)
        units_S = self.sums[place] - self.sums[first]
        price_S: NDArray[np.float64] = (self.revenue[place] - self.revenue[first]) / np.where(
            units_S > 0, units_S, np.nan
        )
        return price_S

    def _compute_fixed(self, place: int) -> None:
        """Compute the columns that are the same for all steps of an origin."""
        week = self.problem.week
        past_TS = self.problem.units_TS[:place]
        spans = [1, week // 2 + 1, week, 2 * week, 4 * week, 8 * week, 16 * week, 52 * week]
        recent = max(0, place - 4 * week)
        self.fixed_SX = np.column_stack(
            (
                *(self._mean(place, span) for span in spans),
                *(past_TS[place - lag] for lag in range(1, 8)),
                (self.sold[place] - self.sold[place - 8 * week]) / (8 * week),
                self.sums[place] / np.maximum(1, self.sold[place]),
                place - np.argmax(past_TS > 0, axis=0),
                (self.orders[place] - self.orders[recent]) / (place - recent),
                self._price(place, 4 * week) / self._price(place, 26 * week),
                self._price(place, 26 * week),
            )
        ).astype(np.float32)
        self.place = place

    def rows(self, place: int, step: int, chosen_R: NDArray[np.int64]) -> Floats:
        """Rows [R, X] of some series at one origin and step."""
        if place != self.place:
            self._compute_fixed(place)
        week, units_TS = self.problem.week, self.problem.units_TS
        target = place + step
        back = range(step // week + 1, step // week + 9)
        same_R = np.mean(
            [units_TS[target - k * week, chosen_R] for k in back if target >= k * week], 0
        )
        year_R = base_R = np.full(len(chosen_R), np.nan)
        then = target - 52 * week
        if then > week:
            year_R = self._mean(min(then + week // 2 + 1, place), week)[chosen_R]
        if place - 52 * week >= 4 * week:
            base_R = self._mean(place - 52 * week, 4 * week)[chosen_R]
        calendar_RC = np.repeat(self.problem.calendar_TC[target][None], len(chosen_R), axis=0)
        varying = (np.full(len(chosen_R), step), same_R, year_R, base_R)
        return np.column_stack((self.fixed_SX[chosen_R], *varying, calendar_RC)).astype(np.float32)


def _running(values_TS: NDArray[Any]) -> NDArray[np.float64]:
    """Sums over the buckets before each place [T + 1, S]."""
    nothing = np.zeros((1, values_TS.shape[1]))
    return np.concatenate((nothing, np.cumsum(values_TS, axis=0, dtype=np.float64)))
