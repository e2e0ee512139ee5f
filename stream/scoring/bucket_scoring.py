"""A closed bucket against all forecasts that were made for it: labels, scores, moved levels. Pure.

Axes: S = series slots, N = labels of all forecasts, H = horizon steps, Q = quantiles, G = groups,
V = volume classes, K = sums.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import CENSORED_SHARE
from model.evaluation.calibration import Calibrator
from model.evaluation.pit import pit_bounds, reading_weights
from model.evaluation.score_sums import VOLUMES, score_labels
from stream.features.definitions import STOCK, STOCKOUT_SHARE, UNITS
from stream.scoring.pending_forecasts import ForecastSample

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Sums = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came in a bucket: units by slot, zero for slots beyond.

    `naive[k]` are the units k + 1 seasons before (None: not known), `season` is in buckets. Slots
    in `censored_S` were out of stock: what was sold says nothing about the demand.
    """

    units_S: Floats
    naive: Sequence[Floats | None] = ()
    season: int = 1
    censored_S: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, values_SF: Floats, naive: Sequence[Floats | None], season: int) -> "Outcome":
        """The label of a closed bucket; buckets without stock for half of the time are censored."""
        short_S = (values_SF[:, STOCK] > 0) & (values_SF[:, STOCKOUT_SHARE] >= CENSORED_SHARE)
        return cls(values_SF[:, UNITS], naive, season, short_S if short_S.any() else None)

    def units(self, slot_N: NDArray[np.int32]) -> Floats:
        """Units [N] of some slots; NaN for those out of stock."""
        units_N = _picked(self.units_S, slot_N)
        if self.censored_S is not None:
            out_N = _picked(self.censored_S.astype(np.float32), slot_N) > 0
            units_N = np.where(out_N, np.float32(np.nan), units_N)
        return units_N

    def naive_of(self, slot_N: NDArray[np.int32], step: int) -> Floats:
        """What the seasonal naive said of some slots, `step` buckets ahead; NaN where unknown."""
        lag = step // self.season
        known = self.naive[lag] if lag < len(self.naive) else None
        if known is None:
            return np.full(len(slot_N), np.nan, np.float32)
        return _picked(known, slot_N)


def _picked(values_S: Floats, slot_N: NDArray[np.int32]) -> Floats:
    picked_N = np.zeros(len(slot_N), np.float32)
    there_N = slot_N < len(values_S)
    picked_N[there_N] = values_S[slot_N[there_N]]
    return picked_N


@dataclass(slots=True)
class PendingForecast:
    """A forecast that waits, and the units [N] of its buckets so far; NaN once one was censored."""

    sent: ForecastSample
    so_far_N: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.so_far_N = np.zeros(len(self.sent.slot_N), np.float32)

    def add(self, label: Outcome) -> None:
        """Take note of the units of the next bucket."""
        self.so_far_N = self.so_far_N + label.units(self.sent.slot_N)


@dataclass(slots=True)
class CalibrationLevels:
    """Levels of the models of one kind; a group of `units` is 2 · volume class + busy.

    `model_id` is the one that serves. Only its forecasts move the levels.
    """

    units: Calibrator
    cumulative: Calibrator
    model_id: str = ""

    def serve(self, model_id: str) -> None:
        """Note which model the levels are for; a new one inherits those of the one before."""
        if self.model_id not in ("", model_id):
            self.units.inherit()
            self.cumulative.inherit()
        self.model_id = model_id

    @classmethod
    def new(cls, *, horizon: int, quantiles: Sequence[float], rate: float) -> "CalibrationLevels":
        """Nominal levels for every group."""
        volumes = len(VOLUMES)
        return cls(
            Calibrator(groups=2 * volumes, horizon=horizon, quantiles=quantiles, rate=rate),
            Calibrator(groups=volumes, horizon=horizon, quantiles=quantiles, rate=rate),
        )


def score_bucket(
    waiting: Sequence[PendingForecast],
    family: CalibrationLevels,
    start_ms: int,
    label: Outcome,
    *,
    bucket_ms: int,
) -> Sums:
    """Score the bucket at `start_ms` for forecasts of one model, and move the family's levels.

    They move where the model is the one that serves. Each forecast must reach the bucket. The sums
    [V, H, K] are those of `model.scores`.
    """
    quantiles = family.units.quantiles
    steps = [(start_ms - one.sent.origin_ms) // bucket_ms for one in waiting]
    for one in waiting:
        one.add(label)

    def joined(of: Callable[[ForecastSample, int], NDArray[Any]]) -> NDArray[Any]:
        parts = [of(one.sent, step) for one, step in zip(waiting, steps, strict=True)]
        return np.concatenate(parts)

    step_N = joined(lambda sent, step: np.full(len(sent.slot_N), step))
    volume_N = joined(lambda sent, _: sent.volume_N).astype(np.int64)
    group_N = joined(_groups)
    total_N = np.concatenate([one.so_far_N for one in waiting])
    model_NQ = joined(lambda sent, step: sent.cumulative.at(step))
    sent_NQ = joined(lambda sent, step: sent.levels[1][sent.volume_N, step])
    known_N = np.isfinite(total_N)
    serves = waiting[0].sent.model_id == family.model_id
    if serves:
        low_N, high_N = pit_bounds(total_N[known_N], model_NQ[known_N], quantiles)
        family.cumulative.learn(
            low_N, high_N,
            group_N=volume_N[known_N], step_N=step_N[known_N], sent_NQ=sent_NQ[known_N],
        )  # fmt: skip

    actual_N = joined(lambda sent, _: label.units(sent.slot_N))
    model_NQ = joined(lambda sent, step: sent.units.at(step))
    sent_NQ = joined(lambda sent, step: sent.levels[0][_groups(sent, step), step])
    published_NQ = joined(lambda sent, step: _published(sent, step, quantiles))
    weight_N = joined(lambda sent, _: sent.weight_N)
    naive_N = joined(lambda sent, step: label.naive_of(sent.slot_N, step))
    known_N = np.isfinite(actual_N)
    low_N, high_N = pit_bounds(actual_N[known_N], model_NQ[known_N], quantiles)
    if serves:
        family.units.learn(
            low_N, high_N,
            group_N=group_N[known_N], step_N=step_N[known_N], sent_NQ=sent_NQ[known_N],
        )  # fmt: skip
    return score_labels(
        actual_N=actual_N[known_N],
        published_NQ=published_NQ[known_N],
        low_N=low_N,
        high_N=high_N,
        sent_NQ=sent_NQ[known_N],
        quantiles=quantiles,
        volume_N=volume_N[known_N],
        step_N=step_N[known_N],
        weight_N=weight_N[known_N],
        naive_N=naive_N[known_N],
        horizon=family.units.levels_GHQ.shape[1],
    )


def _groups(sent: ForecastSample, step: int) -> Ints:
    return 2 * sent.volume_N.astype(np.int64) + sent.busy_NH[:, step]


def _published(sent: ForecastSample, step: int, quantiles: Sequence[float]) -> Floats:
    """What was published [N, Q] of a step."""
    weights_GQK = reading_weights(sent.levels[0][:, step], quantiles)
    read_NQ = np.einsum("nqk,nk->nq", weights_GQK[_groups(sent, step)], sent.units.at(step))
    published_NQ: Floats = np.maximum(read_NQ, np.float32(0))
    return published_NQ
