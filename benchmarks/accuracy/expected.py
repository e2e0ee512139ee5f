r"""Expected values of the pretrained network on whole panels, and the total as a sum of them.

    python -m benchmarks.accuracy.expected --data panels --panels chicago_l_daily,carparts_monthly

Every series of a panel is forecast at its tuning origins, without training. Prints, by volume
class, the mean's bias and absolute error; and for panels with a `total`: the error of its own mean
and of the sum over products, and the WQL of its quantiles moved towards that sum by a power of
their ratio; WQL and coverage of sets of products drawn at random, by
`model.quantiles.sums_of_series` and by adding quantiles.

Axes: O = origins, S = series, H = horizon, Q = quantiles.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.panel_list import PANELS
from benchmarks.accuracy.panels import panel
from benchmarks.accuracy.tasks import Task
from model.evaluation.metrics import wql
from model.inference.forecaster import NetworkForecaster
from model.inputs.carried_statistics import UNITS
from model.pretraining.shipped import pretrained
from model.quantiles.bands import main_levels
from model.quantiles.sums_of_series import common_variance, quantiles_of_sum, variance_of
from stream.series_ids import TOTAL, is_rollup

Floats = NDArray[np.float64]

#: Lower bounds of the volume classes, in units a bucket.
CLASSES: Final = {"below 0.1": 0.0, "0.1–1": 0.1, "1–10": 1.0, "10 and more": 10.0}
POWERS: Final = (0.0, 0.5, 1.0)
#: Products of a set, and sets of each size.
SIZES: Final = (3, 10, 50)
SETS: Final = 30


@dataclass(frozen=True)
class Forecasts:
    """Quantiles and means of all series of a panel, and what happened; an unknown truth is zero."""

    series: list[str]
    quantiles: tuple[float, ...]
    units_OSHQ: Floats
    mean_OSH: Floats
    actual_OSH: Floats


def forecasts(task: Task) -> Forecasts:
    """Forecast all series of a task at its tuning origins."""
    history = task.history
    network = pretrained(bucket_ms=history.bucket_ms, horizon=task.horizon, country=task.country)
    forecaster = NetworkForecaster(network, "zero-shot")
    states = forecaster.new_states(len(history.series))
    states.set_static(history.static_features_SX)
    read, units, means, actual = 0, [], [], []
    for origin_ms in task.tune_origins_ms:
        place = (origin_ms - history.start_ms) // history.bucket_ms
        start_ms = history.start_ms + read * history.bucket_ms
        forecaster.warm_up(states, history.values_TSF[read : place - 1], start_ms)
        last_ms = origin_ms - history.bucket_ms
        made = forecaster.step(states, history.values_TSF[place - 1], last_ms)
        read = place
        units.append(made.units_SHQ)
        means.append(made.mean_SH)
        actual.append(history.values_TSF[place : place + task.horizon, :, UNITS].T)
    columns = main_levels(forecaster.quantiles)
    return Forecasts(
        history.series,
        forecaster.quantiles[columns],
        np.stack(units)[..., columns].astype(np.float64),
        np.stack(means).astype(np.float64),
        np.stack(actual).astype(np.float64),
    )


def show(name: str, made: Forecasts) -> None:
    """Print the lines of one panel."""
    product_S = np.array([not is_rollup(series) for series in made.series])
    volume_S = made.mean_OSH.mean(axis=(0, 2))
    print(f"\n{name}: {product_S.sum():,} products, {len(made.mean_OSH)} origins")
    bounds = [*CLASSES.values(), np.inf]
    for (label, low), high in zip(CLASSES.items(), bounds[1:], strict=True):
        _line(label, made, product_S & (volume_S >= low) & (volume_S < high))
    _line("roll-ups", made, ~product_S)
    if TOTAL not in made.series:
        return
    slot = made.series.index(TOTAL)
    actual, own = made.actual_OSH[:, slot], made.mean_OSH[:, slot]
    summed = made.mean_OSH[:, product_S].sum(axis=1)
    errors = [np.abs(mean - actual).sum() / actual.sum() for mean in (own, summed)]
    print(f"  total: error of its own mean {errors[0]:.3f}, of the sum {errors[1]:.3f}", end="")
    ratio_OH = summed / np.maximum(own, 1e-9)
    for power in POWERS:
        moved = made.units_OSHQ[:, slot] * (ratio_OH**power)[..., None]
        loss = wql(actual.ravel(), moved.reshape(-1, len(made.quantiles)), made.quantiles)
        print(f", WQL at power {power:g}: {loss:.4f}", end="")
    print()
    _show_sets(made, product_S, slot)


def _show_sets(made: Forecasts, product_S: NDArray[np.bool_], total: int) -> None:
    """WQL and coverage of the 80 % band of sets of products, and of all."""
    rng, products = np.random.default_rng(7), np.flatnonzero(product_S)
    levels = made.quantiles
    variance_OSH = variance_of(made.units_OSHQ, made.mean_OSH, levels)
    common_OH = np.stack(
        [
            common_variance(total_HQ, mean_H, variance_H, levels)
            for total_HQ, mean_H, variance_H in zip(
                made.units_OSHQ[:, total], made.mean_OSH[:, products].sum(axis=1),
                variance_OSH[:, products].sum(axis=1), strict=True,
            )
        ]
    )  # fmt: skip
    for size in (*SIZES, products.size):
        if size > products.size:
            continue
        actual, joint, added = [], [], []
        for _ in range(SETS if size < products.size else 1):
            chosen = rng.choice(products, size, replace=False)
            actual.append(made.actual_OSH[:, chosen].sum(axis=1))
            added.append(made.units_OSHQ[:, chosen].sum(axis=1))
            sums = made.mean_OSH[:, chosen].sum(axis=1), variance_OSH[:, chosen].sum(axis=1)
            joint.append(
                np.stack(
                    [quantiles_of_sum(*one, levels) for one in zip(*sums, common_OH, strict=True)]
                )
            )
        truth_N = np.stack(actual).ravel()
        figures = []
        for blocks in (joint, added):
            rows_NQ = np.stack(blocks).reshape(-1, len(levels))
            inside = (truth_N >= rows_NQ[:, 0]) & (truth_N <= rows_NQ[:, -1])
            figures.append(f"{wql(truth_N, rows_NQ, levels):.4f} ({inside.mean():.2f})")
        print(f"  sets of {size:5,}: together {figures[0]}, quantiles added {figures[1]}")


def _line(label: str, made: Forecasts, chosen_S: NDArray[np.bool_]) -> None:
    actual, mean = made.actual_OSH[:, chosen_S], made.mean_OSH[:, chosen_S]
    if not actual.sum() > 0:
        return
    bias, error = mean.sum() / actual.sum(), np.abs(mean - actual).sum() / actual.sum()
    print(f"  {label:12} {chosen_S.sum():6,} series  mean / actual {bias:.3f}  error {error:.3f}")


def main() -> None:
    """Forecast the chosen panels and print their lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the panels")
    parser.add_argument("--panels", default=",".join(PANELS), help="comma-separated")
    given = parser.parse_args()
    for name in given.panels.split(","):
        task = panel(name, given.data)
        show(name, forecasts(replace(task, scored=len(task.history.series))))


if __name__ == "__main__":
    main()
