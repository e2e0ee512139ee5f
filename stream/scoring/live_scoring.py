"""Scores each published forecast against the actuals, and corrects the next one.

Runs in the worker's serving thread after the model's step. A sample of each published forecast is
kept (`stream/scoring/pending_forecasts.py`); when a bucket has closed, all forecasts made of it are
scored (`stream/scoring/bucket_scoring.py`) and the levels of `model/evaluation/calibration.py`
move. It writes nothing itself: the changes are part of the write that replaces the newest forecast,
so a successor continues exactly where the owner stopped, and nothing is published that is not
stored.

Axes: T = buckets, S = series slots, F = features, G = groups, H = horizon steps, Q = quantiles,
V = volume classes, K = sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from model.contract import QuantileForecast
from model.durations import DAY_MS
from model.evaluation.calibration import busy, quantiles_at, volume_class
from model.evaluation.score_sums import ROLLUP, Sums
from model.quantiles.coherence import make_coherent
from model.quantiles.whole_units import round_to_units
from stream.features.definitions import UNITS
from stream.scoring.bucket_scoring import CalibrationLevels, Outcome, PendingForecast, score_bucket
from stream.scoring.calibration_state import CalibrationState, decode, encode
from stream.scoring.model_family import family_of
from stream.scoring.pending_forecasts import Levels, pack, sample_forecast, unpack
from stream.settings import CalibrationSettings
from stream.state.keys import KEEP_DAYS, ROLLUPS, Tag
from stream.state.port import Path, ReadSideWrite
from stream.state.scores import decode_scores, encode_sums

log = structlog.get_logger(__name__)

_WEEK_DAYS: Final = 7

Floats = NDArray[np.float32]


class ScoringReads(Protocol):
    """Reads of the store; each raises ServiceUnavailable if the store does not answer."""

    def blobs(self, tag: Tag, paths: Sequence[Path]) -> list[bytes | None]:
        """Blobs in one round trip; None where absent."""

    def hash(self, tag: Tag, path: Path) -> dict[bytes, bytes]:
        """A whole hash."""

    def closed(self, tag: Tag, starts: Sequence[int]) -> tuple[int, Floats]:
        """Start of the first stored bucket, and the closed buckets [T, S, F] at `starts`."""


@dataclass(frozen=True, slots=True)
class BucketScore:
    """Sums [V, H, K] of one closed bucket and one model's forecasts of it."""

    tag: Tag
    bucket_start_ms: int
    model_id: str
    sums_VHK: Sums


@dataclass(frozen=True, slots=True)
class ScoredForecast:
    """A forecast to publish, the changes to write with it, and the scores of closed buckets."""

    forecast: QuantileForecast
    calibrated: bool = False
    write: ReadSideWrite = field(default_factory=ReadSideWrite)
    scores: list[BucketScore] = field(default_factory=list)


class LiveScoring:
    """Live accuracy and calibration of a worker's partitions; called from one thread."""

    def __init__(self, settings: CalibrationSettings, reads: ScoringReads) -> None:
        self._settings = settings
        self._reads = reads
        self._states: dict[Tag, CalibrationState] = {}

    def forget(self, tag: Tag) -> None:
        """Drop the state of a partition that has moved to another worker."""
        self._states.pop(tag, None)

    def score_and_correct(self, tag: Tag, forecast: QuantileForecast) -> ScoredForecast:
        """Score the buckets closed before the forecast's origin, then correct the forecast.

        Raises ServiceUnavailable if the store does not answer; nothing has changed then.
        """
        state = self._states.get(tag)
        if state is None:
            state = self._load(tag, forecast)
        starts = _unscored_buckets(state, forecast)
        outcomes = self._outcomes(tag, starts, forecast)
        scores: list[BucketScore] = []
        for start, outcome in zip(starts, outcomes, strict=True):
            scores += _score(tag, state, start, outcome, bucket_ms=forecast.bucket_ms)
        state.through_ms = forecast.origin_ms
        corrected, levels, calibrated = self._correct(tag, state, forecast)
        volume_S = _volumes(tag, forecast)
        sample = sample_forecast(forecast, volume_S, levels, max_per_class=self._settings.sample)
        state.pending[sample.origin_ms] = PendingForecast(sample)
        self._states[tag] = state
        write = _write(state, forecast, starts={score.bucket_start_ms for score in scores})
        return ScoredForecast(corrected, calibrated, write, scores)

    def _load(self, tag: Tag, forecast: QuantileForecast) -> CalibrationState:
        """The state stored by the partition's last owner; a new one if none fits the forecast."""
        [payload] = self._reads.blobs(tag, [("calibration",)])
        stored = None if payload is None else decode(payload, forecast, rate=self._settings.rate)
        if stored is None:
            if payload is not None:
                log.warning("calibration_reset", partition=tag, reason="another shape")
            return CalibrationState(through_ms=forecast.origin_ms)
        state, origins = stored
        blobs = self._reads.blobs(tag, [("sent", origin) for origin in origins])
        for blob in blobs:
            sample = unpack(blob) if blob else None
            if sample is not None and sample.origin_ms < forecast.origin_ms:
                state.pending[sample.origin_ms] = PendingForecast(sample)
        day = state.through_ms // DAY_MS * DAY_MS
        by_model = decode_scores(
            self._reads.hash(tag, ("scores", day)), horizon=forecast.units_SHQ.shape[1]
        )
        state.scores = {(day, model_id): sums_VHK for model_id, sums_VHK in by_model.items()}
        first = min(state.pending, default=state.through_ms)
        starts = list(range(first, state.through_ms, forecast.bucket_ms))
        for start, outcome in zip(starts, self._outcomes(tag, starts, forecast), strict=True):
            for origin, pending in state.pending.items():
                if origin <= start:
                    pending.add(outcome)
        return state

    def _outcomes(
        self, tag: Tag, starts: Sequence[int], forecast: QuantileForecast
    ) -> list[Outcome]:
        """Actuals of the buckets at `starts`, with the seasonal naive's forecasts of them."""
        if not starts:
            return []
        bucket_ms = forecast.bucket_ms
        season = _WEEK_DAYS * max(1, DAY_MS // bucket_ms)
        lags = range(1, -(-forecast.units_SHQ.shape[1] // season) + 1)
        needed = {start - lag * season * bucket_ms for start in starts for lag in (0, *lags)}
        ordered = sorted(needed)
        first_ms, values_TSF = self._reads.closed(tag, ordered)
        values = dict(zip(ordered, values_TSF, strict=True))

        def naive(start: int) -> list[Floats | None]:
            before = [start - lag * season * bucket_ms for lag in lags]
            return [values[then][:, UNITS] if then >= first_ms else None for then in before]

        return [Outcome.of(values[start], naive(start), season) for start in starts]

    def _correct(
        self, tag: Tag, state: CalibrationState, forecast: QuantileForecast
    ) -> tuple[QuantileForecast, Levels, bool]:
        """The forecast to publish, in whole units; its levels, and True if they are warmed up."""
        horizon, quantiles = forecast.units_SHQ.shape[1], forecast.quantiles
        levels = state.levels.setdefault(
            family_of(forecast.model_id),
            CalibrationLevels.new(horizon=horizon, quantiles=quantiles, rate=self._settings.rate),
        )
        levels.serve(forecast.model_id)
        units_GHQ, sums_GHQ = levels.units.published_GHQ, levels.cumulative.published_GHQ
        if not self._settings.enabled:
            nominal_Q = np.asarray(quantiles, np.float32)
            nominal_GHQ = np.tile(nominal_Q, (*units_GHQ.shape[:2], 1))
            units_SHQ = round_to_units(forecast.units_SHQ.copy())
            sums_SHQ = round_to_units(forecast.cumulative_SHQ.copy())
            rounded = replace(forecast, units_SHQ=units_SHQ, cumulative_SHQ=sums_SHQ)
            return rounded, (nominal_GHQ, nominal_GHQ[: len(sums_GHQ)]), False
        volume_S1 = _volumes(tag, forecast)[:, None].astype(np.int64)
        group_SH = 2 * volume_S1 + busy(forecast.units_SHQ, quantiles)
        units_SHQ = quantiles_at(forecast.units_SHQ, group_SH, units_GHQ, quantiles)
        group_SH = np.broadcast_to(volume_S1, group_SH.shape)
        sums_SHQ = quantiles_at(forecast.cumulative_SHQ, group_SH, sums_GHQ, quantiles)
        make_coherent(round_to_units(units_SHQ), round_to_units(sums_SHQ))
        corrected = replace(forecast, units_SHQ=units_SHQ, cumulative_SHQ=sums_SHQ)
        warmed_up = all(
            each.warmed_up(self._settings.min_closes) for each in (levels.units, levels.cumulative)
        )
        return corrected, (units_GHQ, sums_GHQ), warmed_up


def _volumes(tag: Tag, forecast: QuantileForecast) -> NDArray[np.uint8]:
    volume_S = volume_class(forecast)
    return np.full(len(volume_S), ROLLUP, np.uint8) if tag == ROLLUPS else volume_S


def _unscored_buckets(state: CalibrationState, forecast: QuantileForecast) -> list[int]:
    """Starts of the closed, unscored buckets that a pending forecast covers."""
    if not state.pending:
        return []
    reach_ms = forecast.units_SHQ.shape[1] * forecast.bucket_ms
    end_ms = min(forecast.origin_ms, max(state.pending) + reach_ms)
    return list(range(state.through_ms, end_ms, forecast.bucket_ms))


def _score(
    tag: Tag, state: CalibrationState, start: int, outcome: Outcome, *, bucket_ms: int
) -> list[BucketScore]:
    """Score one closed bucket, model by model."""
    by_model: dict[str, list[PendingForecast]] = {}
    for origin, pending in state.pending.items():
        if 0 <= start - origin < pending.sample.busy_NH.shape[1] * bucket_ms:
            by_model.setdefault(pending.sample.model_id, []).append(pending)
    scores = []
    for model_id, forecasts in by_model.items():
        levels = state.levels[family_of(model_id)]
        sums_VHK = score_bucket(forecasts, levels, start, outcome, bucket_ms=bucket_ms)
        scores.append(BucketScore(tag, start, model_id, sums_VHK))
        key = start // DAY_MS * DAY_MS, model_id
        state.scores[key] = state.scores[key] + sums_VHK if key in state.scores else sums_VHK
    return scores


def _write(
    state: CalibrationState, forecast: QuantileForecast, *, starts: set[int]
) -> ReadSideWrite:
    """The changes to store; drops the forecasts whose last bucket has been scored."""
    origin_ms = forecast.origin_ms
    reach_ms = forecast.units_SHQ.shape[1] * forecast.bucket_ms
    write = ReadSideWrite()
    for origin in [o for o in state.pending if o + reach_ms <= origin_ms]:
        del state.pending[origin]
        write.deletes.append(("sent", origin))
    changed_days = {start // DAY_MS * DAY_MS for start in starts}
    for (day, model_id), sums_VHK in state.scores.items():
        if day in changed_days:
            write.fields.setdefault(("scores", day), {})[model_id] = encode_sums(sums_VHK)
    today = origin_ms // DAY_MS * DAY_MS
    state.scores = {key: sums for key, sums in state.scores.items() if key[0] >= today - DAY_MS}
    write.deletes.append(("scores", today - KEEP_DAYS * DAY_MS))
    write.puts["sent", origin_ms] = pack(state.pending[origin_ms].sample)
    write.puts["calibration",] = encode(state, forecast)
    return write
