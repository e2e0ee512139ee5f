"""What a forecaster of the accuracy benchmark is given, and what it hands back.

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
from model.durations import HOUR_MS
from model.history import History
from model.inputs.calendar import calendar_features

Floats = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """A task and its origins: `places` are the buckets at which a forecast begins, rising.

    The product learns from all series of the history, the peers from the scored ones.
    """

    task: Task
    origins_ms: list[int]

    @property
    def horizon(self) -> int:
        """Buckets ahead."""
        return self.task.horizon

    @property
    def hourly(self) -> bool:
        """Whether buckets are hours."""
        return self.task.history.bucket_ms == HOUR_MS

    @property
    def week(self) -> int:
        """Buckets a week."""
        return 168 if self.hourly else 7

    @cached_property
    def places(self) -> list[int]:
        """Bucket of each origin."""
        history = self.task.history
        return [(at - history.start_ms) // history.bucket_ms for at in self.origins_ms]

    @cached_property
    def scored_history(self) -> History:
        """The history of the scored series alone."""
        history, scored = self.task.history, self.task.scored
        return replace(
            history,
            values_TSF=history.values_TSF[:, :scored],
            series=history.series[:scored],
            static_SX=history.static_features_SX[:scored],
        )

    @cached_property
    def units_TS(self) -> Floats:
        """Units of the scored series."""
        return np.ascontiguousarray(self.task.history.values_TSF[:, : self.task.scored, 0])

    @cached_property
    def calendar_TC(self) -> Floats:
        """Calendar of all buckets and of one horizon behind them: known in advance."""
        history = self.task.history
        buckets = history.buckets + self.horizon
        starts = history.start_ms + history.bucket_ms * np.arange(buckets, dtype=np.int64)
        return calendar_features(starts, bucket_ms=history.bucket_ms, country="GB")


@dataclass(frozen=True, slots=True)
class Made:
    """Forecast of one origin and the CPU seconds (all threads) it took.

    `fit_seconds` is what was spent on learning at this origin, 0 where nothing was learnt;
    `refresh_seconds` the way from the newest bucket to the forecast without learning.
    """

    units_SHQ: Floats
    fit_seconds: float
    refresh_seconds: float


class Peer(Protocol):
    """A forecaster; asked for its origins in rising order, it reads only what lies before each."""

    def forecast(self, place: int) -> Made:
        """Forecast the buckets from `place` on."""
        ...


def clocked(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` returns, and its CPU seconds over all threads."""
    began = time.process_time()
    made = work()
    return made, time.process_time() - began
