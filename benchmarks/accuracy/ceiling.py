r"""Upper bounds of accuracy: stored forecasts, corrected with knowledge of the actuals.

    python -m benchmarks.accuracy.run --orders … --panels daily --origins tune \
        --models surgecast,LightGBM --out forecasts.parquet
    python -m benchmarks.accuracy.ceiling forecasts.parquet

Prints the WQL of every model, of the mean of the quantiles of each pair, and of every model with
its quantiles multiplied by the best factor in hindsight: for each series over all steps of an
origin, for each step over all series, for each origin over both. The gain of such a row is the most
that better knowledge of that level could bring; the rest is shape and noise.

Axes: N = origins, S = series, H = horizon, Q = quantiles.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl

from model.evaluation.metrics import pinball_loss, wql

#: Candidate factors for the quantiles.
FACTORS = np.geomspace(0.25, 4.0, 41)


def read(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray], tuple[float, ...]]:
    """Demand [N, S, H], forecasts [N, S, H, Q] by model, and the quantiles, of a long table."""
    table = pl.read_parquet(path).sort("model", "origin_ms", "series_id", "step")
    columns = [name for name in table.columns if name.startswith("q0.")]
    shape = tuple(table[name].n_unique() for name in ("origin_ms", "series_id", "step"))
    actual = None
    forecasts = {}
    for (name,), rows in table.group_by("model", maintain_order=True):
        actual = rows["actual"].to_numpy().astype(np.float64).reshape(shape)
        block = rows.select(columns).to_numpy().astype(np.float64)
        forecasts[str(name)] = block.reshape(*shape, len(columns))
    if actual is None:
        raise SystemExit(f"{path}: no forecasts")
    return actual, forecasts, tuple(float(name[1:]) for name in columns)


def best_scaled(
    units_NSHQ: np.ndarray, actual_NSH: np.ndarray, levels: tuple[float, ...], axes: tuple[int, ...]
) -> np.ndarray:
    """Quantiles multiplied by the best factor of each group, with losses summed over `axes`."""
    tried, losses = [], []
    for factor in FACTORS:
        tried.append(units_NSHQ * factor)
        loss_NQ = pinball_loss(actual_NSH.ravel(), tried[-1].reshape(-1, len(levels)), levels)
        losses.append(loss_NQ.sum(axis=1).reshape(actual_NSH.shape).sum(axes, keepdims=True))
    best = np.argmin(losses, axis=0)
    chosen: np.ndarray = np.choose(best[..., None], tried)
    return chosen


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("forecasts", type=Path, help="output of benchmarks.accuracy.run --out")
    actual_NSH, forecasts, levels = read(parser.parse_args().forecasts)

    def row(name: str, units_NSHQ: np.ndarray) -> None:
        loss = wql(actual_NSH.ravel(), units_NSHQ.reshape(-1, len(levels)), levels)
        print(f"{name:50} {loss:.4f}")

    for name, units_NSHQ in forecasts.items():
        row(name, units_NSHQ)
        for known, axes in (("series", (2,)), ("step", (1,)), ("origin", (1, 2))):
            best = best_scaled(units_NSHQ, actual_NSH, levels, axes)
            row(f"{name}, best factor of each {known}", best)
    for first, second in combinations(forecasts, 2):
        row(f"mean of {first} and {second}", (forecasts[first] + forecasts[second]) / 2)


if __name__ == "__main__":
    main()
