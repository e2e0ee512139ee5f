"""Reads order, click and catalog files (CSV or Parquet) for replay, training and backfill.

The columns are those of the topics. A value of the wrong type is an error that names the row.
Invalid values of the right type (a quantity of 0, a negative price, a missing SKU) pass, so that a
replay sends them and the worker rejects them with a reason. Frames are sorted by time; rows with
equal times stay in the order of the file.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import polars as pl

from stream.errors import UsageError

_EVENT_ORDERS: Final = {
    "event_id": pl.String,
    "ts": pl.Int64,
    "sku": pl.String,
    "quantity": pl.Int64,
    "unit_price": pl.Float64,
    "order_id": pl.String,
    "customer_id": pl.String,
    "location": pl.String,
    "currency": pl.String,
}
_EVENT_CLICKS: Final = {
    "event_id": pl.String,
    "ts": pl.Int64,
    "sku": pl.String,
    "action": pl.String,
    "visitor_id": pl.String,
    "price": pl.Float64,
    "location": pl.String,
}
_CATALOG: Final = {
    "sku": pl.String,
    "category": pl.String,
    "brand": pl.String,
    "price": pl.Float64,
    "launched_at": pl.Int64,
}
_TIMES: Final = ("ts", "launched_at")

#: In milliseconds, smaller numbers are times before 1973: they must be seconds.
_LEAST_PLAUSIBLE_MS: Final = 100_000_000_000

Schema = dict[str, type[pl.DataType]]


def read_orders(path: Path) -> pl.DataFrame:
    """Read order lines, sorted by `ts` (ms). Raises UsageError naming file, column and row.

    Required: `ts, sku, quantity, unit_price`; optional: `event_id, order_id, customer_id, location,
    currency`. A missing `event_id` becomes `<file stem>-<row>`.
    """
    return _events(path, _EVENT_ORDERS, required=("ts", "sku", "quantity", "unit_price"))


def read_clicks(path: Path) -> pl.DataFrame:
    """Read clicks, sorted by `ts` (ms). Raises UsageError naming file, column and row.

    Required: `ts, sku, action`; optional: `event_id, visitor_id, price, location`.
    """
    return _events(path, _EVENT_CLICKS, required=("ts", "sku", "action"))


def read_catalog(path: Path) -> pl.DataFrame:
    """Read catalog rows in the order of the file. Raises UsageError naming file, column and row.

    Required: `sku`; optional: `category, brand, price, launched_at`.
    """
    return _typed(path, _read(path), _CATALOG, required=("sku",))


def _events(path: Path, schema: Schema, *, required: tuple[str, ...]) -> pl.DataFrame:
    frame = _typed(path, _read(path), schema, required=required)
    if "event_id" not in frame.columns:
        rows = pl.int_range(1, pl.len() + 1).cast(pl.String)
        frame = frame.with_columns(event_id=pl.concat_str(pl.lit(f"{path.stem}-"), rows))
    unset = frame["ts"].is_null()
    if unset.any():
        raise UsageError(f"{path}: row {_row(unset)} has no ts")
    newest_ms = int(frame["ts"].to_numpy().max(initial=0))
    if frame.height and newest_ms < _LEAST_PLAUSIBLE_MS:
        raise UsageError(
            f"{path}: the newest ts is {newest_ms}, but a ts must be in milliseconds since 1970; "
            "multiply seconds by 1000"
        )
    columns = ["event_id", *(name for name in frame.columns if name != "event_id")]
    return frame.select(columns).sort("ts", maintain_order=True)


def _read(path: Path) -> pl.DataFrame:
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        ".parquet": pl.read_parquet,
        ".pq": pl.read_parquet,
        ".csv": _read_csv,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path}: the name must end in .csv or .parquet")
    try:
        return reader(path)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        reason = error.strerror or _first_line(error)
        raise UsageError(f"{path}: cannot be read ({reason})") from None
    except pl.exceptions.NoDataError:
        raise UsageError(f"{path}: the file is empty") from None
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        kind = path.suffix.lstrip(".").lower()
        raise UsageError(f"{path}: not a readable {kind} file ({_first_line(error)})") from None


def _read_csv(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, infer_schema=False)


def _typed(
    path: Path, frame: pl.DataFrame, schema: Schema, *, required: tuple[str, ...]
) -> pl.DataFrame:
    missing = [name for name in required if name not in frame.columns]
    if missing:
        raise UsageError(
            f"{path}: no column {', '.join(missing)}; required are {', '.join(required)}"
            f" (found {', '.join(frame.columns)})"
        )
    columns = [
        _time(path, frame[name]) if name in _TIMES else _cast(path, frame[name], dtype)
        for name, dtype in schema.items()
        if name in frame.columns
    ]
    return pl.DataFrame(columns)


def _cast(path: Path, column: pl.Series, dtype: type[pl.DataType]) -> pl.Series:
    """Cast a column to its type. Raises UsageError for text, or for fractions in integers."""
    if column.dtype == dtype:
        return column
    if dtype == pl.String and column.dtype.is_nested():
        raise UsageError(f"{path}: column {column.name} has the type {column.dtype}, not text")
    cast = column.cast(dtype, strict=False)
    wrong = cast.is_null() & column.is_not_null()
    if dtype == pl.Int64 and column.dtype.is_float():
        wrong |= (cast.cast(pl.Float64) != column).fill_null(value=False)
    _refuse(path, column, wrong, "a whole number" if dtype == pl.Int64 else "a number")
    return cast


def _time(path: Path, column: pl.Series) -> pl.Series:
    """Milliseconds of a column of integers, datetimes (UTC if naive), dates or RFC 3339 text."""
    if column.dtype.is_integer():
        return column.cast(pl.Int64)
    if column.dtype == pl.Datetime:
        return column.dt.epoch("ms")
    if column.dtype == pl.Date:
        return column.cast(pl.Datetime("ms")).dt.epoch("ms")
    if column.dtype != pl.String:
        raise UsageError(f"{path}: column {column.name} has the type {column.dtype}, not a time")
    whole = column.cast(pl.Int64, strict=False)
    zoned = column.str.contains(r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$")
    text = column.str.to_uppercase().str.replace(" ", "T", literal=True)
    text = text.str.replace(r"Z$", "+00:00")
    stamps = text.set(~zoned.fill_null(value=False), None).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="ms", time_zone="UTC", strict=False
    )
    times = whole.fill_null(stamps.dt.epoch("ms"))
    wrong = times.is_null() & column.is_not_null()
    _refuse(path, column, wrong, "milliseconds since 1970 or RFC 3339 (2011-12-01T08:26:00Z)")
    return times


def _refuse(path: Path, column: pl.Series, wrong: pl.Series, expected: str) -> None:
    """Raise UsageError for the first wrong value, if there is one."""
    if wrong.any():
        at = int(wrong.arg_true()[0])
        raise UsageError(
            f"{path}: row {at + 1}, column {column.name}: {column[at]!r} is not {expected}"
        )


def _row(flags: pl.Series) -> int:
    return int(flags.arg_true()[0]) + 1


def _first_line(error: Exception) -> str:
    """First line of an error's text, at most 160 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
