"""Immutable data for one update of the page, published by the feed.

Axes: T = closed buckets in memory, F = features in the order of `model.contract.FEATURE_NAMES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS
from stream.readside.condition import Fault
from stream.readside.deployment import Deployment
from stream.readside.explanations import SeriesExplanation
from stream.readside.live_accuracy import LiveAccuracy
from stream.readside.rolling.movers import Mover
from stream.readside.series_answers import Age, Floats, OpenSums, SeriesForecast
from stream.readside.worker_stats import DeploymentStats

_MAX_BUCKETS: Final = 12_000
_MAX_DRAWN: Final = 2_016


class SeriesView(NamedTuple):
    """A series: closed buckets, their one-step-ahead forecasts, open buckets and forecast.

    `explanation` is the newest one, which may be of the forecast before.
    """

    series_id: str
    category: str | None
    start_T: NDArray[np.int64]
    values_TF: Floats
    ahead_T3: Floats
    closed_through_ms: int
    open_buckets: tuple[OpenSums, ...]
    forecast: SeriesForecast | None
    age: Age
    explanation: SeriesExplanation | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Data for all sessions. `problem` is the reason in one line if the feed cannot read."""

    at_ms: int = 0
    info: Deployment | None = None
    stats: DeploymentStats = field(default_factory=DeploymentStats)
    fault: Fault | None = None
    views: Mapping[str, SeriesView] = field(default_factory=dict)
    movers: tuple[Mover, ...] | None = None
    names: tuple[str, ...] = ()
    rollups: tuple[str, ...] = ()
    categories: Mapping[str, str] = field(default_factory=dict)
    n_series: int = 0
    speed: float | None = None
    accuracy: LiveAccuracy | None = None
    problem: str | None = None


def history_ms(bucket_ms: int) -> int:
    """Length of a watched series' history: eight days, at least 60 buckets.

    >>> history_ms(3_600_000) // DAY_MS, history_ms(DAY_MS) // DAY_MS
    (8, 60)
    """
    return min(max(8 * DAY_MS, 60 * bucket_ms), _MAX_BUCKETS * bucket_ms)


def chart_ms(bucket_ms: int) -> int:
    """Length of the chart's history: seven days, at least 56 buckets, at most 2,016.

    >>> chart_ms(3_600_000) // DAY_MS, chart_ms(DAY_MS) // DAY_MS, chart_ms(60_000) // 3_600_000
    (7, 56, 33)
    """
    return min(max(7 * DAY_MS, 56 * bucket_ms), _MAX_DRAWN * bucket_ms)
