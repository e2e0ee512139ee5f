"""Rules for the fields of input records: times, names, numbers.

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
#: Greatest value of an order line in units of the currency, so that no sum can overflow.
MAX_LINE_VALUE: Final = 10**10
#: Greatest length of a SKU, location, category or brand.
MAX_NAME: Final = 200


def timestamp_ms(value: int | str, *, name: str = "ts") -> int:
    """Return the time in ms of an integer (ms) or an RFC 3339 string with an offset.

    Raises UnreadableEvent, with the field's `name`, for anything else.

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
            "invalid_timestamp", f"{name} {value!r} is outside the years 1 to 9999"
        ) from None


def series_id(sku: str, location: str | None) -> str:
    """Return the series id of a SKU at a location. Raises UnreadableEvent for invalid names.

    >>> series_id("85123A", None), series_id("85123A", "Berlin")
    ('85123A', '85123A@Berlin')
    """
    if not sku or len(sku) > MAX_NAME or not sku.isprintable() or sku != sku.strip():
        raise UnreadableEvent(
            "invalid_sku",
            f"sku {sku[:60]!r} is empty, padded, not printable or longer than {MAX_NAME}",
        )
    if AT in sku or is_rollup(sku):
        raise UnreadableEvent("invalid_sku", f"sku {sku[:60]!r} is reserved for series names")
    if location is None:
        return sku
    if not location or len(location) > MAX_NAME or not location.isprintable() or AT in location:
        raise UnreadableEvent(
            "invalid_location",
            f"location {location[:60]!r} is empty, not printable, longer than {MAX_NAME} "
            f"or contains {AT!r}",
        )
    return join_series(sku, location)


def require_name(kind: str, name: str) -> None:
    r"""Raise UnreadableEvent, with reason `invalid_{kind}`, for a name that nobody can print.

    >>> require_name("category", "bags")
    >>> require_name("category", "a" + chr(7))
    Traceback (most recent call last):
        ...
    stream.errors.UnreadableEvent: invalid_category: category 'a\x07' is not printable
    """
    if len(name) > MAX_NAME:
        raise UnreadableEvent(
            f"invalid_{kind}",
            f"{kind} {name[:60]!r} has {len(name)} characters, the limit is {MAX_NAME}",
        )
    if not name.isprintable():
        raise UnreadableEvent(f"invalid_{kind}", f"{kind} {name[:60]!r} is not printable")


def floats(numbers: Sequence[int]) -> Floats:
    """Return integers as floats; integers beyond their range become infinite.

    >>> floats([3, -(10**400)]).tolist()
    [3.0, -inf]
    """
    try:
        return np.array(numbers, np.float64)
    except OverflowError:
        limit = 2**1000
        finite = [n if abs(n) < limit else math.copysign(math.inf, n > 0 or -1) for n in numbers]
        return np.array(finite, np.float64)


def event_times(raw: Sequence[int | str], latest_ms: int, bad: dict[int, UnreadableEvent]) -> Ints:
    """Return event times in ms; adds invalid times and those after `latest_ms` to `bad`, by index.

    Times before 1970 are invalid.
    """
    try:
        if set(map(type, raw)) - {int}:
            raise ValueError
        time_N = np.array(raw, np.int64)
    except (ValueError, OverflowError):
        parsed = []
        for i, value in enumerate(raw):
            try:
                parsed.append(max(-(2**62), min(timestamp_ms(value), 2**62)))
            except UnreadableEvent as error:
                bad[i] = error
                parsed.append(0)
        time_N = np.array(parsed, np.int64)
    for i in np.flatnonzero((time_N > latest_ms) | (time_N < 0)).tolist():
        bad.setdefault(i, _time_fault(int(time_N[i]), latest_ms))
    return time_N


def event_time_ms(raw: int | str, latest_ms: int) -> int:
    """Return an event time in ms. Raises UnreadableEvent if invalid or after `latest_ms`.

    >>> event_time_ms(-1, 10)
    Traceback (most recent call last):
        ...
    stream.errors.UnreadableEvent: future_timestamp: ts -1 is before 1970
    """
    time_ms = timestamp_ms(raw)
    if not 0 <= time_ms <= latest_ms:
        raise _time_fault(time_ms, latest_ms)
    return time_ms


def out_of_range(name: str, value: float, limit: float) -> UnreadableEvent:
    """Return the fault of a number that is not finite or exceeds its limit.

    >>> print(out_of_range("quantity", 10**12, MAX_QUANTITY))
    out_of_range: quantity 1000000000000 exceeds the limit of 1000000000
    """
    if isinstance(value, float) and not math.isfinite(value):
        return UnreadableEvent("out_of_range", f"{name} {value} is not a finite number")
    return UnreadableEvent("out_of_range", f"{name} {value} exceeds the limit of {limit}")


def _time_fault(time_ms: int, latest_ms: int) -> UnreadableEvent:
    past_ms = time_ms - latest_ms
    detail = f"ts {time_ms} exceeds the limit of window.future_tolerance by {past_ms} ms"
    if time_ms < 0:
        detail = f"ts {time_ms} is before 1970"
    return UnreadableEvent("future_timestamp", detail)
