"""Calendar features of a bucket, past or future, from its start time alone.

Hour and weekday are one-hot, so closed hours and Saturdays can be learned exactly; the day of the
year is given by harmonics; holidays and the days between Christmas and New Year have their own
columns. Then the width of the bucket. Buckets below a day are read by the shop's wall clock
(`model/wall_clock.py`).

Axes: N = buckets, C = calendar features.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS, HOUR_MS, WEEK_MS
from model.inputs.seasons.special_days import days_off
from model.time_zones import UTC_ZONE
from model.wall_clock import calendar_ms

_YEAR_DAYS: Final = 365.2425
_HOURS, _WEEKDAYS, _YEAR_HARMONICS, _REST, _WIDTH = 24, 7, 3, 9, 3
N_CALENDAR: Final = _HOURS + 2 + _WEEKDAYS + 2 * _YEAR_HARMONICS + _REST + _WIDTH
_FIRST_YEAR: Final = _HOURS + 2 + _WEEKDAYS
_FIRST_REST: Final = _FIRST_YEAR + 2 * _YEAR_HARMONICS
#: Columns that are zero without `year_terms`: harmonics, the run-up to Christmas, January.
YEAR_TERMS: Final = (*range(_FIRST_YEAR, _FIRST_REST), *range(_FIRST_REST + 4, _FIRST_REST + 7))
_DISTANCES: Final = 8
#: Features of a bucket of the horizon.
N_HORIZON: Final = N_CALENDAR + _DISTANCES


def is_holiday(
    start_ms_X: NDArray[np.int64], *, bucket_ms: int, country: str | None
) -> NDArray[np.bool_]:
    """True for buckets below a week, of any shape, that start on a public holiday of `country`.

    >>> christmas = np.array(["2024-12-24", "2024-12-25"], "datetime64[ms]").astype(np.int64)
    >>> is_holiday(christmas, bucket_ms=DAY_MS, country="GB").tolist()
    [False, True]
    """
    if country is None or bucket_ms >= WEEK_MS or not start_ms_X.size:
        return np.zeros(start_ms_X.shape, np.bool_)
    day_X = start_ms_X // DAY_MS
    years = np.array([day_X.min(), day_X.max()]).astype("datetime64[D]").astype("datetime64[Y]")
    first, last = (years.astype(np.int64) + 1970).tolist()
    off = sorted({day for year in range(first, last + 1) for day in days_off(country, year)})
    return np.isin(day_X, np.array(off, np.int64))


def calendar_features(
    start_ms_N: NDArray[np.int64], *, bucket_ms: int, country: str | None,
    year_terms: bool = False, timezone: str = UTC_ZONE,
) -> NDArray[np.float32]:  # fmt: skip
    """Calendar features [N, C] of the buckets that start at `start_ms_N`.

    Without `year_terms` those of the season of the year are zero.

    Raises NotImplementedError (from `holidays`) for an unknown country.

    >>> monday = np.array([4 * DAY_MS + 13 * HOUR_MS], np.int64)  # 1970-01-05, 13:00
    >>> features = calendar_features(monday, bucket_ms=HOUR_MS, country="GB")
    >>> features[0, 13].item(), features[0, 26:33].tolist()
    (1.0, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    """
    start_N = calendar_ms(np.asarray(start_ms_N, np.int64), bucket_ms=bucket_ms, timezone=timezone)
    day_N = start_N // DAY_MS
    out_NC = np.zeros((start_N.size, N_CALENDAR), np.float32)
    rows = np.arange(start_N.size)
    if bucket_ms < DAY_MS:
        of_day_N = start_N % DAY_MS
        out_NC[rows, of_day_N // HOUR_MS] = 1.0
        angle_N = 2 * np.pi * (of_day_N % HOUR_MS) / HOUR_MS
        out_NC[:, _HOURS] = np.sin(angle_N)
        out_NC[:, _HOURS + 1] = np.cos(angle_N)
    column = _HOURS + 2
    if bucket_ms < WEEK_MS:
        out_NC[rows, column + (day_N + 3) % 7] = 1.0  # 1970-01-01 was a Thursday; Monday is 0

    dates_N = day_N.astype("datetime64[D]")
    year_N = dates_N.astype("datetime64[Y]")
    of_year_N = (dates_N - year_N.astype("datetime64[D]")).astype(np.int64)
    column = _FIRST_YEAR
    for k in range(1, _YEAR_HARMONICS + 1):
        angle_N = 2 * np.pi * k * of_year_N / _YEAR_DAYS
        out_NC[:, column] = np.sin(angle_N)
        out_NC[:, column + 1] = np.cos(angle_N)
        column += 2
    _special_days(out_NC[:, column : column + _REST], day_N, of_year_N, year_N, country)
    if not year_terms:
        out_NC[:, YEAR_TERMS] = 0.0
    column += _REST
    out_NC[:, column] = 0.2 * np.log(bucket_ms / DAY_MS)
    out_NC[:, column + 1] = DAY_MS <= bucket_ms < WEEK_MS
    out_NC[:, column + 2] = bucket_ms >= WEEK_MS
    return out_NC


def _special_days(
    out_NR: NDArray[np.float32],
    day_N: NDArray[np.int64],
    of_year_N: NDArray[np.int64],
    year_N: NDArray[np.datetime64],
    country: str | None,
) -> None:
    """Fill the columns of holidays, Christmas to New Year, its run-up and the month's phase."""
    years_N = year_N.astype(np.int64) + 1970
    if country is not None:
        off = np.array(
            sorted(
                {
                    day
                    for year in range(int(years_N.min()) - 1, int(years_N.max()) + 2)
                    for day in days_off(country, year)
                }
            ),
            np.int64,
        )
        easter_N = np.isin(day_N - 2, off) & np.isin(day_N + 1, off) & ((day_N + 3) % 7 == 6)
        out_NR[:, 0] = np.isin(day_N, off) | easter_N  # the Sunday between Good Friday and Monday
        out_NR[:, 1] = np.isin(day_N + 1, off)
        out_NR[:, 2] = np.isin(day_N - 1, off)
    christmas_N = (
        (years_N - 1970).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
        + 358
        + ((years_N % 4 == 0) & ((years_N % 100 != 0) | (years_N % 400 == 0)))
    )
    until_N = christmas_N - day_N
    out_NR[:, 3] = (until_N <= 1) | (of_year_N < 3)  # 24 December to 3 January
    out_NR[:, 4] = (until_N >= 0) * np.exp(-np.maximum(until_N, 0) / 5.0)
    out_NR[:, 5] = (until_N >= 0) * np.exp(-np.maximum(until_N, 0) / 20.0)
    out_NR[:, 6] = np.exp(-of_year_N / 7.0)
    of_month_N = (
        day_N.astype("datetime64[D]")
        - day_N.astype("datetime64[D]").astype("datetime64[M]").astype("datetime64[D]")
    ).astype(np.int64)
    out_NR[:, 7] = np.sin(2 * np.pi * of_month_N / 30.44)
    out_NR[:, 8] = np.cos(2 * np.pi * of_month_N / 30.44)


def horizon_calendar(
    origin_ms_N: NDArray[np.int64], *, horizon: int, bucket_ms: int, country: str | None,
    year_terms: bool = False, timezone: str = UTC_ZONE,
) -> NDArray[np.float32]:  # fmt: skip
    """Features [N, H, C] of the `horizon` buckets from each origin on: calendar, then distance."""
    starts_NH = np.asarray(origin_ms_N, np.int64)[:, None] + bucket_ms * np.arange(horizon)
    flat = calendar_features(
        starts_NH.reshape(-1), bucket_ms=bucket_ms, country=country,
        year_terms=year_terms, timezone=timezone,
    )  # fmt: skip
    out_NHC = np.empty((*starts_NH.shape, N_HORIZON), np.float32)
    out_NHC[:, :, :N_CALENDAR] = flat.reshape(*starts_NH.shape, N_CALENDAR)
    out_NHC[:, :, N_CALENDAR:] = distances(horizon, bucket_ms)
    return out_NHC


def distances(horizon: int, bucket_ms: int) -> NDArray[np.float32]:
    """Features [H, 8] of how far ahead each bucket of the horizon is, in buckets and in days.

    >>> distances(24, HOUR_MS).shape
    (24, 8)
    """
    steps_H = np.arange(1, horizon + 1, dtype=np.float64)
    days_H = steps_H * bucket_ms / DAY_MS
    columns = (
        np.log(steps_H) / 4, 1 / steps_H, np.exp(-steps_H / 3), np.exp(-steps_H / 10),
        np.log1p(days_H) / 4, np.exp(-days_H), np.exp(-days_H / 7), np.exp(-days_H / 28),
    )  # fmt: skip
    return np.stack(columns, axis=1).astype(np.float32)
