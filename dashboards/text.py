"""Formats numbers and times for the page: thousands separators, units, UTC."""

import math
from datetime import UTC, datetime

from model.durations import DAY_MS, HOUR_MS, MINUTE_MS
from stream.series_ids import TOTAL, is_rollup, rollup_name

MISSING = "–"


def number(value: float | None, *, digits: int = 0) -> str:
    """Format a number with thousands separators; a dash for None and NaN.

    >>> number(1234567.4), number(3.14159, digits=2), number(None), number(float("nan"))
    ('1,234,567', '3.14', '–', '–')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:,.{digits}f}"


def compact(value: float | None) -> str:
    """Format a number in three digits and a suffix; in full below ten thousand.

    >>> compact(987), compact(18_432), compact(123_456), compact(999_900), compact(43e6)
    ('987', '18.4 k', '123 k', '1.00 M', '43.0 M')
    >>> compact(4.26), compact(0), compact(None)
    ('4.3', '0', '–')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    size = abs(value)
    if size >= 10_000:
        unit, suffix = (1e6, "M") if size >= 999_500 else (1e3, "k")
        digits = 2 if size < 10 * unit else 1 if size < 100 * unit else 0
        return f"{value / unit:.{digits}f} {suffix}"
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}"


def figure(value: float | None, *, digits: int = 0) -> str:
    """Format a key figure: in full if it fits its tile.

    >>> figure(99_999), figure(123_456), figure(0.25, digits=2), figure(None)
    ('99,999', '123 k', '0.25', '–')
    """
    in_full = value is None or abs(value) < 100_000
    return number(value, digits=digits) if in_full else compact(value)


def signed(value: float) -> str:
    """Format a difference with its sign; the minus is U+2212.

    >>> signed(1234), signed(-56.4), signed(0.2)
    ('+1,234', '−56', '+0.2')
    """
    digits = 0 if abs(value) >= 10 or value == int(value) else 1
    return f"{'−' if value < 0 else '+'}{abs(value):,.{digits}f}"


def percent(share: float | None, *, digits: int = 1) -> str:
    """Format a share as per cent.

    >>> percent(0.0312), percent(None)
    ('3.1 %', '–')
    """
    if share is None or not math.isfinite(share):
        return MISSING
    return f"{100 * share:.{digits}f} %"


def change(now: float, before: float) -> str:
    """Format a relative change in whole per cent; empty if `before` is zero.

    >>> change(150, 100), change(50, 100), change(700, 100), change(942, 1), change(5, 0)
    ('+50 %', '−50 %', '×7.0', '×942', '')
    """
    if before <= 0:
        return ""
    ratio = now / before
    if ratio >= 4:
        return f"×{ratio:,.{1 if ratio < 20 else 0}f}"
    return f"{'−' if ratio < 1 else '+'}{abs(ratio - 1):.0%}".replace("%", " %")


def duration(ms: float | None) -> str:
    """Format a duration in a fitting unit.

    >>> duration(41), duration(1_630), duration(95_000), duration(7_500_000), duration(None)
    ('41 ms', '1.6 s', '95 s', '2.1 h', '–')
    """
    if ms is None or not math.isfinite(ms):
        return MISSING
    for limit, width, unit in ((1_000, 1, "ms"), (10_000, 1_000, "s"), (120_000, 1_000, "s")):
        if ms < limit:
            return f"{ms / width:.{1 if unit == 's' and ms < 10_000 else 0}f} {unit}"
    if ms < 2 * HOUR_MS:
        return f"{ms / MINUTE_MS:.0f} min"
    if ms < 2 * DAY_MS:
        return f"{ms / HOUR_MS:.1f} h"
    return f"{ms / DAY_MS:.1f} d"


def utc(ms: int | None, *, form: str = "%a %d %b %Y %H:%M") -> str:
    """Format a time in UTC, to the minute.

    >>> utc(1_322_582_400_000), utc(None)
    ('Tue 29 Nov 2011 16:00', '–')
    """
    if ms is None:
        return MISSING
    return datetime.fromtimestamp(ms / 1000, UTC).strftime(form)


def bucket_name(bucket_ms: int) -> str:
    """Name a bucket's width.

    >>> bucket_name(3_600_000), bucket_name(900_000), bucket_name(86_400_000)
    ('hour', '15 minutes', 'day')
    """
    names = {MINUTE_MS: "minute", HOUR_MS: "hour", DAY_MS: "day"}
    if bucket_ms in names:
        return names[bucket_ms]
    if bucket_ms % HOUR_MS == 0:
        return f"{bucket_ms // HOUR_MS} hours"
    return f"{bucket_ms // MINUTE_MS} minutes"


def series_title(series_id: str) -> str:
    """Return the heading of a series.

    >>> series_title("total"), series_title("category:garden"), series_title("85123A")
    ('All products', 'Garden', '85123A')
    """
    if series_id == TOTAL:
        return "All products"
    name = rollup_name(series_id) if is_rollup(series_id) else ""
    return name[0].upper() + name[1:] if name else series_id
