"""Results of the batch path: long tables, scores on the terminal, plots.

Axes: O = origins, S = series, H = horizon, Q = quantiles.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from model.contract import QuantileForecast
from model.evaluation.backtest import Backtest, score, volume_classes
from model.evaluation.importance import Importances
from model.quantiles.bands import main_band
from model.training.dataset import History
from stream.errors import UsageError
from stream.jobs.batch.file_grid import FileGrid
from stream.jobs.batch.plots import plot_forecasts

SURGECAST: Final = "surgecast"
_PLOTTED: Final = 6


def forecast_table(
    series: list[str], forecast: QuantileForecast, horizon: int, grid: FileGrid
) -> pl.DataFrame:
    """Long table of a forecast: a row per series and step; further targets as `revenue_q…`.

    Buckets have the dates of the file.
    """
    n_series = len(series)
    starts_H = grid.dates_ms(forecast.origin_ms + forecast.bucket_ms * np.arange(horizon))
    columns: dict[str, Any] = {
        "series_id": np.repeat(np.array(series, object), horizon).tolist(),
        "step": np.tile(np.arange(1, horizon + 1), n_series),
        "target_start_ms": np.tile(starts_H, n_series),
    }
    blocks = {"q": forecast.units_SHQ, "cumulative_q": forecast.cumulative_SHQ}
    blocks |= {f"{target}_q": block_SHQ for target, block_SHQ in forecast.extras.items()}
    for prefix, block in blocks.items():
        for place, q in enumerate(forecast.quantiles):
            columns[f"{prefix}{q:g}"] = block[:, :horizon, place].reshape(-1)
    mean_SH = forecast.mean_SH[:, :horizon].astype(np.float64)
    columns |= {"mean": mean_SH.reshape(-1), "cumulative_mean": mean_SH.cumsum(1).reshape(-1)}
    table = pl.DataFrame(columns)
    when = pl.from_epoch("target_start_ms", time_unit="ms").alias("target_start")
    return table.insert_column(3, table.select(when).to_series())


def backtest_table(result: Backtest, grid: FileGrid | None = None) -> pl.DataFrame:
    """Long table of a backtest: a row per series, origin, step and model.

    With a grid, buckets have the dates of its file.
    """
    grid = grid or FileGrid(result.bucket_ms)
    n_series, horizon = len(result.series), result.horizon
    names = np.repeat(np.array(result.series, object), horizon).tolist()
    parts = []
    for number, origin_ms in enumerate(result.origins_ms):
        starts_H = grid.dates_ms(origin_ms + result.bucket_ms * np.arange(horizon))
        for model, block in result.forecast.items():
            columns: dict[str, Any] = {
                "series_id": names,
                "origin_ms": [int(starts_H[0])] * (n_series * horizon),
                "step": np.tile(np.arange(1, horizon + 1), n_series),
                "target_start_ms": np.tile(starts_H, n_series),
                "actual": result.actual_OSH[number].reshape(-1),
                "model": [model] * (n_series * horizon),
            }
            for place, q in enumerate(result.quantiles):
                columns[f"q{q:g}"] = block[number, :, :, place].reshape(-1)
            if model in result.mean:
                columns["mean"] = result.mean[model][number].reshape(-1)
            parts.append(pl.DataFrame(columns))
    return pl.concat(parts, how="diagonal")


def print_scores(console: Console, result: Backtest) -> None:
    """Print the metrics of every model, and of the network by volume class and by step."""
    table = Table(title=f"{len(result.origins_ms)} origins × {len(result.series):,} series")
    for column in ("model", "WQL", "SQL", "MASE", "coverage", "PIT", "bias"):
        table.add_column(column, justify="left" if column == "model" else "right")
    low, high = main_band(result.quantiles)
    band = f"{result.quantiles[high] - result.quantiles[low]:.0%} band"
    rows: list[tuple[str, str, NDArray[np.int64] | None, slice | None]] = [
        (name, name, None, None) for name in result.forecast
    ]
    for letter, members in volume_classes(result).items():
        if members.size and len(result.series) > 5:
            rows.append((f"  {SURGECAST}, class {letter}", SURGECAST, members, None))
    third = max(1, result.horizon // 3)
    for first in range(0, result.horizon, third):
        last = min(first + third, result.horizon)
        if result.horizon > 3 and last - first == third:
            rows.append(
                (f"  {SURGECAST}, steps {first + 1}–{last}", SURGECAST, None, slice(first, last))
            )
    for label, name, chosen, steps in rows:
        scored = score(result, name, series=chosen, steps=steps)
        table.add_row(
            label,
            *(
                "–" if value is None else f"{value:.3f}"
                for value in (scored.wql, scored.sql, scored.mase)
            ),
            f"{scored.coverage:.3f}",
            f"{scored.pit_coverage:.3f}",
            "–" if scored.bias is None else f"{scored.bias:+.3f}",
        )
    console.print(table)
    console.print(
        f"coverage: share inside the {band}; PIT: the same with ties at zero spread evenly; "
        "WQL and SQL with the factor 2 (model/evaluation/metrics.py)"
    )


def print_target(console: Console, target: str, result: Backtest) -> None:
    """Print one line with the WQL of a further target for every model that forecasts it."""
    scored = [(name, score(result, name).wql) for name in result.forecast]
    scores = ", ".join(f"{name} {'–' if wql is None else f'{wql:.3f}'}" for name, wql in scored)
    console.print(f"WQL of {target}: {scores}")


def importance_table(importances: Importances) -> pl.DataFrame:
    """A row per input, the most important first: `input`, `wql_rise`, `deviation`."""
    return pl.DataFrame(
        {
            "input": [one.name for one in importances.inputs],
            "wql_rise": [one.wql_rise for one in importances.inputs],
            "deviation": [one.deviation for one in importances.inputs],
        }
    )


def print_importances(console: Console, importances: Importances) -> None:
    """Print `importance_table` on the terminal."""
    table = Table(title=f"WQL {importances.wql:.3f}; rise when an input is permuted")
    table.add_column("input")
    table.add_column("rise", justify="right")
    table.add_column("±", justify="right")
    for one in importances.inputs:
        table.add_row(one.name, f"{one.wql_rise:+.4f}", f"{one.deviation:.4f}")
    console.print(table)


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Write CSV or Parquet, depending on the suffix. Raises UsageError if that fails."""
    try:
        if path.suffix.lower() == ".csv":
            table.write_csv(path)
        elif path.suffix.lower() in (".parquet", ".pq"):
            table.write_parquet(path)
        else:
            raise UsageError(f"--out {path}: the name must end in .csv or .parquet")
    except OSError as error:
        raise UsageError(f"--out {path}: cannot be written ({error.strerror or error})") from None


def _largest(history: History) -> list[int]:
    return [int(slot) for slot in np.argsort(-history.volume(), kind="stable")[:_PLOTTED]]


def plot_forecast(
    path: Path, history: History, forecast: QuantileForecast, horizon: int, *, title: str
) -> None:
    """Plot the largest series: six horizons of history and the forecast."""
    shown = min(history.buckets, 6 * horizon)
    starts = history.end_ms - history.bucket_ms * np.arange(shown, 0, -1)
    panels = [
        (
            history.series[slot],
            starts,
            history.values_TSF[-shown:, slot, 0],
            [(forecast.origin_ms, forecast.units_SHQ[slot, :horizon])],
        )
        for slot in _largest(history)
    ]
    plot_forecasts(
        path, panels, bucket_ms=history.bucket_ms, quantiles=forecast.quantiles, title=title
    )


def plot_backtest(path: Path, history: History, result: Backtest, *, title: str) -> None:
    """Plot the largest series with the forecasts of every origin."""
    first_ms = result.origins_ms[0] - 3 * result.horizon * result.bucket_ms
    first = max(0, (first_ms - history.start_ms) // history.bucket_ms)
    starts = history.start_ms + history.bucket_ms * np.arange(first, history.buckets)
    panels = [
        (
            history.series[slot],
            starts,
            history.values_TSF[first:, slot, 0],
            [
                (origin_ms, result.forecast[SURGECAST][number, slot])
                for number, origin_ms in enumerate(result.origins_ms)
            ],
        )
        for slot in _largest(history)
    ]
    plot_forecasts(
        path, panels, bucket_ms=result.bucket_ms, quantiles=result.quantiles, title=title
    )
