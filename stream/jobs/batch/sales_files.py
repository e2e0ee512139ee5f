"""Reads and cleans sales files (`date,sales`, one or many series) for the batch path.

Columns: `date` (or `ds`, `timestamp`) and `sales` (or `units`, `quantity`, `y`); for several series
also `sku` (or `series_id`, `item`). Cleaning is reported: rows of the same bucket are summed, gaps
filled with zeros, rows without a date or number dropped, negative sales counted as returns, and
outliers capped in the training data. Order files (`ts, sku, quantity, unit_price`) are read too.

Axes: T = buckets, S = series, F = features.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.contract import FEATURE_NAMES
from model.durations import DAY_MS, HOUR_MS
from model.inputs.carried_statistics import RETURNS, UNITS
from model.training.dataset import History
from model.training.outliers import winsorise
from stream.errors import UsageError
from stream.jobs.files.event_files import read_orders
from stream.jobs.history.from_files import build_history
from stream.settings import duration_text

_DATE: Final = ("date", "ds", "timestamp", "ts", "time", "datetime")
_SALES: Final = ("sales", "units", "quantity", "y", "demand")
_SERIES: Final = ("sku", "series_id", "item", "unique_id", "product")
_MAX_CELLS: Final = 60_000_000


@dataclass(frozen=True, slots=True)
class CleaningReport:
    """Counts of what was repaired in a sales file."""

    rows: int
    series: int
    buckets: int
    bucket_ms: int
    unreadable_rows: int
    summed_rows: int
    filled_buckets: int
    negative_rows: int
    outliers_capped: int = 0

    def lines(self) -> list[str]:
        """The report as text: one line per finding with a count above 0."""
        findings = [
            f"{self.rows:,} rows → {self.series:,} series × {self.buckets:,} buckets "
            f"of {duration_text(self.bucket_ms)}"
        ]
        for count, text in (
            (self.unreadable_rows, "rows without a date or a number were dropped"),
            (self.summed_rows, "rows were added to another row of the same bucket"),
            (self.filled_buckets, "buckets without a row count as zero sales"),
            (self.negative_rows, "negative rows count as returns, not as demand"),
            (self.outliers_capped, "outliers are capped in the training data"),
        ):
            if count:
                findings.append(f"{count:,} {text}")
        return findings


def load_sales(
    path: Path, *, bucket_ms: int | None = None, max_series: int = 4_000
) -> tuple[History, CleaningReport]:
    """Read the history of a sales or order file, and report what was repaired.

    `bucket_ms` defaults to the step between the dates (at least an hour), for orders to a day.
    Raises UsageError that names file and column.
    """
    frame = _read(path)
    if {"ts", "sku", "quantity", "unit_price"} <= set(frame.columns):
        return _from_orders(path, bucket_ms or DAY_MS, max_series)
    table = _three_columns(path, frame)
    readable = table.drop_nulls().filter(pl.col("sales").is_finite())
    if not readable.height:
        raise UsageError(f"{path}: no row has both a date and a number of sales")
    width = bucket_ms or _natural_width(readable)
    history, report = _dense(path, readable, width, max_series)
    return history, replace(
        report, rows=frame.height, unreadable_rows=frame.height - readable.height
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


def _three_columns(path: Path, frame: pl.DataFrame) -> pl.DataFrame:
    """Columns at_ms, sales, series of a sales file."""
    named = {name.strip().lower(): name for name in frame.columns}

    def column(names: tuple[str, ...]) -> str | None:
        return next((named[name] for name in names if name in named), None)

    date, sales, series = column(_DATE), column(_SALES), column(_SERIES)
    if date is None or sales is None:
        raise UsageError(
            f"{path}: needs the columns date and sales, and sku for several series "
            f"(found {', '.join(frame.columns)})"
        )
    return pl.DataFrame(
        {
            "at_ms": _times(path, frame[date]),
            "sales": frame[sales].cast(pl.Float64, strict=False),
            "series": frame[series].cast(pl.String) if series else ["sales"] * frame.height,
        },
        schema={"at_ms": pl.Int64, "sales": pl.Float64, "series": pl.String},
    )


def _times(path: Path, column: pl.Series) -> pl.Series:
    """Milliseconds since 1970; text is an ISO 8601 date with or without a time, in UTC."""
    if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        return column.cast(pl.Datetime("ms")).dt.epoch("ms")
    if column.dtype.is_integer():
        return column.cast(pl.Int64)
    text = column.cast(pl.String).str.strip_chars()
    for pattern in ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"):
        times = text.str.to_datetime(pattern, time_unit="ms", strict=False)
        if times.null_count() <= column.null_count() + 0.05 * column.len():
            return times.dt.epoch("ms")
    sample = next((value for value in text.to_list() if value), "")
    raise UsageError(
        f"{path}: cannot read dates like {sample!r}; write 2024-05-31 or 2024-05-31 08:00"
    )


def _natural_width(table: pl.DataFrame) -> int:
    """The most common step between dates, rounded down to a divisor of a day, at least an hour."""
    times = np.unique(table["at_ms"].to_numpy())
    if times.size < 2:
        return DAY_MS
    steps, counts = np.unique(np.diff(times), return_counts=True)
    step = int(steps[counts.argmax()])
    hours = [hour * HOUR_MS for hour in (24, 12, 8, 6, 4, 3, 2, 1)]
    return next((width for width in hours if width <= step), hours[-1])


def _dense(
    path: Path, table: pl.DataFrame, bucket_ms: int, max_series: int
) -> tuple[History, CleaningReport]:
    summed = (
        table.with_columns(bucket=pl.col("at_ms") // bucket_ms)
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
            f"{path}: {len(names):,} series × {buckets:,} buckets of {duration_text(bucket_ms)} "
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
        bucket_ms=bucket_ms,
        unreadable_rows=0,
        summed_rows=table.height - summed.height,
        filled_buckets=buckets * len(names) - kept.height,
        negative_rows=int((table["sales"] < 0).sum()),
    )
    return History(values_TSF, first * bucket_ms, bucket_ms, names), report


def _from_orders(path: Path, bucket_ms: int, max_series: int) -> tuple[History, CleaningReport]:
    orders = read_orders(path)
    sparse = build_history(orders, bucket_ms=bucket_ms)
    history = sparse.for_training(max_series)
    report = CleaningReport(
        rows=orders.height,
        series=len(history.series),
        buckets=history.buckets,
        bucket_ms=bucket_ms,
        unreadable_rows=0,
        summed_rows=0,
        filled_buckets=0,
        negative_rows=int((orders["quantity"] < 0).sum()),
    )
    return history, report
