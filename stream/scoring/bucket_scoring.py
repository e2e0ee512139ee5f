"""Scores a closed bucket against all forecasts made of it, and moves the calibration levels. Pure.

Axes: S = series slots, F = features, N = labels of all forecasts, H = horizon steps,
Q = quantiles, G = groups, V = volume classes, K = sums.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import CENSORED_SHARE
from model.evaluation.calibration import SUMS_PACE, Calibrator
from model.evaluation.pit import pit_bounds, reading_weights
from model.evaluation.score_sums import VOLUMES, Sums, add_sums, score_labels
from model.quantiles.whole_units import round_to_units
from stream.features.definitions import STOCK, STOCKOUT_SHARE, UNITS
from stream.scoring.pending_forecasts import ForecastSample

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Actuals of a closed bucket: units by slot, zero for later slots.

    `naive[k]` are the units k + 1 seasons before (None: unknown), `season` is in buckets. Slots in
    `censored_S` were out of stock: their sales do not show the demand.
    """

    units_S: Floats
    naive: Sequence[Floats | None] = ()
    season: int = 1
    censored_S: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, values_SF: Floats, naive: Sequence[Floats | None], season: int) -> "Outcome":
        """The outcome of a bucket; slots out of stock for half of it or more are censored."""
        short_S = (values_SF[:, STOCK] > 0) & (values_SF[:, STOCKOUT_SHARE] >= CENSORED_SHARE)
        return cls(values_SF[:, UNITS], naive, season, short_S if short_S.any() else None)

    def units(self, slot_N: NDArray[np.int32]) -> Floats:
        """Units [N] of some slots; NaN where censored."""
        units_N = _pick(self.units_S, slot_N)
        if self.censored_S is not None:
            out_N = _pick(self.censored_S.astype(np.float32), slot_N) > 0
            units_N = np.where(out_N, np.float32(np.nan), units_N)
        return units_N

    def naive_units(self, slot_N: NDArray[np.int32], step: int) -> Floats:
        """The seasonal naive's forecast [N] of some slots, `step` buckets ahead; NaN if unknown."""
        lag = step // self.season
        known = self.naive[lag] if lag < len(self.naive) else None
        if known is None:
            return np.full(len(slot_N), np.nan, np.float32)
        return _pick(known, slot_N)


def _pick(values_S: Floats, slot_N: NDArray[np.int32]) -> Floats:
    """Values [N] of some slots; zero for slots beyond S."""
    picked_N = np.zeros(len(slot_N), np.float32)
    present_N = slot_N < len(values_S)
    picked_N[present_N] = values_S[slot_N[present_N]]
    return picked_N


@dataclass(slots=True)
class PendingForecast:
    """A published forecast, and the units [N] of its buckets so far; NaN once one is censored."""

    sample: ForecastSample
    total_N: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.total_N = np.zeros(len(self.sample.slot_N), np.float32)

    def add(self, outcome: Outcome) -> None:
        """Add the units of the next bucket."""
        self.total_N = self.total_N + outcome.units(self.sample.slot_N)


@dataclass(slots=True)
class CalibrationLevels:
    """Levels of a model family; a group of `units` is 2 · volume class + busy.

    `model_id` is the model that serves. Only its forecasts move the levels.
    """

    units: Calibrator
    cumulative: Calibrator
    model_id: str = ""

    def serve(self, model_id: str) -> None:
        """Set the model that serves; a new one inherits the levels of its predecessor."""
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
            Calibrator(
                groups=volumes, horizon=horizon, quantiles=quantiles, rate=rate, pace=SUMS_PACE
            ),
        )


def score_bucket(
    pending: Sequence[PendingForecast],
    levels: CalibrationLevels,
    start_ms: int,
    outcome: Outcome,
    *,
    bucket_ms: int,
) -> Sums:
    """Score the bucket at `start_ms` for the pending forecasts of one model; move its levels.

    The levels move only if the model is the one that serves. Each forecast must cover the bucket.
    The sums [V, H, K] are those of `model/evaluation/score_sums.py`.
    """
    quantiles = levels.units.quantiles
    samples = [forecast.sample for forecast in pending]
    steps = [(start_ms - sample.origin_ms) // bucket_ms for sample in samples]
    for forecast in pending:
        forecast.add(outcome)

    def joined(of: Callable[[ForecastSample, int], NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([of(*pair) for pair in zip(samples, steps, strict=True)])

    step_N = joined(lambda sample, step: np.full(len(sample.slot_N), step))
    volume_N = joined(lambda sample, _: sample.volume_N).astype(np.int64)
    group_N = joined(_groups)
    total_N = np.concatenate([forecast.total_N for forecast in pending])
    model_NQ = joined(lambda sample, step: sample.cumulative.at(step))
    levels_NQ = joined(lambda sample, step: sample.levels[1][sample.volume_N, step])
    weight_N = joined(lambda sample, _: sample.weight_N)
    known_N = np.isfinite(total_N)
    serves = samples[0].model_id == levels.model_id
    low_N, high_N = pit_bounds(total_N[known_N], model_NQ[known_N], quantiles)
    of_sums = {
        "low_N": low_N,
        "high_N": high_N,
        "levels_NQ": levels_NQ[known_N],
        "step_N": step_N[known_N],
    }
    if serves:
        levels.cumulative.learn(group_N=volume_N[known_N], **of_sums)
    of_sums |= {"volume_N": volume_N[known_N], "weight_N": weight_N[known_N]}

    actual_N = joined(lambda sample, _: outcome.units(sample.slot_N))
    model_NQ = joined(lambda sample, step: sample.units.at(step))
    levels_NQ = joined(lambda sample, step: sample.levels[0][_groups(sample, step), step])
    published_NQ = joined(lambda sample, step: _published(sample, step, quantiles))
    naive_N = joined(lambda sample, step: outcome.naive_units(sample.slot_N, step))
    known_N = np.isfinite(actual_N)
    low_N, high_N = pit_bounds(actual_N[known_N], model_NQ[known_N], quantiles)
    if serves:
        levels.units.learn(
            low_N, high_N,
            group_N=group_N[known_N], step_N=step_N[known_N], levels_NQ=levels_NQ[known_N],
        )  # fmt: skip
    sums_VHK = score_labels(
        actual_N=actual_N[known_N],
        published_NQ=published_NQ[known_N],
        low_N=low_N,
        high_N=high_N,
        levels_NQ=levels_NQ[known_N],
        quantiles=quantiles,
        volume_N=volume_N[known_N],
        step_N=step_N[known_N],
        weight_N=weight_N[known_N],
        naive_N=naive_N[known_N],
        horizon=levels.units.levels_GHQ.shape[1],
    )
    add_sums(sums_VHK, quantiles=quantiles, **of_sums)
    return sums_VHK


def _groups(sample: ForecastSample, step: int) -> Ints:
    return 2 * sample.volume_N.astype(np.int64) + sample.busy_NH[:, step]


def _published(sample: ForecastSample, step: int, quantiles: Sequence[float]) -> Floats:
    """Published quantiles [N, Q] of a step."""
    weights_GQK = reading_weights(sample.levels[0][:, step], quantiles)
    read_NQ = np.einsum("nqk,nk->nq", weights_GQK[_groups(sample, step)], sample.units.at(step))
    published_NQ: Floats = round_to_units(np.maximum(read_NQ, np.float32(0)))
    return published_NQ
