"""LightGBM: one direct model for each quantile over all series, without covariates of the future.

It learns from every series of the history, like the product, and knows the same calendar.

Axes: S = series, R = rows, H = horizon, Q = quantiles.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.peers.tree_rows import TreeRows
from benchmarks.accuracy.problem import Floats, OriginForecast, Problem, timed
from model.config import DECILES
from stream.series_ids import is_rollup

_SETTINGS: Final[dict[str, Any]] = {
    "objective": "quantile",
    "feature_fraction": 0.8,
    "verbose": -1,
    "seed": 0,
}
#: Share of the rows that are of roll-ups, if there are any.
_ROLLUPS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSettings:
    """Settings of LightGBM: rows drawn for a fit, and its trees.

    Series are drawn alike, but a tenth of the rows is of roll-ups; rows are weighted by their
    scale ** `weight_power`.
    """

    rows: int = 50_000
    trees: int = 100
    leaves: int = 31
    learning_rate: float = 0.1
    least_leaf: int = 100
    weight_power: float = 0.0


class LightGbm:
    """Nine quantile models, refitted at every `refit_every`-th origin."""

    def __init__(
        self, problem: Problem, settings: TreeSettings, *, refit_every: int, threads: int = 1
    ) -> None:
        self.problem = problem
        self.settings = settings
        self.refit_every = refit_every
        self.threads = threads
        self.models: list[Any] = []
        self.table = TreeRows(problem.task)

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

        settings = self.settings
        place_R, step_R, series_R = self._drawn(place)
        design_RX, scale_R = self.table.design(place_R, step_R, series_R)
        target_R = self.table.units_TS[place_R + step_R, series_R] / scale_R
        weight_R = scale_R**settings.weight_power if settings.weight_power else None
        table = lightgbm.Dataset(design_RX, target_R, weight=weight_R, free_raw_data=False)
        fixed = _SETTINGS | {
            "num_leaves": settings.leaves,
            "learning_rate": settings.learning_rate,
            "min_data_in_leaf": min(settings.least_leaf, max(5, len(target_R) // 200)),
            "num_threads": self.threads,
        }
        self.models = [lightgbm.train(fixed | {"alpha": q}, table, settings.trees) for q in DECILES]

    def _drawn(self, place: int) -> tuple[NDArray[np.int64], ...]:
        """Origins, steps and series of the rows to learn from: buckets before `place` alone.

        Origins are drawn evenly over the last four years, where their series has begun.
        """
        horizon, table, wanted = self.problem.horizon, self.table, self.settings.rows
        first = min(8 * table.spans.week, (place - horizon) // 3)
        first = max(first, place - 4 * table.spans.year)
        rng = np.random.default_rng(0)
        drawn = 3 * wanted
        place_R = rng.integers(first, place - horizon + 1, drawn)
        step_R = rng.integers(0, horizon, drawn)
        series_R = rng.choice(table.begun_S.size, drawn, p=self._shares())
        known_R = table.known_TS[place_R + step_R, series_R] & (table.begun_S[series_R] < place_R)
        return place_R[known_R][:wanted], step_R[known_R][:wanted], series_R[known_R][:wanted]

    def _shares(self) -> NDArray[np.float64]:
        """Share of each series among the rows drawn."""
        rollup_S = np.array([is_rollup(name) for name in self.problem.task.history.series])
        if rollup_S.all() or not rollup_S.any():
            return np.full(rollup_S.size, 1 / rollup_S.size)
        of_rollup, of_other = _ROLLUPS / rollup_S.sum(), (1 - _ROLLUPS) / (~rollup_S).sum()
        share_S: NDArray[np.float64] = np.where(rollup_S, of_rollup, of_other)
        return share_S

    def _predict(self, place: int) -> Floats:
        horizon, series = self.problem.horizon, self.problem.task.scored
        step_R = np.repeat(np.arange(horizon), series)
        series_R = np.tile(np.arange(series), horizon)
        design_RX, scale_R = self.table.design(np.full(step_R.size, place), step_R, series_R)
        columns_RQ = np.stack([model.predict(design_RX) for model in self.models], axis=-1)
        block = np.maximum(np.sort(columns_RQ, axis=-1), 0) * scale_R[:, None]
        units_SHQ: Floats = block.reshape(horizon, series, -1).transpose(1, 0, 2)
        return units_SHQ.astype(np.float32)
