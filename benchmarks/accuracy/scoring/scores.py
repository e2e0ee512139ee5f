"""Scores of stored forecasts over the observed truths alone, by level of aggregation and by step.

Axes: O = origins, S = series, H = horizon, Q = quantiles, T = buckets, N = observed truths.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.problem import Floats, Problem
from model.config import DECILES
from model.evaluation.metrics import (
    UndefinedMetric,
    bias,
    interval_coverage,
    mase,
    pinball_loss,
    pit_coverage,
    sql,
    wql,
)
from model.inputs.carried_statistics import RETURNS, UNITS
from stream.series_ids import level_of

Doubles = NDArray[np.float64]
#: The levels of a table, in order; `all` pools them.
LEVELS: Final = ("sku", "category", "location", "total", "all")
_MEDIAN: Final = DECILES.index(0.5)


@dataclass(frozen=True, slots=True)
class Truth:
    """What happened after each origin: `actual_OSH` in units, NaN where nobody knows.

    `naive_error_OS` is the in-sample error of the seasonal naive before the origin, 0 if unknown.
    `levels` are the series of each level. `whole_S` is True for series sold in whole units, for
    which all models are scored in whole units.
    """

    actual_OSH: Doubles
    naive_error_OS: Doubles
    levels: dict[str, NDArray[np.int64]]
    whole_S: NDArray[np.bool_]

    @classmethod
    def of(cls, problem: Problem) -> "Truth":
        """The truths of a problem; units sold less units returned."""
        task = problem.task
        values_TSF = task.history.values_TSF[:, : task.scored]
        net_TS = np.where(
            np.isnan(problem.known_units_TS),
            np.nan,
            values_TSF[:, :, UNITS].astype(np.float64) - values_TSF[:, :, RETURNS],
        )
        places = problem.places
        level_S = np.array([level_of(name) for name in task.history.series[: task.scored]])
        levels = {name: np.flatnonzero(level_S == name) for name in LEVELS[:-1]}
        levels["all"] = np.arange(task.scored)
        return cls(
            np.stack([net_TS[place : place + task.horizon].T for place in places]),
            np.stack([naive_error(net_TS[:place], task.season) for place in places]),
            {name: slots for name, slots in levels.items() if slots.size},
            problem.scored_history.whole_units_S,
        )

    def at(self, number: int) -> "Truth":
        """The truths of one origin."""
        only = slice(number, number + 1)
        return Truth(self.actual_OSH[only], self.naive_error_OS[only], self.levels, self.whole_S)


def naive_error(past_TS: Doubles, season: int) -> Doubles:
    """Mean absolute seasonal difference [S] of the known buckets since each first sale; else 0.

    >>> naive_error(np.array([[0.0], [2.0], [np.nan], [4.0], [5.0]]), 1).tolist()
    [1.0]
    """
    begun_TS = np.cumsum(np.nan_to_num(past_TS), axis=0)[:-season] > 0
    error_TS = np.abs(past_TS[season:] - past_TS[:-season])
    counted_TS = begun_TS & np.isfinite(error_TS)
    total_S = np.where(counted_TS, error_TS, 0).sum(axis=0)
    mean_S: Doubles = total_S / np.maximum(counted_TS.sum(axis=0), 1)
    return mean_S


def scores(
    truth: Truth, units_OSHQ: Floats, slots: NDArray[np.int64], steps: slice = slice(None)
) -> dict[str, Any]:
    """Metrics of forecasts of some series and steps, pooled over origins; None where undefined."""
    actual = truth.actual_OSH[:, slots, steps]
    known = np.isfinite(actual)
    actual_N, forecast_NQ = actual[known], units_OSHQ[:, slots, steps][known]
    error_N = np.broadcast_to(truth.naive_error_OS[:, slots, None], actual.shape)[known]
    median_N = forecast_NQ[:, _MEDIAN]
    return {
        "wql": _defined(lambda: wql(actual_N, forecast_NQ, DECILES)),
        "sql": _defined(lambda: sql(actual_N, forecast_NQ, DECILES, error_N)),
        "mase": _defined(lambda: mase(actual_N, median_N, error_N)),
        "coverage": round(interval_coverage(actual_N, forecast_NQ[:, 0], forecast_NQ[:, -1]), 4),
        "pit_coverage": round(pit_coverage(actual_N, forecast_NQ, DECILES), 4),
        "bias": _defined(lambda: bias(actual_N, median_N)),
        "truths": int(actual_N.size),
    }


def losses(truth: Truth, units_OSHQ: Floats) -> tuple[Doubles, Doubles]:
    """Summed loss and demand [O, S] of which WQL is the ratio: Σ loss / Σ demand."""
    known_OSH = np.isfinite(truth.actual_OSH)
    actual_OSH = np.nan_to_num(truth.actual_OSH)
    flat_NQ = units_OSHQ.reshape(-1, units_OSHQ.shape[-1])
    loss_N = 2 * pinball_loss(actual_OSH.reshape(-1), flat_NQ, DECILES).mean(axis=1)
    loss_OSH = np.where(known_OSH, loss_N.reshape(actual_OSH.shape), 0)
    return loss_OSH.sum(axis=2), np.abs(actual_OSH).sum(axis=2)


def _defined(metric: Callable[[], float]) -> float | None:
    try:
        return round(metric(), 4)
    except UndefinedMetric:
        return None
