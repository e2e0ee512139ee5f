"""Calendar of a task's buckets as trees read it: whole numbers instead of one-hot columns.

It is the peers' own, so that a change of the product's calendar does not change their forecasts;
both know the public holidays of the task's country.

Axes: T = buckets, D = days, C = columns.
"""

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.panel_list import MONTH_MS
from model.durations import DAY_MS, HOUR_MS, WEEK_MS

_AROUND_DAYS = 40


def tree_calendar(
    start_ms: int, *, bucket_ms: int, buckets: int, country: str | None
) -> NDArray[np.float32]:
    """Columns [T, C]: hour, weekday, day of the month, of the year, holidays, days to Christmas.

    Those that say nothing at this width are left out. Holidays are the days off in the bucket, and
    in as many days after and before it.

    >>> eve = 359 * DAY_MS  # 1970-12-26
    >>> tree_calendar(eve, bucket_ms=DAY_MS, buckets=1, country="GB").tolist()
    [[5.0, 26.0, 359.0, 1.0, 0.0, 1.0, -1.0]]
    """
    at_T = start_ms + bucket_ms * np.arange(buckets, dtype=np.int64)
    first_T = at_T // DAY_MS
    end_T = np.maximum(-(-(at_T + bucket_ms) // DAY_MS), first_T + 1)
    middle_T = (at_T + bucket_ms // 2) // DAY_MS
    date_T = middle_T.astype("datetime64[D]")
    of_year_T = middle_T - date_T.astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
    of_month_T = middle_T - date_T.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    columns = []
    if bucket_ms < DAY_MS:
        columns.append(at_T % DAY_MS // HOUR_MS)
    if bucket_ms < WEEK_MS:
        columns += [(first_T + 3) % 7, of_month_T + 1]
    columns.append(at_T // bucket_ms % 12 if bucket_ms == MONTH_MS else of_year_T)
    days = np.arange(first_T[0] - _AROUND_DAYS, end_T[-1] + _AROUND_DAYS)
    off_D = np.concatenate(([0], np.cumsum(_days_off(days, country))))

    def holidays(from_T: NDArray[np.int64], to_T: NDArray[np.int64]) -> NDArray[np.int64]:
        between_T: NDArray[np.int64] = off_D[to_T - days[0]] - off_D[from_T - days[0]]
        return between_T

    width_T = end_T - first_T
    columns += [
        holidays(first_T, end_T),
        holidays(end_T, end_T + width_T),
        holidays(first_T - width_T, first_T),
        np.clip(_christmas(date_T) - middle_T, -10, _AROUND_DAYS),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _days_off(days_D: NDArray[np.int64], country: str | None) -> NDArray[np.int64]:
    """1 for the public holidays among days since 1970, else 0."""
    if country is None:
        return np.zeros(days_D.size, np.int64)
    import holidays

    dates = days_D.astype("datetime64[D]")
    years = sorted({int(year) + 1970 for year in dates.astype("datetime64[Y]").astype(np.int64)})
    known = holidays.country_holidays(
        country, subdiv="ENG" if country == "GB" else None, years=years
    )
    return np.array([day in known for day in dates.tolist()], np.int64)


def _christmas(date_T: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """25 December of each date's year, in days since 1970."""
    december_T = date_T.astype("datetime64[Y]").astype("datetime64[M]") + 11
    christmas_T: NDArray[np.int64] = december_T.astype("datetime64[D]").astype(np.int64) + 24
    return christmas_T
