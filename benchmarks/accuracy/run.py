"""Accuracy against the peers: the same series, origins and buckets, in one run.

    python -m benchmarks.accuracy.run --orders orders_online_retail_II.parquet --task daily
    python -m benchmarks.accuracy.run --orders … --task hourly --models surgecast,LightGBM
    python -m benchmarks.accuracy.run --orders … --task daily --origins tune --set updates=600

Surgecast, NHITS and DeepAR are trained once, before the first origin; `surgecast-retrained` is
retrained at every origin, LightGBM and the statistical models are refitted. Every forecast is
stored under `--work`, so an interrupted run, or one with another model, resumes from there. On the
hourly task refits happen at every tenth midnight.

Writes a row for each model to `results/<task>-<origins>.jsonl`: metrics over all origins, by origin
and by step, CPU seconds, versions. Choose settings by the tuning origins only.
"""

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.progress import Progress

from benchmarks.accuracy.ours import Ensemble, Surgecast, configured
from benchmarks.accuracy.problem import OriginForecast, Peer, Problem
from benchmarks.accuracy.statistical import SeasonalNaive, Statistical
from benchmarks.accuracy.store import ForecastStore
from benchmarks.accuracy.tasks import daily, hourly, read_lines
from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.config import DECILES
from model.evaluation.backtest import Backtest, Scores, backtest, score
from stream.jobs.batch.output import backtest_table

RESULTS = Path(__file__).parent / "results"
STATISTICAL: Final = ("AutoETS", "AutoTheta", "DynamicOptimizedTheta", "CrostonSBA")
MODELS: Final = (
    "surgecast", "surgecast-retrained", "seasonal-naive", "LightGBM", "CrostonSBA",
    "NHITS", "DeepAR", "DynamicOptimizedTheta", "AutoETS", "AutoTheta",
)  # fmt: skip
_PACKAGES: Final = ("torch", "numpy", "lightgbm", "statsforecast", "neuralforecast")
#: Settings of `surgecast-retrained` at each later origin.
RETRAINED: Final[dict[str, Any]] = {
    "updates": 200,
    "learning_rate": 1e-3,
    "finish_share": 0.8,
    "validate_every": 1_000,
}
#: Training origins of LightGBM: their distance in buckets, and the power of demand in row weights.
ROWS: Final[dict[str, dict[str, Any]]] = {
    "daily": {"spacing": 4, "rows_power": 0.0},
    "hourly": {"spacing": 24, "rows_power": 0.5},
}


def forecaster(
    name: str, problem: Problem, folder: Path, seeds: int, overrides: dict[str, Any]
) -> tuple[Callable[[], Peer], dict[str, Any]]:
    """Return the factory of the model `name`, and the settings its forecasts depend on."""
    if name.startswith("surgecast"):
        retrained = RETRAINED if name.endswith("retrained") else None
        configs = [configured(problem, seed=seed, overrides=overrides) for seed in range(seeds)]

        def ours() -> Peer:
            members = []
            for config in configs:
                weights = folder / f"seed-{config.seed}"
                weights.mkdir(parents=True, exist_ok=True)
                members.append(Surgecast(problem, weights, config, retrained=retrained))
            return members[0] if seeds == 1 else Ensemble(members)

        return ours, {"configs": [asdict(one) for one in configs], "retrained": retrained}
    refit_every = 10 if problem.hourly else 1
    if name == "seasonal-naive":
        return lambda: SeasonalNaive(problem), {}
    if name == "LightGBM":
        from benchmarks.accuracy.trees import LightGbm

        rows = ROWS[problem.task.name]
        rows = {name: overrides.get(name, value) for name, value in rows.items()}
        fitted = {"refit_every": refit_every, **rows}
        return lambda: LightGbm(problem, **fitted), fitted
    if name in ("NHITS", "DeepAR"):
        from benchmarks.accuracy.neural import Neural

        return lambda: Neural(problem, name, steps=500), {"steps": 500}
    if name in STATISTICAL:
        fitted = {"refit_every": refit_every}
        return lambda: Statistical(problem, name, refit_every=refit_every), fitted
    raise SystemExit(f"--models {name}: unknown model, choose from {', '.join(MODELS)}")


def main() -> None:
    """Run the selected models and write the results of those that are complete."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=Path, required=True)
    parser.add_argument("--task", choices=("daily", "hourly"), required=True)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--origins", choices=("test", "tune"), default="test")
    parser.add_argument(
        "--seeds", type=int, default=1, help="number of networks whose quantiles are averaged"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON",
                        help="override a setting of Surgecast, or of LightGBM's rows")  # fmt: skip
    parser.add_argument("--work", type=Path, default=Path("var/accuracy"))
    parser.add_argument(
        "--out", type=Path, help="write all forecasts to this Parquet file (long table)"
    )
    arguments = parser.parse_args()
    overrides = {
        name: json.loads(value) for name, value in (s.split("=", 1) for s in arguments.set)
    }
    lines = read_lines(arguments.orders)
    task = daily(lines) if arguments.task == "daily" else hourly(lines)
    origins_ms = task.test_origins_ms if arguments.origins == "test" else task.tune_origins_ms
    problem = Problem(task, origins_ms)
    result = actual_of(problem)
    made: dict[str, list[OriginForecast]] = {}
    for name in arguments.models.split(","):
        folder = arguments.work / f"{arguments.task}-{arguments.origins}" / name
        create, settings = forecaster(name, problem, folder, arguments.seeds, overrides)
        store = ForecastStore(folder, settings)
        made[name] = _forecasts(name, create, problem, store)
        result.forecast[name] = np.stack([one.units_SHQ for one in made[name]])
    report(result, made, RESULTS / f"{arguments.task}-{arguments.origins}.jsonl")
    if arguments.out is not None:
        backtest_table(result).write_parquet(arguments.out)


def _forecasts(
    name: str, create: Callable[[], Peer], problem: Problem, store: ForecastStore
) -> list[OriginForecast]:
    """Forecasts of every origin: the stored ones, and the missing ones computed now."""
    peer: Peer | None = None
    forecasts = []
    with Progress() as bars:
        bar = bars.add_task(name, total=len(problem.places))
        for origin_ms, place in zip(problem.origins_ms, problem.places, strict=True):
            made = store.get(origin_ms)
            if made is None:
                peer = peer or create()
                made = peer.forecast(place)
                store.put(origin_ms, made)
            forecasts.append(made)
            bars.advance(bar)
    return forecasts


def actual_of(problem: Problem) -> Backtest:
    """The actuals at the origins, without forecasts."""
    history = problem.scored_history
    naive = SeasonalNaiveForecaster(horizon=problem.horizon, bucket_ms=history.bucket_ms)
    result = backtest(history, {"naive": naive}, problem.origins_ms)
    result.forecast.clear()
    return result


def report(result: Backtest, made: dict[str, list[OriginForecast]], path: Path) -> None:
    """Write a row for each model, replacing its previous row."""
    path.parent.mkdir(exist_ok=True)
    rows = {}
    if path.exists():
        rows = {row["model"]: row for row in map(json.loads, path.read_text().splitlines())}
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    for name, forecasts in made.items():
        overall = score(result, name)
        steps = [score(result, name, steps=slice(h, h + 1)) for h in range(result.horizon)]
        origins = [score(_one_origin(result, place), name) for place in range(len(forecasts))]
        rows[name] = {
            "model": name,
            **_rounded(overall),
            "wql_by_origin": [_round(one.wql) for one in origins],
            "wql_by_step": [_round(one.wql) for one in steps],
            "pit_coverage_by_step": [_round(one.pit_coverage) for one in steps],
            "fit_cpu_seconds": round(sum(one.fit_seconds for one in forecasts), 1),
            "refresh_cpu_seconds": round(
                float(np.median([one.refresh_seconds for one in forecasts])), 3
            ),
            "quantiles": list(DECILES),
            "versions": versions,
        }
        low, high = min(s.pit_coverage for s in steps), max(s.pit_coverage for s in steps)
        print(
            f"{name:24} WQL {overall.wql:.4f}  SQL {overall.sql:.4f}  MASE {overall.mase:.4f}  "
            f"PIT {overall.pit_coverage:.3f} ({low:.3f} to {high:.3f} by step)  "
            f"fit {rows[name]['fit_cpu_seconds']} s, refresh {rows[name]['refresh_cpu_seconds']} s"
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))


def _one_origin(result: Backtest, place: int) -> Backtest:
    return replace(
        result,
        origins_ms=result.origins_ms[place : place + 1],
        actual_OSH=result.actual_OSH[place : place + 1],
        naive_error_OS=result.naive_error_OS[place : place + 1],
        forecast={name: block[place : place + 1] for name, block in result.forecast.items()},
    )


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _rounded(made: Scores) -> dict[str, float | None]:
    names = ("wql", "sql", "mase", "coverage", "pit_coverage", "bias")
    return {name: _round(getattr(made, name)) for name in names}


if __name__ == "__main__":
    main()
