"""What the page shows of one moment: an immutable picture made by the feed's thread.

Axes: T = closed buckets kept, F = features in the order of `model.contract.FEATURE_NAMES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS
from stream.readside.deployment import Deployment
from stream.readside.live_accuracy import LiveAccuracy
from stream.readside.movers import Mover
from stream.readside.series_answers import Age, Floats, OpenSums, SeriesForecast
from stream.readside.worker_stats import DeploymentStats

_MOST_BUCKETS: Final = 12_000
_MOST_DRAWN: Final = 2_016


class SeriesView(NamedTuple):
    """One series: its closed buckets, what was expected of them, open buckets and forecast."""

    series_id: str
    category: str | None
    start_T: NDArray[np.int64]
    values_TF: Floats
    ahead_T3: Floats
    closed_through_ms: int
    opened: tuple[OpenSums, ...]
    forecast: SeriesForecast | None
    age: Age


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything all sessions draw from. `problem` says in one line why nothing new comes."""

    at_ms: int = 0
    info: Deployment | None = None
    stats: DeploymentStats = field(default_factory=DeploymentStats)
    views: Mapping[str, SeriesView] = field(default_factory=dict)
    movers: tuple[Mover, ...] | None = None
    names: tuple[str, ...] = ()
    rollups: tuple[str, ...] = ()
    categories: Mapping[str, str] = field(default_factory=dict)
    n_series: int = 0
    speed: float | None = None
    accuracy: LiveAccuracy | None = None
    problem: str | None = None


def kept_ms(bucket_ms: int) -> int:
    """How much history of a watched series is held: eight days, at least 60 buckets.

    >>> kept_ms(3_600_000) // DAY_MS, kept_ms(DAY_MS) // DAY_MS
    (8, 60)
    """
    return min(max(8 * DAY_MS, 60 * bucket_ms), _MOST_BUCKETS * bucket_ms)


def drawn_ms(bucket_ms: int) -> int:
    """How much of it the chart holds: seven days, at least 56 buckets, at most 2,016.

    >>> drawn_ms(3_600_000) // DAY_MS, drawn_ms(DAY_MS) // DAY_MS, drawn_ms(60_000) // 3_600_000
    (7, 56, 33)
    """
    return min(max(7 * DAY_MS, 56 * bucket_ms), _MOST_DRAWN * bucket_ms)
