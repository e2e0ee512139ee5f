r"""Accuracy on all panels against the peers: the same series, origins and buckets, in one run.

    python -m benchmarks.accuracy.run --all --data panels
    python -m benchmarks.accuracy.run --data panels --panels chicago_l_daily,daily --models LightGBM
    python -m benchmarks.accuracy.run --orders orders_online_retail_II.parquet --panels daily \
        --origins tune --models surgecast --set updates=600

The panels are Parquet files in `--data`; the tasks `daily` and `hourly` read `--orders`, by default
`orders_online_retail_II.parquet` in the folder above. Surgecast, NHITS and DeepAR are trained once,
before the first origin; `surgecast-retrained` is retrained at every origin, LightGBM and the
statistical models are refitted (at every tenth of the thirty midnights of `hourly`). Every forecast
is stored under `--work`, so an interrupted run, or one with another model, resumes from there.

Writes a row for each model and level to `results/<task>-<origins>.jsonl`: metrics over all origins,
by origin and by step, CPU seconds, versions; and the pooled figures of all panels of this run to
`results/pooled-<origins>.json`. Choose settings by the tuning origins only.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.accuracy.models import MODELS, NAIVE, OURS, PEERS, USUAL, Created, model
from benchmarks.accuracy.panel_list import PANELS
from benchmarks.accuracy.panels import panel
from benchmarks.accuracy.problem import OriginForecast, Peer, Problem
from benchmarks.accuracy.scoring.results import TaskResult, write
from benchmarks.accuracy.scoring.scores import Truth
from benchmarks.accuracy.scoring.table import (
    comparisons,
    pooled,
    show_comparisons,
    show_pooled,
    show_scores,
)
from benchmarks.accuracy.store import ForecastStore
from benchmarks.accuracy.tasks import Task, daily, hourly, read_lines
from model.config import DECILES
from model.evaluation.backtest import Backtest
from stream.jobs.batch.output import backtest_table

RESULTS = Path(__file__).parent / "results"
ORDERS: Final = "orders_online_retail_II.parquet"
WHOLESALER: Final = {"daily": daily, "hourly": hourly}
#: Columns of the tables where there is no terminal.
_WIDTH: Final = 140
TASKS: Final = (*PANELS, *WHOLESALER)


def main() -> None:
    """Run the selected models on the selected tasks, and print and write the results."""
    arguments = _arguments()
    overrides = dict(_setting(text) for text in arguments.set)
    names = _names(arguments.models, MODELS, "--models")
    tasks = list(TASKS) if arguments.all else _names(arguments.panels, TASKS, "--panels")
    if arguments.out is not None and len(tasks) > 1:
        raise SystemExit(
            f"--out {arguments.out}: takes the forecasts of one task, not {len(tasks)}"
        )
    origins: str = arguments.origins
    if arguments.covariates == "on":
        origins += "-covariates"
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    results = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        total = bars.add_task("all", total=len(tasks) * len(names))
        for task_name in tasks:
            problem = _problem(task_name, arguments)
            result = TaskResult(task_name, Truth.of(problem))
            made: dict[str, list[OriginForecast]] = {}
            for name in names:
                folder = arguments.work / f"{task_name}-{origins}" / name
                created = model(name, problem, folder, seeds=arguments.seeds, overrides=overrides)
                store = ForecastStore(folder, created.settings | {"task": digest(problem)})
                bar = bars.add_task(f"{task_name}: {name}", total=len(problem.places))
                made[name] = []
                for forecast in _forecasts(created, problem, store):
                    made[name].append(forecast)
                    bars.advance(bar)
                bars.remove_task(bar)
                bars.advance(total)
                result.add(name, made[name])
            write(result, RESULTS / f"{task_name}-{origins}.jsonl")
            results.append(result)
            if arguments.out is not None:
                backtest_table(_backtest(problem, result.truth, made)).write_parquet(arguments.out)
    report(results, RESULTS / f"pooled-{origins}.json", console)


def report(results: Sequence[TaskResult], path: Path, console: Console) -> None:
    """Print the tables, and write the pooled figures if there are several panels."""
    show_scores(results, NAIVE, console)
    if len(results) > 1:
        show_pooled(results, NAIVE, console)
    found = {}
    for name in OURS:
        found[name] = comparisons(results, name, PEERS, "LightGBM")
        if found[name]:
            show_comparisons(found[name], name, console)
    if len(results) > 1:
        figures = {
            "panels": [result.task for result in results],
            "pooled": pooled(results, NAIVE),
            "comparisons": {name: rows for name, rows in found.items() if rows},
        }
        path.write_text(json.dumps(figures, indent=1) + "\n")


def digest(problem: Problem) -> str:
    """Sixteen hex digits that change with the series, values, plans or horizon of a task."""
    task = problem.task
    history = task.history
    found = hashlib.blake2b(digest_size=8)
    found.update("\0".join([*history.series, str(task.scored), str(task.horizon)]).encode())
    found.update(f"{history.start_ms} {history.bucket_ms} {task.season} {task.country}".encode())
    found.update(np.ascontiguousarray(history.values_TSF).data)
    if task.observed_TS is not None:
        found.update(np.ascontiguousarray(task.observed_TS).data)
    if history.plans is not None:
        found.update(np.ascontiguousarray(history.plans.values_TNP).data)
    return found.hexdigest()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the panels")
    parser.add_argument("--orders", type=Path, help="order lines of the tasks daily and hourly")
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--all", action="store_true", help="all panels, and daily and hourly")
    chosen.add_argument("--panels", help=f"comma-separated: {', '.join(TASKS)}")
    parser.add_argument("--models", default=",".join(USUAL), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--origins", choices=("test", "tune"), default="test")
    parser.add_argument(
        "--covariates",
        choices=("on", "off"),
        default="off",
        help="give Surgecast the columns of the panels that are known in advance",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, help="number of networks whose quantiles are averaged"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON",
                        help="override a setting of Surgecast, or of LightGBM")  # fmt: skip
    parser.add_argument("--work", type=Path, default=Path("var/accuracy"))
    parser.add_argument(
        "--out", type=Path, help="write all forecasts to this Parquet file (long table)"
    )
    return parser.parse_args()


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


def _names(text: str, known: Sequence[str], option: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"{option} {', '.join(unknown)}: unknown, choose from {', '.join(known)}")
    return names


def _problem(name: str, arguments: argparse.Namespace) -> Problem:
    """Read a task and take its test or tuning origins."""
    if arguments.data is None and (name in PANELS or arguments.orders is None):
        raise SystemExit(f"--data: the task {name} needs the folder of the panels")
    task: Task
    if name in PANELS:
        task = panel(name, arguments.data, covariates=arguments.covariates == "on")
    else:
        task = WHOLESALER[name](read_lines(arguments.orders or arguments.data.parent / ORDERS))
    test = arguments.origins == "test"
    return Problem(task, task.test_origins_ms if test else task.tune_origins_ms)


def _forecasts(
    created: Created, problem: Problem, store: ForecastStore
) -> Iterator[OriginForecast]:
    """Forecasts of every origin: the stored ones, and the missing ones computed now."""
    peer: Peer | None = None
    for origin_ms, place in zip(problem.origins_ms, problem.places, strict=True):
        made = store.get(origin_ms)
        if made is None:
            peer = peer or created.create()
            made = peer.forecast(place)
            store.put(origin_ms, made)
        yield made


def _backtest(problem: Problem, truth: Truth, made: dict[str, list[OriginForecast]]) -> Backtest:
    """The forecasts and truths as a backtest of the product; an unknown truth is NaN."""
    history = problem.scored_history
    return Backtest(
        series=history.series,
        origins_ms=problem.origins_ms,
        bucket_ms=history.bucket_ms,
        quantiles=DECILES,
        actual_OSH=truth.actual_OSH.astype(np.float32),
        forecast={name: np.stack([one.units_SHQ for one in each]) for name, each in made.items()},
        naive_error_OS=truth.naive_error_OS,
    )


if __name__ == "__main__":
    main()
