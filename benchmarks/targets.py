"""Further targets: their effect on units, the accuracy of revenue, and the cost of a step.

    python -m benchmarks.targets --orders orders_online_retail_II.parquet --seed 0
    python -m benchmarks.targets --cost

Trains one network of units only and one with both targets, on the daily task up to the tuning
origins; these data have no clicks, so visitors are all zero. `--cost` steps 100,000 series on one
thread, alternating between the variants so that other load affects all equally.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from benchmarks.accuracy.ours import configured
from benchmarks.accuracy.problem import Problem
from benchmarks.accuracy.tasks import daily, read_lines
from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.config import TARGETS, ModelConfig, Target
from model.durations import HOUR_MS
from model.evaluation.backtest import backtest, backtest_target, score
from model.inference.forecaster import NetworkForecaster
from model.networks.quantile_network import QuantileNetwork
from model.training.train import train
from stream.bench.inference import closed_bucket

SERIES: Final = 100_000
STEPS: Final = 22


def main() -> None:
    """Run the selected measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cost", action="store_true")
    arguments = parser.parse_args()
    if arguments.cost:
        cost()
    if arguments.orders is not None:
        accuracy(arguments.orders, arguments.seed)


def accuracy(orders: Path, seed: int) -> None:
    """Train with and without targets and print the scores."""
    task = daily(read_lines(orders))
    problem = Problem(task, task.tune_origins_ms)
    before = replace(task.history, values_TSF=task.history.values_TSF[: problem.places[0]])
    scored = problem.scored_history
    naive = SeasonalNaiveForecaster(horizon=task.horizon, bucket_ms=scored.bucket_ms)
    for targets in ((), TARGETS):
        config = configured(problem, seed=seed, overrides={"targets": targets})
        network = NetworkForecaster(train(before, config).network, "surgecast", threads=1)
        result = backtest(scored, {"surgecast": network}, problem.origins_ms)
        units = _wql(score(result, "surgecast").wql)
        print(f"{', '.join(targets) or 'units alone'}: WQL of units {units}")
        if targets:
            revenue = backtest_target(scored, result, "revenue", {"seasonal-naive": naive})
            for name in revenue.forecast:
                print(f"  WQL of revenue, {name}: {_wql(score(revenue, name).wql)}")


def cost() -> None:
    """Print the CPU seconds of a step, median and minimum, of each choice of targets."""
    torch.set_num_threads(1)
    choices: tuple[tuple[Target, ...], ...] = ((), ("revenue",), TARGETS)
    made = []
    for targets in choices:
        config = ModelConfig(horizon=24, bucket_ms=HOUR_MS, targets=targets)
        forecaster = NetworkForecaster(QuantileNetwork(config), "cost", threads=1)
        made.append((targets, forecaster, forecaster.new_states(SERIES)))
    buckets = [closed_bucket(SERIES, seed=seed) for seed in range(2)]
    seconds: dict[tuple[Target, ...], list[float]] = {targets: [] for targets in choices}
    for step in range(STEPS):
        for targets, forecaster, states in made:
            began = time.process_time()
            forecaster.step(states, buckets[step % 2], step * HOUR_MS)
            seconds[targets].append(time.process_time() - began)
    for targets, taken in seconds.items():
        warm = taken[2:]
        name = ", ".join(targets) or "units only"
        print(f"{name}: {statistics.median(warm):.3f} s, minimum {min(warm):.3f} s")


def _wql(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main()
