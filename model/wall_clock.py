"""Wall clocks of time zones: the local time of instants, for whole arrays at once.

Local times are milliseconds since 1970 as if the wall clock were UTC; its offset is looked up in a
table of the zone's transitions.

Axes: X = any shape, T = transitions.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS
from model.time_zones import UTC_ZONE

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Transitions are looked for in these days since 1970, to the year 2100; outside, clocks stand.
_DAYS: Final = 47_482
_DAY_S: Final = 86_400


def wall_clock_ms(at_ms_X: NDArray[np.int64], timezone: str) -> NDArray[np.int64]:
    """Local times of instants. Raises KeyError (from `zoneinfo`) for an unknown zone.

    >>> winter, summer = (np.datetime64(f"2024-{month}-15T12:00", "ms") for month in ("01", "07"))
    >>> both = np.array([winter, summer]).astype(np.int64)
    >>> ((wall_clock_ms(both, "America/New_York") - both) // 3_600_000).tolist()
    [-5, -4]
    """
    if timezone == UTC_ZONE:
        return at_ms_X
    from_ms_T, offset_ms_T = _transitions(timezone)
    local_ms_X: NDArray[np.int64] = (
        at_ms_X + offset_ms_T[np.searchsorted(from_ms_T, at_ms_X, side="right")]
    )
    return local_ms_X


def calendar_ms(
    start_ms_X: NDArray[np.int64], *, bucket_ms: int, timezone: str
) -> NDArray[np.int64]:
    """Starts of buckets as the calendar reads them: local, but days and longer buckets as they are.

    A day of a stream is a UTC day and most of it is the local day of that date; a day of a file is
    the shop's own already.

    >>> midnight = np.zeros(1, np.int64)
    >>> calendar_ms(midnight, bucket_ms=DAY_MS, timezone="Asia/Tokyo").item()
    0
    """
    return start_ms_X if bucket_ms >= DAY_MS else wall_clock_ms(start_ms_X, timezone)


@lru_cache(maxsize=32)
def _transitions(timezone: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Instants [T] at which the offset of a zone changes, and the offsets [T + 1] between them."""
    zone = ZoneInfo(timezone)

    def offset_s(at_s: int) -> int:
        offset = (_EPOCH + timedelta(seconds=at_s)).astimezone(zone).utcoffset()
        return 0 if offset is None else round(offset.total_seconds())

    at_midnight = [offset_s(day * _DAY_S) for day in range(_DAYS)]
    from_s = []
    for day in range(_DAYS - 1):
        if at_midnight[day] == at_midnight[day + 1]:
            continue
        before, after = day * _DAY_S, (day + 1) * _DAY_S
        while after - before > 1:
            middle = (before + after) // 2
            if offset_s(middle) == at_midnight[day]:
                before = middle
            else:
                after = middle
        from_s.append(after)
    offsets_s = [at_midnight[0], *(offset_s(at_s) for at_s in from_s)]
    return 1_000 * np.array(from_s, np.int64), 1_000 * np.array(offsets_s, np.int64)
