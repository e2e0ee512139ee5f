"""The buckets of a file: their width, found from the dates, and the way from dates to buckets.

Days lie on the grid of 1970, shorter buckets begin at the minute of the file's times. Weeks begin
on the weekday of the file's dates. A month is a nominal one for the model, `MONTH_MS` long; its
dates are those of the calendar.

Axes: N = dates or buckets.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS, HOUR_MS, MONTH_MS, WEEK_MS
from model.time_zones import UTC_ZONE
from stream.settings import duration_text

Ints = NDArray[np.int64]

_WEEKDAYS: Final = (
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
)  # fmt: skip
#: Share of the dates that must be alike for weeks or months.
_MOST: Final = 0.9
#: Days between the starts of two months.
_MONTH_DAYS: Final = (28, 31)
#: The first and the last working day of a month are among so many of its first or last days.
_WORKING_WITHIN: Final = 3


@dataclass(frozen=True, slots=True)
class FileGrid:
    """Buckets of `bucket_ms`; one of them starts at `anchor_ms`.

    With `month_ends` a month goes by the date of its last day. `timezone` is the zone by which a
    model reads the buckets: that of the shop if they are instants, UTC if they are local already.
    """

    bucket_ms: int
    anchor_ms: int = 0
    month_ends: bool = False
    timezone: str = UTC_ZONE

    def numbers(self, at_ms_N: Ints) -> Ints:
        """Numbers of the buckets with these times, 0 for the first one of 1970.

        >>> at_ms = np.array(["1970-02-28T23", "1971-01-01"], "datetime64[ms]").astype(np.int64)
        >>> FileGrid(MONTH_MS).numbers(at_ms).tolist(), FileGrid(DAY_MS).numbers(at_ms).tolist()
        ([1, 12], [58, 365])
        """
        if self.bucket_ms == MONTH_MS:
            return at_ms_N.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
        return (at_ms_N - self.anchor_ms) // self.bucket_ms

    def start_ms(self, number: int) -> int:
        """Start of a bucket in the model's time; of a month the nominal one."""
        return number * self.bucket_ms + self.anchor_ms

    def whole(self, at_ms_N: Ints) -> NDArray[np.bool_]:
        """False [N] for times in a last month that is not over, unless there is no other."""
        before_N = np.ones(len(at_ms_N), np.bool_)
        if self.bucket_ms == MONTH_MS:
            times_ms, numbers_N = np.unique(at_ms_N), self.numbers(at_ms_N)
            newest = int(numbers_N.max())
            following = int(self.numbers(times_ms[-1:] + _step(times_ms))[0])
            if following == newest and numbers_N.min() < newest:
                before_N = np.less(numbers_N, newest)
        return before_N

    @property
    def regular(self) -> bool:
        """True if buckets are multiples of their width since 1970, for the model as in the file."""
        return not self.anchor_ms and self.bucket_ms != MONTH_MS

    def dates_ms(self, start_ms_N: Ints) -> Ints:
        """Dates of the buckets that start at these times of the model, as the file writes them.

        >>> months = MONTH_MS * np.array([0, 1, 2])
        >>> FileGrid(MONTH_MS, month_ends=True).dates_ms(months).astype("datetime64[ms]").tolist()
        [datetime.datetime(1970, 1, 31, 0, 0), datetime.datetime(1970, 2, 28, 0, 0), ...31, 0, 0)]
        """
        if self.bucket_ms != MONTH_MS:
            return start_ms_N
        months_N = (start_ms_N // MONTH_MS + self.month_ends).astype("datetime64[M]")
        days_N = months_N.astype("datetime64[D]").astype(np.int64) - self.month_ends
        return days_N * DAY_MS

    @property
    def text(self) -> str:
        """Width of a bucket, and where it begins if dates do not tell, for people."""
        if self.bucket_ms != WEEK_MS:
            return duration_text(self.bucket_ms)
        return f"1 week, from {_WEEKDAYS[(self.anchor_ms // DAY_MS + 3) % 7]} on"


def grid_of(times_ms_N: Ints, bucket_ms: int | None) -> FileGrid:
    """The grid of a file's times, of width `bucket_ms` if that is given.

    Otherwise the most common step between them: a month, a week, or a divisor of a day from an hour
    on, rounded down. Weeks that cut through a file of days end with its last day.
    """
    days_N = np.unique(times_ms_N // DAY_MS)
    months = _are_months(days_N)
    step_ms = _step(np.unique(times_ms_N))
    if bucket_ms is None:
        bucket_ms = MONTH_MS if months else step_ms if step_ms == WEEK_MS else _rounded(step_ms)
    if bucket_ms == MONTH_MS:
        return FileGrid(bucket_ms, month_ends=months and _at_month_ends(days_N))
    if bucket_ms == WEEK_MS:
        weekday, share = _most_common(days_N % 7)
        first_day = weekday if share >= _MOST else int(days_N[-1] + 1) % 7
        return FileGrid(bucket_ms, anchor_ms=first_day * DAY_MS)
    return FileGrid(bucket_ms)


def phase_of(times_ms_N: Ints, bucket_ms: int) -> int:
    """How long after a multiple of their width since 1970 buckets of a file begin.

    0 unless most times agree: hours of a zone with half hours begin at half past.

    >>> half_past = np.array([1_800_000, 5_400_000])
    >>> phase_of(half_past, HOUR_MS), phase_of(np.array([0, 1, 2]), HOUR_MS)
    (1800000, 0)
    """
    phase_ms, share = _most_common(times_ms_N % bucket_ms)
    return phase_ms if share >= _MOST else 0


def _step(times_ms_N: Ints) -> int:
    """The most common step between times in order; a day for a single one."""
    return _most_common(np.diff(times_ms_N))[0] if times_ms_N.size > 1 else DAY_MS


def _rounded(step_ms: int) -> int:
    """The widest divisor of a day within a step, at least an hour."""
    hours = [hour * HOUR_MS for hour in (24, 12, 8, 6, 4, 3, 2, 1)]
    return next((width for width in hours if width <= step_ms), hours[-1])


def _are_months(days_N: Ints) -> bool:
    """True for dates a month apart: first or last (working) days, or all the same day."""
    if days_N.size < 2:
        return False
    step, _ = _most_common(np.diff(days_N))
    same_day = _most_common(_of_month(days_N))[1] >= _MOST
    first_days = (_of_month(days_N) < _WORKING_WITHIN).mean() >= _MOST
    alike = same_day or first_days or _at_month_ends(days_N)
    return bool(_MONTH_DAYS[0] <= step <= _MONTH_DAYS[1] and alike)


def _at_month_ends(days_N: Ints) -> bool:
    return bool((_of_month(days_N + _WORKING_WITHIN) < _WORKING_WITHIN).mean() >= _MOST)


def _of_month(days_N: Ints) -> Ints:
    """Days since the first of the month."""
    dates_N = days_N.astype("datetime64[D]")
    of_month_N: Ints = (dates_N - dates_N.astype("datetime64[M]")).astype(np.int64)
    return of_month_N


def _most_common(values_N: Ints) -> tuple[int, float]:
    """The most common value, and its share."""
    values, counts = np.unique(values_N, return_counts=True)
    place = int(counts.argmax())
    return int(values[place]), float(counts[place] / counts.sum())
