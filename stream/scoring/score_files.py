"""What forecasts turned out to be worth: counted for Prometheus, and kept as Parquet where wanted.

Layout under a folder or any fsspec URL: `bucket_date=YYYY-MM-DD/scores-….parquet`, a row for each
partition, bucket, model, volume class and step (1: the next bucket) with the sums of
`model.scores`. Sums add up; a forecast scored again after a crash may stand twice.

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

#: Scores kept in memory while the storage is away; the oldest give way.
MOST_WAITING: Final = 20_000


def count_scores(scored: Sequence[BucketScore]) -> None:
    """Add the sums of closed buckets to the worker's counters."""
    for one in scored:
        for volume, step in np.argwhere(one.sums_VHK[:, :, 0] > 0).tolist():
            for name, value in zip(SUMS, one.sums_VHK[volume, step].tolist(), strict=True):
                SCORED.labels(name, VOLUMES[volume], step + 1, one.model_id).inc(value)


class ScoreFiles:
    """Scores on their way to Parquet under `path`; `flush` blocks and runs in a thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = Lock()
        self._waiting: list[BucketScore] = []

    def add(self, scored: Sequence[BucketScore]) -> None:
        """Take scores; they are written by the next `flush`."""
        with self._lock:
            self._waiting = [*self._waiting, *scored][-MOST_WAITING:]

    def flush(self) -> None:
        """Write what waits, one file a day; what fails is logged and tried again."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        days: dict[int, list[BucketScore]] = {}
        for one in waiting:
            days.setdefault(one.bucket_start_ms // DAY_MS * DAY_MS, []).append(one)
        for day_ms, scored in days.items():
            try:
                self._write(day_ms, scored)
            except OSError as error:
                log.warning("scores_wait", reason=str(error), buckets=len(scored))
                self.add(scored)

    def _write(self, day_ms: int, scored: Sequence[BucketScore]) -> None:
        filesystem, root = fsspec.core.url_to_fs(self._path)
        payload = io.BytesIO()
        pq.write_table(_table(scored), payload, compression="zstd")
        date = f"{datetime.fromtimestamp(day_ms / 1000, UTC):%Y-%m-%d}"
        folder = f"{root.rstrip('/')}/bucket_date={date}"
        filesystem.makedirs(folder, exist_ok=True)
        filesystem.pipe_file(f"{folder}/scores-{uuid4().hex}.parquet", payload.getvalue())


class ScoreReporter:
    """Counts the scores of closed buckets, and keeps them for `files` where there are any."""

    def __init__(self, files: ScoreFiles | None) -> None:
        self._files = files

    def report(self, scored: Sequence[BucketScore]) -> None:
        """Count scores; the next `flush` writes them."""
        count_scores(scored)
        if self._files is not None:
            self._files.add(scored)

    async def flush(self) -> None:
        """Write what waits, in a thread."""
        if self._files is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._files.flush)


def _table(scored: Sequence[BucketScore]) -> pa.Table:
    columns: dict[str, list[Any]] = {
        name: [] for name in ("partition", "bucket_start_ms", "model_id", "volume", "step", *SUMS)
    }
    for one in scored:
        for volume, step in np.argwhere(one.sums_VHK[:, :, 0] > 0).tolist():
            columns["partition"].append(str(one.tag))
            columns["bucket_start_ms"].append(one.bucket_start_ms)
            columns["model_id"].append(one.model_id)
            columns["volume"].append(VOLUMES[volume])
            columns["step"].append(step + 1)
            for name, value in zip(SUMS, one.sums_VHK[volume, step].tolist(), strict=True):
                columns[name].append(value)
    return pa.table(columns)
