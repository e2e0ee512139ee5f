"""Plan files for the batch path: reading, errors per line, and their effect on forecasts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from model.durations import DAY_MS
from model.evaluation.backtest import score
from model.inputs.plans import EVENT, PROMOTION
from model.training.dataset import History
from model.training.run_file import fingerprint
from stream.errors import UsageError
from stream.jobs.batch import run as batch
from stream.jobs.batch.config import batch_config
from stream.jobs.batch.output import SURGECAST
from stream.jobs.batch.run import run_backtest, run_forecast
from stream.jobs.files.plan_files import read_plans, with_plans
from stream.jobs.training.train import train_config
from stream.settings import ModelSettings
from tests.support.samples import START_MS

QUIET = Console(quiet=True)


def written(path: Path, *plans: dict[str, Any] | str) -> Path:
    """A file with one plan per line."""
    lines = [plan if isinstance(plan, str) else json.dumps(plan) for plan in plans]
    path.write_text("\n".join(lines))
    return path


def promotion(plan_id: str, first: int, days: int = 1, **fields: Any) -> dict[str, Any]:
    """A promotion that starts on day `first` of the history."""
    start = START_MS + first * DAY_MS
    plain = {"plan_id": plan_id, "kind": "promotion", "start": start, "value": 1.0}
    return plain | {"end": start + days * DAY_MS} | fields


def history(days: int = 10) -> History:
    """Three series without sales."""
    values_TSF = np.zeros((days, 3, 11), np.float32)
    return History(values_TSF, START_MS, DAY_MS, ["A", "B", "category:Bags"])


def test_plans_of_a_file_reach_one_horizon_beyond_the_history(tmp_path: Path) -> None:
    path = written(
        tmp_path / "plans.jsonl",
        promotion("p", 2, sku="A", value=0.1),
        promotion("p", 2, sku="A", value=0.25),
        "",
        promotion("q", 12, category="Bags", value=0.5),
        promotion("r", 13, kind="event", value=None),
    )

    made = with_plans(history(), path, horizon=3, categories={"B": "Bags"})

    assert made.plans is not None
    plans_TSP = made.plans.dense(3)
    assert plans_TSP.shape == (13, 3, 4)
    assert np.argwhere(plans_TSP[..., PROMOTION]).tolist() == [[2, 0], [12, 1], [12, 2]]
    assert plans_TSP[2, 0, PROMOTION] == np.float32(0.25)
    assert not plans_TSP[..., EVENT].any()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: malformed_json"),
        (promotion("p", 3, days=-1), "line 2: invalid_span"),
        (promotion("p", 3, value=None), "line 2: missing_field"),
    ],
)
def test_an_invalid_line_is_named(tmp_path: Path, line: Any, words: str) -> None:
    path = written(tmp_path / "plans.jsonl", promotion("fine", 1), line)

    with pytest.raises(UsageError, match=words):
        read_plans(path)


def test_a_file_without_a_usable_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        with_plans(history(), tmp_path / "none", horizon=3)
    with pytest.raises(UsageError, match="has no plans"):
        with_plans(history(), written(tmp_path / "empty", ""), horizon=3)
    elsewhere = written(tmp_path / "other", promotion("p", 2, sku="Z"), promotion("q", 99))
    with pytest.raises(UsageError, match=r"no plan of .* affects a series and a time"):
        with_plans(history(), elsewhere, horizon=3)


def test_the_fingerprint_of_a_training_depends_on_the_plans(tmp_path: Path) -> None:
    """Other plans are another training."""
    config = train_config(ModelSettings(), bucket_ms=DAY_MS)
    one = with_plans(history(), written(tmp_path / "one", promotion("p", 2)), horizon=3)
    other = with_plans(history(), written(tmp_path / "other", promotion("p", 3)), horizon=3)

    prints = {fingerprint(h, config) for h in (one, other, replace(one, plans=None))}

    assert len(prints) == 3


@pytest.mark.slow
def test_backtest_and_forecast_make_use_of_the_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans improve forecasts of demand that quadruples on promoted days, also future ones."""

    def short(*arguments: Any, **named: Any) -> Any:
        return replace(batch_config(*arguments, **named), updates=150, learning_rate=1e-2)

    monkeypatch.setattr(batch, "batch_config", short)
    rng = np.random.default_rng(2)
    days = 160
    promoted = rng.random((days + 7, 4)) < 0.15
    promoted[days:] = [[day == 3 and slot == 1 for slot in range(4)] for day in range(7)]
    units = rng.poisson(np.where(promoted[:days], 80, 20))
    rows = [
        {"date": START_MS + day * DAY_MS, "sales": int(units[day, slot]), "sku": f"S{slot}"}
        for day in range(days)
        for slot in range(4)
    ]
    table = pl.DataFrame(rows).with_columns(pl.from_epoch("date", time_unit="ms").dt.date())
    table.write_parquet(tmp_path / "sales.parquet")
    path = written(
        tmp_path / "plans.jsonl",
        *(promotion(f"{d}-{s}", d, sku=f"S{s}") for d, s in np.argwhere(promoted).tolist()),
    )
    settings = ModelSettings()
    common: dict[str, Any] = {"horizon": 7, "bucket_ms": DAY_MS, "console": QUIET}

    blind, informed = (
        run_backtest(tmp_path / "sales.parquet", settings, origins=4, plans=plans, **common)
        for plans in (None, path)
    )
    made = run_forecast(tmp_path / "sales.parquet", settings, plans=path, **common)

    blind_wql, informed_wql = (
        score(outcome.result, SURGECAST).wql for outcome in (blind, informed)
    )
    assert blind_wql is not None
    assert informed_wql is not None
    assert informed_wql < 0.8 * blind_wql
    medians = made.filter(pl.col("series_id") == "S1")["q0.5"].to_list()
    assert medians[3] > 2 * max(medians[:3] + medians[4:])
