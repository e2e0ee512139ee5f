"""Durations in milliseconds, the time unit of the whole product."""

from typing import Final

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
WEEK_MS: Final = 7 * DAY_MS
#: Width of a nominal month, 1/12 of a mean Gregorian year; month k since 1970 begins at k of these.
MONTH_MS: Final = 2_629_746_000
