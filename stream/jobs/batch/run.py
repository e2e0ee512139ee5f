"""Trains, forecasts and backtests on a file, without broker or store.

The functions behind `surgecast train|forecast|backtest --history FILE`. They print on the given
console and write results to files. If the history is too short for a network, the seasonal naive
forecasts, and the console says so.

Axes: O = origins, S = series, H = horizon, Q = quantiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console

from model.errors import HistoryTooShort, ModelError
from model.evaluation.backtest import Backtest, backtest, backtest_target, last_origins
from model.inference.forecaster import Forecaster, NetworkForecaster
from model.time_zones import UTC_ZONE
from model.training.dataset import History
from model.training.ranks import Ranks
from stream.errors import UsageError
from stream.jobs.batch.config import batch_config
from stream.jobs.batch.forecasters import (
    carry_over,
    challenger_for,
    champion_of,
    importance_of,
    naive_for,
    naive_season,
    untrained_for,
)
from stream.jobs.batch.output import (
    SURGECAST,
    backtest_table,
    forecast_table,
    importance_table,
    plot_backtest,
    plot_forecast,
    print_importances,
    print_scores,
    print_target,
    write_table,
)
from stream.jobs.batch.plots import plot_importances
from stream.jobs.batch.sales_files import CleaningReport, cap_outliers, load_sales
from stream.jobs.files.plan_files import with_plans
from stream.jobs.history.shop_country import with_country
from stream.jobs.training.publish import TrainingOutcome, publish
from stream.jobs.training.train import RunFolder, train_with_bar
from stream.registry.model_registry import Registry
from stream.settings import ModelSettings, duration_text


@dataclass(frozen=True, slots=True)
class BacktestOutcome:
    """Result of `run_backtest`: forecasts with the actuals, and the cleaning report."""

    result: Backtest
    report: CleaningReport


def run_train(
    history_file: Path,
    settings: ModelSettings,
    registry: Registry,
    *,
    horizon: int | None = None,
    bucket_ms: int | None = None,
    timezone: str = UTC_ZONE,
    max_seconds: float | None = None,
    seed: int = 7,
    promote: bool = False,
    plans: Path | None = None,
    console: Console | None = None,
    run_folder: RunFolder | None = None,
) -> TrainingOutcome:
    """Train on a sales or order file and store the model in the registry.

    `plans` is a file for `stream/jobs/files/plan_files.py`. With `run_folder`, an interrupted
    training can be resumed. Raises UsageError for a file that cannot be used or is too short.
    """
    console = console or Console(stderr=True, quiet=not Ranks.current().first)
    history, report = load_sales(history_file, bucket_ms=bucket_ms, timezone=timezone)
    horizon = horizon or settings.horizon
    history = with_plans(history, plans, horizon=horizon)
    capped, report = cap_outliers(history, report)
    _print_report(console, report)
    zone = report.grid.timezone
    settings = with_country(capped, settings, console, timezone=zone)
    config = batch_config(
        history,
        settings,
        horizon=horizon,
        timezone=zone,
        seed=seed,
        max_seconds=max_seconds,
    )
    trained = train_with_bar(capped, config, console=console, run_folder=run_folder)
    model_id = publish(trained, registry, promote=promote)
    return TrainingOutcome(model_id, promote, trained.metrics, trained.span_ms)


def run_forecast(
    history_file: Path,
    settings: ModelSettings,
    *,
    horizon: int,
    bucket_ms: int | None = None,
    timezone: str = UTC_ZONE,
    out: Path | None = None,
    plot: Path | None = None,
    registry: Registry | None = None,
    challenger: bool = False,
    max_seconds: float | None = None,
    seed: int = 7,
    plans: Path | None = None,
    console: Console | None = None,
) -> pl.DataFrame:
    """Forecast the buckets after a file, with the champion of `registry` if it fits.

    With `challenger`, the foundation model of the settings forecasts instead.

    Returns and writes to `out` (CSV or Parquet): series_id, step, target_start_ms, target_start,
    one column per quantile of units, and `cumulative_q…` of their running sum. Raises UsageError.
    """
    console = console or Console(stderr=True)
    history, report = load_sales(history_file, bucket_ms=bucket_ms, timezone=timezone)
    history = with_plans(history, plans, horizon=horizon)
    capped, report = cap_outliers(history, report)
    _print_report(console, report)
    if challenger:
        forecaster = challenger_for(history, horizon, settings, seed)
    else:
        zone = report.grid.timezone
        forecaster = champion_of(
            registry, history, horizon, settings, console, timezone=zone
        ) or _train_forecaster(
            capped, history, settings, horizon,
            timezone=zone, max_seconds=max_seconds, seed=seed, console=console,
        )  # fmt: skip
    forecast = carry_over(forecaster, history)
    table = forecast_table(history.series, forecast, horizon, report.grid)
    if out is not None:
        write_table(table, out)
    if plot is not None:
        plot_forecast(plot, history, forecast, horizon, title=f"{history_file.name}: forecast")
    console.print(
        f"{len(history.series):,} series × {horizon} buckets of {duration_text(history.bucket_ms)} "
        f"forecast by {forecast.model_id}"
    )
    return table


def run_backtest(
    history_file: Path,
    settings: ModelSettings,
    *,
    horizon: int,
    origins: int | Sequence[int] = 4,
    bucket_ms: int | None = None,
    timezone: str = UTC_ZONE,
    out: Path | None = None,
    plot: Path | None = None,
    importance: Path | None = None,
    max_seconds: float | None = None,
    seed: int = 7,
    plans: Path | None = None,
    console: Console | None = None,
) -> BacktestOutcome:
    """Evaluate the network, the seasonal naive and any challenger on rolling origins.

    `origins` is the number of origins at the end of the file, or the start (ms) of the first
    forecast bucket of each. The network is trained once, on the buckets before the first origin.
    Writes the long table to `out` (CSV or Parquet), and the importance of each input to
    `importance` (CSV or Parquet) and a PNG of the same name. Raises UsageError.
    """
    console = console or Console(stderr=True)
    history, report = load_sales(history_file, bucket_ms=bucket_ms, timezone=timezone)
    history = with_plans(history, plans, horizon=horizon)
    try:
        if isinstance(origins, int):
            starts = last_origins(history, horizon=horizon, count=origins)
        else:
            numbers = report.grid.numbers(np.array(sorted(origins), np.int64))
            starts = [report.grid.start_ms(number) for number in numbers.tolist()]
        before = _before(history, starts[0])
        capped, report = cap_outliers(before, report)
        _print_report(console, report)
        naive = naive_for(history, horizon, settings)
        console.print(naive_season(naive, before))
        others: list[Forecaster] = [naive]
        if settings.challenger is not None:
            others.append(challenger_for(history, horizon, settings, seed))
        forecasters: dict[str, Forecaster] = {
            SURGECAST: _train_forecaster(
                capped, before, settings, horizon,
                timezone=report.grid.timezone, max_seconds=max_seconds, seed=seed, console=console,
            ),
            **{other.model_id: other for other in others},
        }  # fmt: skip
        result = backtest(history, forecasters, starts)
        further = {
            target: backtest_target(history, result, target, {naive.model_id: naive})
            for target in settings.targets
            if result.extras
        }
        importances = None
        if importance is not None:
            importances = importance_of(history, forecasters[SURGECAST], starts, console)
    except ModelError as error:
        raise UsageError(f"{history_file}: {error}") from error
    print_scores(console, result)
    for target, scored in further.items():
        print_target(console, target, scored)
    if out is not None:
        write_table(backtest_table(result, report.grid), out)
    if plot is not None:
        plot_backtest(plot, history, result, title=f"{history_file.name}: rolling origins")
    if importance is not None and importances is not None:
        print_importances(console, importances)
        write_table(importance_table(importances), importance)
        title = f"{history_file.name}: rise of WQL when an input is permuted"
        plot_importances(importance.with_suffix(".png"), importances, title=title)
    return BacktestOutcome(result, report)


def _train_forecaster(
    capped: History,
    history: History,
    settings: ModelSettings,
    horizon: int,
    *,
    timezone: str,
    max_seconds: float | None,
    seed: int,
    console: Console,
) -> Forecaster:
    """Train a network on `capped`; if that is too short, take the pretrained one as it is."""
    settings = with_country(capped, settings, console, timezone=timezone)
    config = batch_config(
        history, settings,
        horizon=horizon, timezone=timezone, seed=seed, max_seconds=max_seconds,
    )  # fmt: skip
    try:
        trained = train_with_bar(capped, config, console=console)
    except UsageError as error:
        if not isinstance(error.__cause__, HistoryTooShort):
            raise
        return untrained_for(
            history, horizon, settings, console, timezone=timezone, reason=str(error)
        )
    return NetworkForecaster(
        trained.network, SURGECAST, quantiles=settings.quantiles, rounded=settings.rounded
    )


def _before(history: History, end_ms: int) -> History:
    """The history before a bucket. Raises HistoryTooShort if it is empty."""
    buckets = (end_ms - history.start_ms) // history.bucket_ms
    if buckets < 1:
        raise HistoryTooShort(
            f"the first origin {end_ms} is not after the start of the history {history.start_ms}"
        )
    return replace(history, values_TSF=history.values_TSF[:buckets])


def _print_report(console: Console, report: CleaningReport) -> None:
    for line in report.lines():
        console.print(line)
