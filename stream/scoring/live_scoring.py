"""Scores each forecast against what came, and corrects the next one by it.

Runs in the worker's serving thread after the model's step. Of each forecast that is sent a sample
waits (`stream/scoring/pending_forecasts.py`); when a bucket has closed, all forecasts made for it
are scored, and the levels of `model/evaluation/calibration.py` move
(`stream/scoring/bucket_scoring.py`). What changes goes into the store in the block that replaces
the newest forecast, so a successor goes on exactly here; what was computed and not written was not
sent either. It writes nothing itself.

Axes: T = buckets, S = series slots, F = features, H = horizon steps, Q = quantiles, V = volume
classes, K = sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from model.contract import QuantileForecast
from model.durations import DAY_MS
from model.evaluation.calibration import busy, read_at, volume_class
from model.evaluation.score_sums import ROLLUP
from stream.features.definitions import UNITS
from stream.scoring.bucket_scoring import CalibrationLevels, Outcome, PendingForecast, score_bucket
from stream.scoring.calibration_state import CalibrationState, decode, decode_scores, encode
from stream.scoring.model_family import family_of
from stream.scoring.pending_forecasts import Levels, pack, sampled, unpack
from stream.settings import CalibrationSettings
from stream.state.keys import KEEP_DAYS, ROLLUPS, Tag
from stream.state.port import Path, ReadSideWrite

log = structlog.get_logger(__name__)

_WEEK_DAYS: Final = 7

Floats = NDArray[np.float32]
Sums = NDArray[np.float64]


class ScoringReads(Protocol):
    """How the store is read; each raises ServiceUnavailable when it does not answer."""

    def blobs(self, tag: Tag, paths: Sequence[Path]) -> list[bytes | None]:
        """Blobs in one round trip; None where absent."""

    def hash(self, tag: Tag, path: Path) -> dict[bytes, bytes]:
        """A whole hash."""

    def closed(self, tag: Tag, starts: Sequence[int]) -> tuple[int, Floats]:
        """The first bucket that is kept, and the closed buckets [T, S, F] that start then."""


@dataclass(frozen=True, slots=True)
class BucketScore:
    """Sums [V, H, K] of one closed bucket and the forecasts one model had made of it."""

    tag: Tag
    bucket_start_ms: int
    model_id: str
    sums_VHK: Sums


@dataclass(frozen=True, slots=True)
class ScoredForecast:
    """A forecast as it is published, and what is to be written with it."""

    forecast: QuantileForecast
    calibrated: bool = False
    block: ReadSideWrite = field(default_factory=ReadSideWrite)
    scored: list[BucketScore] = field(default_factory=list)


class LiveScoring:
    """Live accuracy and calibration of all partitions of a worker; called from one thread."""

    def __init__(self, settings: CalibrationSettings, reads: ScoringReads) -> None:
        self._settings = settings
        self._reads = reads
        self._lives: dict[Tag, CalibrationState] = {}

    def forget(self, tag: Tag) -> None:
        """Drop what is carried of a partition that moved away."""
        self._lives.pop(tag, None)

    def score_and_correct(self, tag: Tag, forecast: QuantileForecast) -> ScoredForecast:
        """Score what has closed before the forecast's origin, then correct the forecast.

        Raises ServiceUnavailable when the store does not answer; nothing has changed then.
        """
        life = self._lives.get(tag)
        if life is None:
            life = self._load(tag, forecast)
        starts = _due(life, forecast)
        labels = self._labels(tag, starts, forecast)
        scored: list[BucketScore] = []
        for start, label in zip(starts, labels, strict=True):
            scored += _score(tag, life, start, label, bucket_ms=forecast.bucket_ms)
        life.through_ms = forecast.origin_ms
        corrected, levels, calibrated = self._correct(tag, life, forecast)
        kept = sampled(forecast, _volumes(tag, forecast), levels, most=self._settings.sample)
        life.waiting[kept.origin_ms] = PendingForecast(kept)
        self._lives[tag] = life
        block = _changed(life, forecast, days={one.bucket_start_ms for one in scored})
        return ScoredForecast(corrected, calibrated, block, scored)

    def _load(self, tag: Tag, forecast: QuantileForecast) -> CalibrationState:
        """What the partition's last owner left; nothing where it has left nothing that fits."""
        [payload] = self._reads.blobs(tag, [("calibration",)])
        stored = None if payload is None else decode(payload, forecast, rate=self._settings.rate)
        if stored is None:
            if payload is not None:
                log.warning("calibration_starts_anew", partition=tag, reason="another shape")
            return CalibrationState(through_ms=forecast.origin_ms)
        life, origins = stored
        blobs = self._reads.blobs(tag, [("sent", origin) for origin in origins])
        for blob in blobs:
            sent = unpack(blob) if blob else None
            if sent is not None and sent.origin_ms < forecast.origin_ms:
                life.waiting[sent.origin_ms] = PendingForecast(sent)
        day = life.through_ms // DAY_MS * DAY_MS
        life.scores = decode_scores(day, self._reads.hash(tag, ("scores", day)), forecast)
        first = min(life.waiting, default=life.through_ms)
        starts = list(range(first, life.through_ms, forecast.bucket_ms))
        for start, label in zip(starts, self._labels(tag, starts, forecast), strict=True):
            for origin, waiting in life.waiting.items():
                if origin <= start:
                    waiting.add(label)
        return life

    def _labels(self, tag: Tag, starts: Sequence[int], forecast: QuantileForecast) -> list[Outcome]:
        """What came in the buckets that start then, and what the seasonal naive had said."""
        if not starts:
            return []
        bucket_ms = forecast.bucket_ms
        season = _WEEK_DAYS * max(1, DAY_MS // bucket_ms)
        lags = range(1, -(-forecast.units_SHQ.shape[1] // season) + 1)
        wanted = {start - lag * season * bucket_ms for start in starts for lag in (0, *lags)}
        ordered = sorted(wanted)
        first_ms, values_TSF = self._reads.closed(tag, ordered)
        values = dict(zip(ordered, values_TSF, strict=True))

        def naive(start: int) -> list[Floats | None]:
            before = [start - lag * season * bucket_ms for lag in lags]
            return [values[then][:, UNITS] if then >= first_ms else None for then in before]

        return [Outcome.of(values[start], naive(start), season) for start in starts]

    def _correct(
        self, tag: Tag, life: CalibrationState, forecast: QuantileForecast
    ) -> tuple[QuantileForecast, Levels, bool]:
        """The forecast as it is published, at which levels, and whether enough was learned."""
        horizon, quantiles = forecast.units_SHQ.shape[1], forecast.quantiles
        family = life.families.setdefault(
            family_of(forecast.model_id),
            CalibrationLevels.new(horizon=horizon, quantiles=quantiles, rate=self._settings.rate),
        )
        family.serve(forecast.model_id)
        units, cumulative = family.units.published_GHQ, family.cumulative.published_GHQ
        if not self._settings.enabled:
            nominal_Q = np.asarray(quantiles, np.float32)
            plain = np.tile(nominal_Q, (*units.shape[:2], 1))
            return forecast, (plain, plain[: len(cumulative)]), False
        volume_S1 = _volumes(tag, forecast)[:, None].astype(np.int64)
        group_SH = 2 * volume_S1 + busy(forecast.units_SHQ)
        units_SHQ = read_at(forecast.units_SHQ, group_SH, units, quantiles)
        group_SH = np.broadcast_to(volume_S1, group_SH.shape)
        sums_SHQ = read_at(forecast.cumulative_SHQ, group_SH, cumulative, quantiles)
        sums_SHQ[:, 0] = units_SHQ[:, 0]
        np.maximum.accumulate(sums_SHQ, axis=1, out=sums_SHQ)
        corrected = replace(forecast, units_SHQ=units_SHQ, cumulative_SHQ=sums_SHQ)
        return corrected, (units, cumulative), family.units.learned(self._settings.min_closes)


def _volumes(tag: Tag, forecast: QuantileForecast) -> NDArray[np.uint8]:
    volume_S = volume_class(forecast)
    return np.full(len(volume_S), ROLLUP, np.uint8) if tag == ROLLUPS else volume_S


def _due(life: CalibrationState, forecast: QuantileForecast) -> list[int]:
    """Buckets that have closed and that a forecast waits for."""
    if not life.waiting:
        return []
    reach_ms = forecast.units_SHQ.shape[1] * forecast.bucket_ms
    end_ms = min(forecast.origin_ms, max(life.waiting) + reach_ms)
    return list(range(life.through_ms, end_ms, forecast.bucket_ms))


def _score(
    tag: Tag, life: CalibrationState, start: int, label: Outcome, *, bucket_ms: int
) -> list[BucketScore]:
    """Score one closed bucket, model by model."""
    by_model: dict[str, list[PendingForecast]] = {}
    for origin, waiting in life.waiting.items():
        if 0 <= start - origin < waiting.sent.busy_NH.shape[1] * bucket_ms:
            by_model.setdefault(waiting.sent.model_id, []).append(waiting)
    scored = []
    for model_id, waiting_of in by_model.items():
        family = life.families[family_of(model_id)]
        sums_VHK = score_bucket(waiting_of, family, start, label, bucket_ms=bucket_ms)
        scored.append(BucketScore(tag, start, model_id, sums_VHK))
        day = start // DAY_MS * DAY_MS, model_id
        life.scores[day] = life.scores[day] + sums_VHK if day in life.scores else sums_VHK
    return scored


def _changed(
    life: CalibrationState, forecast: QuantileForecast, *, days: set[int]
) -> ReadSideWrite:
    """What is to be written; what no bucket can be scored against any more is dropped."""
    origin_ms = forecast.origin_ms
    reach_ms = forecast.units_SHQ.shape[1] * forecast.bucket_ms
    block = ReadSideWrite()
    for origin in [o for o in life.waiting if o + reach_ms <= origin_ms]:
        del life.waiting[origin]
        block.deletes.append(("sent", origin))
    touched = {start // DAY_MS * DAY_MS for start in days}
    for (day, model_id), sums_VHK in life.scores.items():
        if day in touched:
            fields = block.fields.setdefault(("scores", day), {})
            fields[model_id] = sums_VHK.astype("<f8").tobytes()
    today = origin_ms // DAY_MS * DAY_MS
    life.scores = {key: sums for key, sums in life.scores.items() if key[0] >= today - DAY_MS}
    block.deletes.append(("scores", today - KEEP_DAYS * DAY_MS))
    block.puts["sent", origin_ms] = pack(life.waiting[origin_ms].sent)
    block.puts["calibration",] = encode(life, forecast)
    return block
