"""The panels of the accuracy benchmark: what of a file becomes history, truth, roll-up and plan."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.accuracy.panel_list import MONTH_MS, PANELS, Panel
from benchmarks.accuracy.panels import bucket_of, panel
from benchmarks.accuracy.tasks import Task
from model.durations import DAY_MS, WEEK_MS
from model.inputs.carried_statistics import RETURNS, REVENUE, STOCK, STOCKOUT_SHARE, UNITS
from model.inputs.plans import EVENT, PRICE, PROMOTION
from model.inputs.static_features import row_of

FIRST = date(2024, 1, 5)  # a Friday


def _write(folder: Path, *, step_days: int, absent: set[tuple[str, int]]) -> None:
    """Twelve buckets of three series in two categories; series c starts in bucket 2."""
    rows = [
        {
            "series_id": name,
            "ts": FIRST + timedelta(days=step_days * t),
            "units": -4.0 if (name, t) == ("b", 3) else 10.0 + t,
            "category": "bread" if name == "a" else "cake",
            "store": 7,
            "price": 2.0,
            "deal": 0.5 if t == 6 else None,
            "flyer": (name, t) == ("c", 6),
        }
        for name in "abc"
        for t in range(2 if name == "c" else 0, 12)
        if (name, t) not in absent
    ]
    pl.DataFrame(rows, schema_overrides={"deal": pl.Float32}).write_parquet(folder / "tiny.parquet")


def _read(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    bucket_ms: int = DAY_MS,
    behind_days: int = 0,
    absent: set[tuple[str, int]] | None = None,
    covariates: bool = False,
) -> Task:
    step_days = bucket_ms // DAY_MS
    day = [(FIRST + timedelta(days=step_days * t)).isoformat() for t in range(12)]
    described = Panel(
        bucket_ms=bucket_ms, season=1, horizon=2, test=(day[7], day[9]), tune=(day[5],),
        least_history=4, behind_days=behind_days, location="store", price="price",
        promotion={"deal": 0.5}, event={"flyer": 1.0},
    )  # fmt: skip
    monkeypatch.setitem(PANELS, "tiny", described)
    _write(folder, step_days=step_days, absent=absent or set())
    return panel("tiny", folder, covariates=covariates)


def _slot(task: Task, name: str) -> int:
    return task.history.series.index(name)


def test_an_origin_is_the_bucket_after_the_last_observed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _read(tmp_path, monkeypatch)
    history = task.history

    places = [(at - history.start_ms) // DAY_MS for at in task.test_origins_ms]
    assert places == [8, 10]
    assert [(at - history.start_ms) // DAY_MS for at in task.tune_origins_ms] == [6]
    assert history.buckets == 12
    assert history.start_ms == int(np.datetime64(FIRST, "ms").astype(np.int64))


def test_weeks_start_on_the_weekday_of_the_panel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The date may be the week's last day: its bucket starts six days before."""
    starts = {
        behind: _read(tmp_path, monkeypatch, bucket_ms=WEEK_MS, behind_days=behind).history.start_ms
        for behind in (0, 6)
    }

    assert str(np.datetime64(starts[0], "ms").astype("datetime64[D]")) == "2024-01-05"
    assert str(np.datetime64(starts[6], "ms").astype("datetime64[D]")) == "2023-12-30"


def test_months_are_nominal() -> None:
    months = np.array(["1998-01", "1998-02", "1999-01"], "datetime64[M]")

    assert bucket_of(months, MONTH_MS).tolist() == [336, 337, 348]
    start = np.datetime64(336 * MONTH_MS, "ms")
    assert abs(start - np.datetime64("1998-01-01", "ms")) < np.timedelta64(2, "D")


def test_an_absent_bucket_is_unknown_not_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _read(tmp_path, monkeypatch, absent={("a", 6)})
    values_TF = task.history.values_TSF[:, _slot(task, "a")]

    assert task.observed_TS is not None
    assert not task.observed_TS[6, _slot(task, "a")]
    assert (values_TF[6, [UNITS, STOCK, STOCKOUT_SHARE]] == [0, 1, 1]).all()
    assert not values_TF[5, [STOCK, STOCKOUT_SHARE]].any()


def test_buckets_before_the_first_row_are_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _read(tmp_path, monkeypatch)
    values_TF = task.history.values_TSF[:, _slot(task, "c")]

    assert task.observed_TS is not None
    assert not task.observed_TS[:2, _slot(task, "c")].any()
    assert not values_TF[:2].any()
    assert values_TF[2, UNITS] == 12


def test_negative_units_are_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = _read(tmp_path, monkeypatch)
    row_F = task.history.values_TSF[3, _slot(task, "b")]

    assert row_F[[UNITS, RETURNS, REVENUE]].tolist() == [0, 4, 0]
    assert task.history.values_TSF[4, _slot(task, "b"), REVENUE] == 28


def test_roll_ups_are_sums_and_follow_the_scored_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A category of one series is the series; bread has no roll-up."""
    task = _read(tmp_path, monkeypatch)

    assert task.history.series == ["a", "b", "c", "category:cake", "total"]
    assert task.scored == 5
    assert task.history.values_TSF[5, :, UNITS].tolist() == [15, 15, 15, 30, 45]


def test_a_roll_up_without_much_of_its_demand_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of the total is absent in bucket 8; series c has not begun in bucket 1."""
    task = _read(tmp_path, monkeypatch, absent={("a", 8)})

    assert task.observed_TS is not None
    assert not task.observed_TS[8, _slot(task, "total")]
    assert task.observed_TS[8, _slot(task, "category:cake")]
    assert task.observed_TS[1, _slot(task, "total")]


def test_series_that_end_before_the_last_origin_are_not_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The product still learns from them: they follow the scored ones."""
    task = _read(tmp_path, monkeypatch, absent={("a", t) for t in range(7, 12)})

    assert task.history.series == ["b", "c", "category:cake", "total", "a"]
    assert task.scored == 4


def test_static_columns_are_those_of_the_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _read(tmp_path, monkeypatch)
    static_SX = task.history.static_features_SX

    assert static_SX[_slot(task, "b"), :2].tolist() == [
        row_of("category", "cake"),
        row_of("location", "7"),
    ]
    assert not static_SX[_slot(task, "total")].any()


def test_covariates_become_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares are scaled, roll-ups have the mean of their series and no price."""
    task = _read(tmp_path, monkeypatch, covariates=True)
    assert task.history.plans is not None
    plans_TSP = task.history.plans.dense(len(task.history.series))

    assert plans_TSP[6, _slot(task, "a"), PROMOTION] == 0.25
    assert plans_TSP[5, _slot(task, "a"), PROMOTION] == 0
    assert plans_TSP[6, :, EVENT].tolist() == pytest.approx([0, 0, 1, 1 / 2, 1 / 3])
    assert plans_TSP[6, :, PRICE].tolist() == [2, 2, 2, 0, 0]
    assert _read(tmp_path, monkeypatch).history.plans is None
