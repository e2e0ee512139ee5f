"""Reads and cleans sales files (`date,sales`, one or many series) for the batch path.

Columns: `date` (or `ds`, `timestamp`) and `sales` (or `units`, `quantity`, `y`); for several series
also `sku` (or `series_id`, `item`). Cleaning is reported: rows of the same bucket are summed, gaps
filled with zeros, rows without a date or number dropped, negative sales counted as returns, and
outliers capped in the training data. Order files (`ts, sku, quantity, unit_price`) are read too.
Days, weeks and months are the shop's: dates count as written, instants by its time zone.

Axes: T = buckets, S = series, F = features.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.contract import FEATURE_NAMES
from model.durations import DAY_MS
from model.inputs.carried_statistics import RETURNS, UNITS
from model.time_zones import UTC_ZONE
from model.training.dataset import History
from model.training.outliers import winsorise
from stream.errors import UsageError
from stream.jobs.batch.file_grid import FileGrid, grid_of, phase_of
from stream.jobs.batch.file_times import local_days, read_times
from stream.jobs.files.event_files import read_orders
from stream.jobs.history.from_files import build_history

_DATE: Final = ("date", "ds", "timestamp", "ts", "time", "datetime")
_SALES: Final = ("sales", "units", "quantity", "y", "demand")
_SERIES: Final = ("sku", "series_id", "item", "unique_id", "product")
_MAX_CELLS: Final = 60_000_000


@dataclass(frozen=True, slots=True)
class CleaningReport:
    """How a sales file was read, and counts of what was repaired."""

    rows: int
    series: int
    buckets: int
    grid: FileGrid
    unreadable_rows: int
    summed_rows: int
    filled_buckets: int
    negative_rows: int
    partial_rows: int = 0
    outliers_capped: int = 0

    def lines(self) -> list[str]:
        """The report as text: one line per finding with a count above 0."""
        findings = [
            f"{self.rows:,} rows → {self.series:,} series × {self.buckets:,} buckets "
            f"of {self.grid.text}"
        ]
        for count, text in (
            (self.unreadable_rows, "rows without a date or a number were dropped"),
            (self.summed_rows, "rows were added to another row of the same bucket"),
            (self.filled_buckets, "buckets without a row count as zero sales"),
            (self.partial_rows, "rows of the last month, which is not over, were left out"),
            (self.negative_rows, "negative rows count as returns, not as demand"),
            (self.outliers_capped, "outliers are capped in the training data"),
        ):
            if count:
                findings.append(f"{count:,} {text}")
        return findings


def load_sales(
    path: Path,
    *,
    bucket_ms: int | None = None,
    timezone: str = UTC_ZONE,
    max_series: int = 4_000,
) -> tuple[History, CleaningReport]:
    """Read the history of a sales or order file, and report what was repaired.

    `bucket_ms` defaults to the step between the dates (at least an hour), for orders to a day;
    `timezone` is the shop's. Raises UsageError that names file and column.
    """
    frame = _read(path)
    if {"ts", "sku", "quantity", "unit_price"} <= set(frame.columns):
        return _from_orders(path, bucket_ms or DAY_MS, timezone, max_series)
    table, instants = _three_columns(path, frame, timezone)
    readable = table.drop_nulls().filter(pl.col("sales").is_finite())
    if not readable.height:
        raise UsageError(f"{path}: no row has both a date and a number of sales")
    grid = grid_of(readable["local_ms"].to_numpy(), bucket_ms)
    times = "local_ms" if grid.bucket_ms >= DAY_MS else "at_ms"
    timed = readable.with_columns(at_ms=times)
    if grid.bucket_ms < DAY_MS:
        phase_ms = phase_of(timed["at_ms"].to_numpy(), grid.bucket_ms)
        grid = replace(grid, anchor_ms=phase_ms, timezone=timezone if instants else UTC_ZONE)
    whole = timed.filter(pl.Series(grid.whole(timed["at_ms"].to_numpy())))
    history, report = _dense(path, whole, grid, max_series)
    return history, replace(
        report,
        rows=frame.height,
        unreadable_rows=frame.height - readable.height,
        partial_rows=timed.height - whole.height,
    )


def cap_outliers(history: History, report: CleaningReport) -> tuple[History, CleaningReport]:
    """Cap outliers for training; return the history, and the report with their number."""
    units_TS, capped = winsorise(history.values_TSF[:, :, UNITS])
    if not capped:
        return history, report
    values_TSF = history.values_TSF.copy()
    values_TSF[:, :, UNITS] = units_TS
    return replace(history, values_TSF=values_TSF), replace(report, outliers_capped=capped)


def _read(path: Path) -> pl.DataFrame:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet", ".pq"):
        raise UsageError(f"{path}: the name must end in .csv or .parquet")
    try:
        return pl.read_csv(path, infer_schema=False) if suffix == ".csv" else pl.read_parquet(path)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from None
    except pl.exceptions.PolarsError as error:
        reason = (str(error).splitlines() or ["empty"])[0][:160]
        raise UsageError(f"{path}: not a readable table ({reason})") from None


def _three_columns(path: Path, frame: pl.DataFrame, timezone: str) -> tuple[pl.DataFrame, bool]:
    """Columns at_ms, local_ms, sales, series of a sales file; true if its times are instants."""
    named = {name.strip().lower(): name for name in frame.columns}

    def column(names: tuple[str, ...]) -> str | None:
        return next((named[name] for name in names if name in named), None)

    date, sales, series = column(_DATE), column(_SALES), column(_SERIES)
    if date is None or sales is None:
        raise UsageError(
            f"{path}: needs the columns date and sales, and sku for several series "
            f"(found {', '.join(frame.columns)})"
        )
    times = read_times(path, frame[date])
    table = pl.DataFrame(
        {
            "at_ms": times.at_ms,
            "local_ms": times.days_ms(timezone),
            "sales": frame[sales].cast(pl.Float64, strict=False),
            "series": frame[series].cast(pl.String) if series else ["sales"] * frame.height,
        },
        schema={
            "at_ms": pl.Int64, "local_ms": pl.Int64, "sales": pl.Float64, "series": pl.String,
        },
    )  # fmt: skip
    return table, times.instants


def _dense(
    path: Path, table: pl.DataFrame, grid: FileGrid, max_series: int
) -> tuple[History, CleaningReport]:
    summed = (
        table.with_columns(bucket=pl.Series(grid.numbers(table["at_ms"].to_numpy())))
        .group_by("series", "bucket")
        .agg(
            units=pl.col("sales").clip(lower_bound=0).sum(),
            returns=pl.col("sales").clip(upper_bound=0).sum().abs(),
            rows=pl.len(),
        )
    )
    order = summed.group_by("series").agg(pl.col("units").sum()).sort("units", descending=True)
    names = sorted(order["series"].head(max_series))
    first = int(summed["bucket"].to_numpy().min())
    buckets = int(summed["bucket"].to_numpy().max()) - first + 1
    if buckets * len(names) > _MAX_CELLS:
        raise UsageError(
            f"{path}: {len(names):,} series × {buckets:,} buckets of {grid.text} "
            f"exceed the limit of {_MAX_CELLS:,}; choose a wider --bucket"
        )
    place = {name: slot for slot, name in enumerate(names)}
    kept = summed.filter(pl.col("series").is_in(names))
    slot_N = np.array([place[name] for name in kept["series"]], np.int64)
    bucket_N: NDArray[np.int64] = kept["bucket"].to_numpy() - first
    values_TSF = np.zeros((buckets, len(names), len(FEATURE_NAMES)), np.float32)
    values_TSF[bucket_N, slot_N, UNITS] = kept["units"].to_numpy()
    values_TSF[bucket_N, slot_N, RETURNS] = kept["returns"].to_numpy()
    report = CleaningReport(
        rows=table.height,
        series=len(names),
        buckets=buckets,
        grid=grid,
        unreadable_rows=0,
        summed_rows=table.height - summed.height,
        filled_buckets=buckets * len(names) - kept.height,
        negative_rows=int((table["sales"] < 0).sum()),
    )
    return History(values_TSF, grid.start_ms(first), grid.bucket_ms, names), report


def _from_orders(
    path: Path, bucket_ms: int, timezone: str, max_series: int
) -> tuple[History, CleaningReport]:
    orders = read_orders(path)
    times = local_days(orders["ts"], timezone, bucket_ms=bucket_ms)
    grid = grid_of(times.to_numpy(), bucket_ms)
    if bucket_ms < DAY_MS:
        grid = replace(grid, timezone=timezone)
    if grid.regular:
        timed = orders.with_columns(ts=times)
    else:
        timed = orders.with_columns(ts=pl.Series(grid.numbers(times.to_numpy()) * bucket_ms))
        timed = timed.filter(pl.Series(grid.whole(times.to_numpy())))
    sparse = build_history(timed, bucket_ms=bucket_ms)
    history = sparse.for_training(max_series)
    history = replace(history, start_ms=history.start_ms + grid.anchor_ms)
    report = CleaningReport(
        rows=orders.height,
        series=len(history.series),
        buckets=history.buckets,
        grid=grid,
        unreadable_rows=0,
        summed_rows=0,
        filled_buckets=0,
        negative_rows=int((orders["quantity"] < 0).sum()),
    )
    return history, report
