"""What a field of an event must be, one rule for every input: times, names, numbers.

Axes: N = events of a batch, in log order.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import UnreadableEvent
from stream.series_ids import AT, is_rollup, join_series

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_QUANTITY: Final = 10**9
#: No line value above this (in units of the currency) enters a sum, so that no sum can overflow.
MAX_LINE_VALUE: Final = 10**10
#: No SKU, location, category or brand is longer.
MAX_NAME: Final = 200


def timestamp_ms(value: int | str, *, name: str = "ts") -> int:
    """Time in ms of an integer (ms) or an RFC 3339 string with an offset.

    Raises UnreadableEvent, which says the field's `name`, for anything else.

    >>> timestamp_ms("2011-11-01T00:00:00Z")
    1320105600000
    """
    if isinstance(value, int):
        return value
    try:
        moment = msgspec.convert(value, datetime, strict=False)
    except msgspec.ValidationError:
        raise UnreadableEvent("invalid_timestamp", f"{name} {value!r} is not RFC 3339") from None
    if moment.tzinfo is None:
        raise UnreadableEvent("invalid_timestamp", f"{name} {value!r} has no UTC offset")
    try:
        return round(moment.astimezone(UTC).timestamp() * 1000)
    except OverflowError:
        raise UnreadableEvent(
            "invalid_timestamp", f"{name} {value!r} is beyond the calendar"
        ) from None


def series_id(sku: str, location: str | None) -> str:
    """Series of a SKU at a location. Raises UnreadableEvent for names that would be ambiguous.

    >>> series_id("85123A", None), series_id("85123A", "Berlin")
    ('85123A', '85123A@Berlin')
    """
    if not sku or len(sku) > MAX_NAME or not sku.isprintable() or sku != sku.strip():
        raise UnreadableEvent(
            "invalid_sku", f"sku {sku[:60]!r} is empty, too long or not printable"
        )
    if AT in sku or is_rollup(sku):
        raise UnreadableEvent("invalid_sku", f"sku {sku[:60]!r} is reserved for series names")
    if location is None:
        return sku
    if not location or len(location) > MAX_NAME or not location.isprintable() or AT in location:
        raise UnreadableEvent("invalid_location", f"location {location[:60]!r} cannot be used")
    return join_series(sku, location)


def floats(numbers: Sequence[int]) -> Floats:
    """Integers as floats; those that no float can hold become infinite.

    >>> floats([3, -(10**400)]).tolist()
    [3.0, -inf]
    """
    try:
        return np.array(numbers, np.float64)
    except OverflowError:
        most = 2**1000
        held = [n if abs(n) < most else math.copysign(math.inf, n > 0 or -1) for n in numbers]
        return np.array(held, np.float64)


def event_times(raw: Sequence[int | str], latest_ms: int, bad: dict[int, UnreadableEvent]) -> Ints:
    """Event times in ms; places that have none, or one that cannot be true, go into `bad`."""
    try:
        if set(map(type, raw)) - {int}:
            raise ValueError
        time_N = np.array(raw, np.int64)
    except (ValueError, OverflowError):
        parsed = []
        for place, value in enumerate(raw):
            try:
                parsed.append(max(-(2**62), min(timestamp_ms(value), 2**62)))
            except UnreadableEvent as error:
                bad[place] = error
                parsed.append(0)
        time_N = np.array(parsed, np.int64)
    for place in np.flatnonzero((time_N > latest_ms) | (time_N < 0)).tolist():
        bad.setdefault(place, _untrue(int(time_N[place]), latest_ms))
    return time_N


def event_time_ms(raw: int | str, latest_ms: int) -> int:
    """Event time in ms. Raises UnreadableEvent for none, or one that cannot be true.

    >>> event_time_ms(-1, 10)
    Traceback (most recent call last):
        ...
    stream.errors.UnreadableEvent: future_timestamp: ts -1 is before 1970
    """
    time_ms = timestamp_ms(raw)
    if not 0 <= time_ms <= latest_ms:
        raise _untrue(time_ms, latest_ms)
    return time_ms


def _untrue(time_ms: int, latest_ms: int) -> UnreadableEvent:
    detail = f"ts {time_ms} is {time_ms - latest_ms} ms beyond window.future_tolerance"
    if time_ms < 0:
        detail = f"ts {time_ms} is before 1970"
    return UnreadableEvent("future_timestamp", detail)
