"""Exports live scores: to Prometheus counters, and to Parquet files if a path is set.

Layout under a folder or any fsspec URL: `bucket_date=YYYY-MM-DD/scores-….parquet`, a row for each
partition, bucket, model, volume class and step (1: the next bucket) with the sums of
`model/evaluation/score_sums.py`. Sums can be added; a bucket scored again after a crash appears
twice.

Axes: V = volume classes, H = horizon steps, K = sums.
"""

import asyncio
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Final
from uuid import uuid4

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from model.durations import DAY_MS
from model.evaluation.score_sums import SUMS, VOLUMES
from stream.scoring.live_scoring import BucketScore
from stream.telemetry import SCORED

log = structlog.get_logger(__name__)

#: Scores kept in memory while the storage is unavailable; the oldest are dropped.
MAX_PENDING: Final = 20_000


def count_scores(scores: Sequence[BucketScore]) -> None:
    """Add the sums of closed buckets to the worker's counters."""
    for score in scores:
        for volume, step in np.argwhere(score.sums_VHK[:, :, 0] > 0).tolist():
            for name, value in zip(SUMS, score.sums_VHK[volume, step].tolist(), strict=True):
                SCORED.labels(name, VOLUMES[volume], step + 1, score.model_id).inc(value)


class ScoreFiles:
    """Writes scores to Parquet under `path`; `flush` blocks and runs in a thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = Lock()
        self._pending: list[BucketScore] = []

    def add(self, scores: Sequence[BucketScore]) -> None:
        """Queue scores for the next `flush`."""
        with self._lock:
            self._pending = [*self._pending, *scores][-MAX_PENDING:]

    def flush(self) -> None:
        """Write the queued scores, one file per day; failures are logged and retried next time."""
        with self._lock:
            pending, self._pending = self._pending, []
        days: dict[int, list[BucketScore]] = {}
        for score in pending:
            days.setdefault(score.bucket_start_ms // DAY_MS * DAY_MS, []).append(score)
        for day_ms, scores in days.items():
            try:
                self._write(day_ms, scores)
            except OSError as error:
                log.warning("scores_not_written", reason=str(error), buckets=len(scores))
                self.add(scores)

    def _write(self, day_ms: int, scores: Sequence[BucketScore]) -> None:
        filesystem, root = fsspec.core.url_to_fs(self._path)
        payload = io.BytesIO()
        pq.write_table(_table(scores), payload, compression="zstd")
        date = f"{datetime.fromtimestamp(day_ms / 1000, UTC):%Y-%m-%d}"
        folder = f"{root.rstrip('/')}/bucket_date={date}"
        filesystem.makedirs(folder, exist_ok=True)
        filesystem.pipe_file(f"{folder}/scores-{uuid4().hex}.parquet", payload.getvalue())


class ScoreReporter:
    """Counts the scores of closed buckets, and queues them for `files` if Parquet is wanted."""

    def __init__(self, files: ScoreFiles | None) -> None:
        self._files = files

    def report(self, scores: Sequence[BucketScore]) -> None:
        """Count scores and queue them for the next `flush`."""
        count_scores(scores)
        if self._files is not None:
            self._files.add(scores)

    async def flush(self) -> None:
        """Write the queued scores, in a thread."""
        if self._files is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._files.flush)


def _table(scores: Sequence[BucketScore]) -> pa.Table:
    columns: dict[str, list[Any]] = {
        name: [] for name in ("partition", "bucket_start_ms", "model_id", "volume", "step", *SUMS)
    }
    for score in scores:
        for volume, step in np.argwhere(score.sums_VHK[:, :, 0] > 0).tolist():
            columns["partition"].append(str(score.tag))
            columns["bucket_start_ms"].append(score.bucket_start_ms)
            columns["model_id"].append(score.model_id)
            columns["volume"].append(VOLUMES[volume])
            columns["step"].append(step + 1)
            for name, value in zip(SUMS, score.sums_VHK[volume, step].tolist(), strict=True):
                columns[name].append(value)
    return pa.table(columns)
