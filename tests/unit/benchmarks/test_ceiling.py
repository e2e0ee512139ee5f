"""The gain of hindsight, read from a table of forecasts in any order."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.accuracy.ceiling import best_scaled, read
from model.evaluation.metrics import wql

SERIES, STEPS = ("a", "b"), (1, 2, 3)


def table(path: Path) -> None:
    """One model; its forecasts of `a` are half the actuals, those of `b` twice."""
    rows = [
        {
            "series_id": name, "origin_ms": origin, "step": step, "model": "m",
            "actual": 10.0 * step, "q0.1": 10.0 * step * off, "q0.9": 10.0 * step * off,
        }
        for origin in (1, 2)
        for name, off in zip(SERIES, (0.5, 2.0), strict=True)
        for step in STEPS
    ]  # fmt: skip
    pl.DataFrame(rows).sample(fraction=1.0, shuffle=True, seed=0).write_parquet(path)


def test_only_the_right_grouping_corrects_a_level(tmp_path: Path) -> None:
    """A factor per series corrects series that are off by a factor; one per origin does not."""
    table(tmp_path / "forecasts.parquet")
    actual_NSH, forecasts, levels = read(tmp_path / "forecasts.parquet")
    assert actual_NSH.shape == (2, 2, 3)
    assert levels == (0.1, 0.9)

    def loss(units_NSHQ: np.ndarray) -> float:
        return wql(actual_NSH.ravel(), units_NSHQ.reshape(-1, 2), levels)

    mine = forecasts["m"]
    assert mine[0, 0, 0, 0] == 5.0
    assert loss(best_scaled(mine, actual_NSH, levels, (2,))) == pytest.approx(0, abs=1e-9)
    assert 0.1 < loss(best_scaled(mine, actual_NSH, levels, (1, 2))) <= loss(mine)
