"""Reads the dates of a sales file: local ones without an offset, or instants with one.

Axes: N = rows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.durations import DAY_MS
from model.time_zones import UTC_ZONE
from model.wall_clock import wall_clock_ms
from stream.errors import UsageError

Ints = NDArray[np.int64]

_LOCAL: Final = ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M")
_INSTANT: Final = "%Y-%m-%dT%H:%M:%S%.f%:z"
_OFFSET: Final = r"[+-]\d\d:\d\d$"
#: Share of the dates that may be unreadable.
_UNREADABLE: Final = 0.05


@dataclass(frozen=True, slots=True)
class FileTimes:
    """Milliseconds since 1970 of the rows: `at_ms` of instants, `written_ms` as the clock read.

    Both are the same for times without an offset; then `instants` is false.
    """

    at_ms: pl.Series
    written_ms: pl.Series
    instants: bool

    def days_ms(self, timezone: str) -> pl.Series:
        """Times by which days are told apart: local ones.

        Instants are read on the wall clock of a zone; for UTC, the default, as they were written.
        """
        if not self.instants or timezone == UTC_ZONE:
            return self.written_ms
        known = self.at_ms.is_not_null()
        local_ms = wall_clock_ms(self.at_ms.fill_null(0).to_numpy(), timezone)
        return pl.Series(local_ms).set(~known, None)


def read_times(path: Path, column: pl.Series) -> FileTimes:
    """Read dates, datetimes, integers (ms), ISO 8601 or RFC 3339 text; null where unreadable.

    Raises UsageError if more than a few are.
    """
    if isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone is not None:
        written = column.dt.replace_time_zone(None)
        return FileTimes(_ms(column), _ms(written), instants=True)
    if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        return _local(_ms(column.cast(pl.Datetime("ms"))))
    if column.dtype.is_integer():
        at_ms = column.cast(pl.Int64)
        return FileTimes(at_ms, at_ms, instants=True)
    text = column.cast(pl.String).str.strip_chars()
    for pattern in _LOCAL:
        times = text.str.to_datetime(pattern, time_unit="ms", strict=False)
        if _readable(times, column):
            return _local(_ms(times))
    text = text.str.to_uppercase().str.replace(" ", "T", literal=True)
    text = text.str.replace(r"Z$", "+00:00")
    times = text.str.to_datetime(_INSTANT, time_unit="ms", time_zone=UTC_ZONE, strict=False)
    if _readable(times, column):
        clock = text.str.replace(_OFFSET, "+00:00")
        written = clock.str.to_datetime(_INSTANT, time_unit="ms", time_zone=UTC_ZONE, strict=False)
        return FileTimes(_ms(times), _ms(written), instants=True)
    sample = next((value for value in text.to_list() if value), "")
    raise UsageError(
        f"{path}: cannot read dates like {sample!r}; write 2024-05-31, 2024-05-31 08:00 "
        "or 2024-05-31T08:00:00-04:00"
    )


def local_days(times_ms: pl.Series, timezone: str, *, bucket_ms: int) -> pl.Series:
    """Times of instants by which buckets of this width are told apart: local from a day on."""
    if bucket_ms < DAY_MS:
        return times_ms
    return pl.Series(wall_clock_ms(times_ms.to_numpy(), timezone))


def _local(times_ms: pl.Series) -> FileTimes:
    return FileTimes(times_ms, times_ms, instants=False)


def _readable(times: pl.Series, column: pl.Series) -> bool:
    return times.null_count() <= column.null_count() + _UNREADABLE * column.len()


def _ms(times: pl.Series) -> pl.Series:
    return times.dt.epoch("ms")
