"""Names of time zones: IANA names such as Europe/Berlin. `wall_clock.py` has their clocks."""

from typing import Final
from zoneinfo import ZoneInfo

#: The name of no shift at all.
UTC_ZONE: Final = "UTC"


def require_zone(name: str) -> str:
    """The name of a time zone. Raises ValueError for an unknown one.

    >>> require_zone("Asia/Tokyo")
    'Asia/Tokyo'
    """
    try:
        ZoneInfo(name)
    except (ValueError, KeyError, OSError):  # a path, an unknown name, a folder of zones
        raise ValueError(
            f"{name!r} is not a time zone; write an IANA name such as Europe/Berlin"
        ) from None
    return name
