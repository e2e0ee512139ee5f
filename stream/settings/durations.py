"""Types of the settings: sections, time zones, durations such as ``250ms``, ``15m``, ``28d``."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from model.durations import DAY_MS, HOUR_MS, MINUTE_MS, MONTH_MS
from model.time_zones import require_zone

_LONGEST_MS: Final = 36_525 * DAY_MS
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}


def duration_ms(text: str | int) -> int:
    """Parse a duration such as ``15m``; return ms. A plain integer is in ms.

    Raises ValueError for anything else.

    >>> duration_ms("1h"), duration_ms("250ms"), duration_ms(40)
    (3600000, 250, 40)
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d+(?=\s*[a-z]))?)\s*(ms|s|m|h|d|)\s*", str(text))
    if not match:
        raise ValueError(f"{text!r} is not a duration; write 250ms, 30s, 15m, 1h or 28d")
    width = round(float(match[1]) * _UNIT_MS[match[2] or "ms"])
    if width > _LONGEST_MS:
        raise ValueError(f"{text!r} is more than 100 years")
    return width


def duration_text(milliseconds: int) -> str:
    """Return the shortest exact text of a duration; that of a nominal month is its name.

    >>> duration_text(3_600_000), duration_text(90_000), duration_text(MONTH_MS)
    ('1h', '90s', '1 month')
    """
    if milliseconds == MONTH_MS:
        return "1 month"
    for unit in ("d", "h", "m", "s"):
        if milliseconds and milliseconds % _UNIT_MS[unit] == 0:
            return f"{milliseconds // _UNIT_MS[unit]}{unit}"
    return f"{milliseconds}ms"


DurationMs = Annotated[int, BeforeValidator(duration_ms)]


def at_least(least_ms: int) -> AfterValidator:
    """Return a validator of durations that refuses shorter ones.

    >>> at_least(1_000).func(500)
    Traceback (most recent call last):
        ...
    ValueError: 500ms is too short; write 1s or more
    """

    def check(width_ms: int) -> int:
        if width_ms < least_ms:
            raise ValueError(
                f"{duration_text(width_ms)} is too short; write {duration_text(least_ms)} or more"
            )
        return width_ms

    return AfterValidator(check)


#: A duration of 1 ms at least.
PositiveMs = Annotated[DurationMs, at_least(1)]


def _bucket_ms(text: str | int) -> int:
    width = duration_ms(text)
    if not MINUTE_MS <= width <= DAY_MS or DAY_MS % width:
        raise ValueError(f"{text!r} is not between 1m and 1d, or does not divide a day evenly")
    return width


BucketMs = Annotated[int, BeforeValidator(_bucket_ms)]
TimeZone = Annotated[str, AfterValidator(require_zone)]


class Section(BaseModel):
    """A section of the settings: frozen; an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
