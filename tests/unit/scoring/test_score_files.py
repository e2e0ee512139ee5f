"""Exported scores: Parquet rows that add up, and nothing lost while storage is unavailable."""

from pathlib import Path

import numpy as np
import polars as pl

from model.durations import DAY_MS
from model.evaluation.score_sums import SUMS, VOLUMES
from stream.scoring.live_scoring import BucketScore
from stream.scoring.score_files import ScoreFiles, count_scores
from stream.telemetry import SCORED


def bucket_score(start_ms: int, *, tag: int = 0, model_id: str = "lstm-1") -> BucketScore:
    """Sums of two steps of one volume class."""
    sums_VHK = np.zeros((len(VOLUMES), 2, len(SUMS)))
    sums_VHK[2] = np.arange(1, 2 * len(SUMS) + 1).reshape(2, -1)
    return BucketScore(tag, start_ms, model_id, sums_VHK)


def test_scores_become_rows_by_day(tmp_path: Path) -> None:
    files = ScoreFiles(str(tmp_path))
    files.add([bucket_score(0), bucket_score(DAY_MS, tag=1)])
    files.flush()
    files.flush()

    assert sorted(folder.name for folder in tmp_path.iterdir()) == [
        "bucket_date=1970-01-01", "bucket_date=1970-01-02",
    ]  # fmt: skip
    rows = pl.read_parquet(f"{tmp_path}/**/*.parquet").sort("bucket_start_ms", "step")
    assert rows.height == 4
    assert rows["partition"].to_list() == ["0", "0", "1", "1"]
    assert rows["step"].to_list() == [1, 2, 1, 2]
    assert set(rows["volume"]) == {"high"}
    assert rows[0].select(SUMS).row(0) == tuple(range(1, len(SUMS) + 1))


def test_a_failed_write_is_retried(tmp_path: Path) -> None:
    blocked = tmp_path / "scores"
    blocked.write_text("a file where a folder should be")
    files = ScoreFiles(str(blocked))
    files.add([bucket_score(0)])
    files.flush()

    blocked.unlink()
    files.flush()

    assert len(list(blocked.rglob("*.parquet"))) == 1


def test_counters_add_up_by_class_and_step() -> None:
    counter = SCORED.labels("labels", "high", 2, "lstm-counted")
    before = counter._value.get()

    count_scores([bucket_score(start, model_id="lstm-counted") for start in (0, 1)])

    assert counter._value.get() - before == 2 * (len(SUMS) + 1)
