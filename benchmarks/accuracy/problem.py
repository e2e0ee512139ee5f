"""Input and output of a forecaster in the accuracy benchmark.

Axes: T = buckets, S = scored series, H = horizon, Q = quantiles, C = calendar, F = features.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.tasks import Task
from model.durations import HOUR_MS, WEEK_MS
from model.history import History
from model.inputs.carried_statistics import UNITS
from model.inputs.seasons.calendar import calendar_features

Floats = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """A task and its origins: `places` are the first buckets of the forecasts, rising.

    Surgecast and LightGBM learn from all series of the history, the other peers from the scored
    ones.
    """

    task: Task
    origins_ms: list[int]

    @property
    def horizon(self) -> int:
        """Buckets ahead."""
        return self.task.horizon

    @property
    def hourly(self) -> bool:
        """True for hourly buckets."""
        return self.task.history.bucket_ms == HOUR_MS

    @property
    def week(self) -> int:
        """Buckets a week, at least 1."""
        return max(1, WEEK_MS // self.task.history.bucket_ms)

    @cached_property
    def places(self) -> list[int]:
        """Bucket of each origin."""
        history = self.task.history
        return [(at - history.start_ms) // history.bucket_ms for at in self.origins_ms]

    @cached_property
    def scored_history(self) -> History:
        """The history of the scored series only."""
        history, scored = self.task.history, self.task.scored
        return replace(
            history,
            values_TSF=history.values_TSF[:, :scored],
            series=history.series[:scored],
            static_SX=history.static_features_SX[:scored],
            plans=history.plans and history.plans.chosen(np.arange(scored)),
        )

    @cached_property
    def units_TS(self) -> Floats:
        """Units of the scored series, 0 where unknown."""
        return np.ascontiguousarray(self.task.history.values_TSF[:, : self.task.scored, UNITS])

    @cached_property
    def known_units_TS(self) -> NDArray[np.float64]:
        """Units of the scored series, NaN where unknown."""
        observed_TS = self.task.observed_TS
        if observed_TS is None:
            return self.units_TS.astype(np.float64)
        known_TS: NDArray[np.float64] = np.where(
            observed_TS[:, : self.task.scored], self.units_TS, np.nan
        )
        return known_TS

    @cached_property
    def calendar_TC(self) -> Floats:
        """Calendar of all buckets and one horizon beyond them: known in advance."""
        history = self.task.history
        buckets = history.buckets + self.horizon
        starts = history.start_ms + history.bucket_ms * np.arange(buckets, dtype=np.int64)
        return calendar_features(
            starts, bucket_ms=history.bucket_ms, country=self.task.country, year_terms=True
        )


@dataclass(frozen=True, slots=True)
class OriginForecast:
    """Forecast of one origin and its CPU seconds (all threads).

    `fit_seconds` is the time of training at this origin, 0 without training; `refresh_seconds` that
    from the newest bucket to the forecast without training.
    """

    units_SHQ: Floats
    fit_seconds: float
    refresh_seconds: float


class Peer(Protocol):
    """A forecaster; it forecasts origins in rising order and reads only the buckets before each."""

    def forecast(self, place: int) -> OriginForecast:
        """Forecast the buckets from `place` on."""
        ...


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return the result of `work`, and its CPU seconds over all threads."""
    began = time.process_time()
    made = work()
    return made, time.process_time() - began
