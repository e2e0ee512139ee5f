"""Accuracy beside the peers: the same series, origins and buckets, in one run.

    python -m benchmarks.accuracy.run --orders orders_online_retail_II.parquet --task daily
    python -m benchmarks.accuracy.run --orders … --task hourly --models surgecast,seasonal-naive

Surgecast is trained once, before the first test origin, and carried forward; peers are refitted at
every origin. Writes a row a model to `results/<task>.jsonl` (metrics, seconds, versions) and, with
`--out`, the long table of forecasts. Tune with `--origins tune` only.
"""

import argparse
import json
import platform
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy import peers
from benchmarks.accuracy.tasks import Task, daily, hourly, read_lines
from model.backtest import Backtest, Scores, backtest, score
from model.config import DECILES, ModelConfig, TrainConfig
from model.incremental import NetworkForecaster
from model.training import Trained, train
from stream.jobs.batch_output import backtest_table

PEERS = ("seasonal-naive", "AutoETS", "DynamicOptimizedTheta", "CrostonSBA", "LightGBM")
RESULTS = Path(__file__).parent / "results"


def surgecast_config(task: Task, seed: int) -> TrainConfig:
    """The configuration that was best on the tuning origins; see docs/experiments.md."""
    dropout = 0.15 if task.name == "daily" else 0.1
    model = ModelConfig(horizon=task.horizon, bucket_ms=task.history.bucket_ms, dropout=dropout)
    if task.name == "daily":
        return TrainConfig(model=model, seed=seed, updates=2_400, chunk=64, volume_power=0.5)
    return TrainConfig(model=model, seed=seed, updates=2_400)


def surgecast(task: Task, origins_ms: list[int], seeds: int) -> tuple[Backtest, dict[str, float]]:
    """Networks of some seeds, trained before the first origin, and the mean of their quantiles."""
    buckets = (origins_ms[0] - task.history.start_ms) // task.history.bucket_ms
    before = replace(task.history, values_TSF=task.history.values_TSF[:buckets])
    began = time.perf_counter()
    trained: list[Trained] = [train(before, surgecast_config(task, seed)) for seed in range(seeds)]
    fit = time.perf_counter() - began
    networks = {f"surgecast-{i}": NetworkForecaster(t.network, "x") for i, t in enumerate(trained)}
    began = time.perf_counter()
    result = backtest(task.history, networks, origins_ms)
    carried = time.perf_counter() - began
    blocks = [result.forecast.pop(name) for name in networks]
    result.forecast["surgecast"] = blocks[0]
    if seeds > 1:
        result.forecast[f"surgecast-mean-of-{seeds}"] = np.mean(blocks, axis=0)
    return result, {"fit_seconds": fit / seeds, "predict_seconds": carried / seeds}


def peer(name: str, task: Task, places: list[int]) -> peers.PeerResult:
    """One peer on one task."""
    units_TS = task.history.values_TSF[:, : task.scored, 0]
    hours = task.name == "hourly"
    season = 168 if hours else 7
    if name == "seasonal-naive":
        return peers.seasonal_naive(units_TS, places, task.horizon, season)
    if name == "LightGBM":
        return peers.lightgbm(
            units_TS,
            places,
            task.horizon,
            start_ms=task.history.start_ms,
            bucket_ms=task.history.bucket_ms,
            season=season,
            spacing=7 if hours else 4,
            refit_every=10 if hours else 1,
        )
    return peers.statistical(
        name,
        units_TS,
        places,
        task.horizon,
        24 if hours else season,
        longest=8 * 168 if hours else 10_000,
    )


def main() -> None:
    """Run the models asked for and append their rows to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=Path, required=True)
    parser.add_argument("--task", choices=("daily", "hourly"), required=True)
    parser.add_argument("--models", default=",".join(("surgecast", *PEERS)))
    parser.add_argument("--origins", choices=("test", "tune"), default="test")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = read_lines(arguments.orders)
    task = daily(lines) if arguments.task == "daily" else hourly(lines)
    origins_ms = task.test_origins_ms if arguments.origins == "test" else task.tune_origins_ms
    history = task.history
    places = [(origin - history.start_ms) // history.bucket_ms for origin in origins_ms]
    names = arguments.models.split(",")
    seconds: dict[str, dict[str, float]] = {}
    result: Backtest | None = None
    if "surgecast" in names:
        full, cost = surgecast(task, origins_ms, arguments.seeds)
        result = _scored(full, task.scored)
        seconds = dict.fromkeys(result.forecast, cost)
    for name in names:
        if name == "surgecast":
            continue
        made = peer(name, task, places)
        result = result or _empty(task, origins_ms)
        result.forecast[name] = made.forecast_OSHQ
        seconds[name] = {"fit_seconds": made.fit_seconds, "predict_seconds": made.predict_seconds}
    if result is None:
        parser.error("--models names nothing to run")
    _report(result, seconds, arguments.task, arguments.origins)
    if arguments.out is not None:
        backtest_table(result).write_parquet(arguments.out)


def _scored(result: Backtest, scored: int) -> Backtest:
    """The series that count, which are the first ones."""
    return replace(
        result,
        series=result.series[:scored],
        actual_OSH=result.actual_OSH[:, :scored],
        naive_error_OS=result.naive_error_OS[:, :scored],
        forecast={name: block[:, :scored] for name, block in result.forecast.items()},
    )


def _empty(task: Task, origins_ms: list[int]) -> Backtest:
    """Actual demand at the origins, without a forecast yet."""
    from model.baselines import SeasonalNaiveForecaster

    naive = SeasonalNaiveForecaster(horizon=task.horizon, bucket_ms=task.history.bucket_ms)
    result = _scored(backtest(task.history, {"naive": naive}, origins_ms), task.scored)
    result.forecast.clear()
    return result


def _report(
    result: Backtest, seconds: dict[str, dict[str, float]], task: str, origins: str
) -> None:
    RESULTS.mkdir(exist_ok=True)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("lightgbm", "statsforecast", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    with (RESULTS / f"{task}.jsonl").open("a") as file:
        for name in result.forecast:
            made = score(result, name)
            steps = [
                score(result, name, steps=slice(step, step + 1)).pit_coverage
                for step in range(result.horizon)
            ]
            row = {
                "model": name,
                "task": task,
                "origins": origins,
                **_rounded(made),
                "pit_coverage_by_step": [round(min(steps), 3), round(max(steps), 3)],
                **{key: round(value, 1) for key, value in seconds.get(name, {}).items()},
                "quantiles": list(DECILES),
                "versions": versions,
            }
            file.write(json.dumps(row) + "\n")
            print(
                f"{name:24} WQL {made.wql:.4f}  SQL {made.sql:.4f}  MASE {made.mase:.4f}  "
                f"coverage {made.coverage:.3f} PIT {made.pit_coverage:.3f}  {seconds.get(name, {})}"
            )


def _rounded(made: Scores) -> dict[str, float | None]:
    fields = {
        "wql": made.wql,
        "sql": made.sql,
        "mase": made.mase,
        "coverage": made.coverage,
        "pit_coverage": made.pit_coverage,
        "bias": made.bias,
    }
    return {name: None if value is None else round(value, 4) for name, value in fields.items()}


if __name__ == "__main__":
    main()
