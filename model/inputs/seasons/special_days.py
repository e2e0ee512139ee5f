"""Special days of a country: each public holiday by its name, and the days around it.

A **slot** stands for the same day of every year: two days before a holiday of one name, the day
before, the holiday itself, the day after. Movable feasts keep their slot. A day that belongs to
several is a holiday first, then the eve of one, then the day after, then two days before.

Axes: X = any shape, D = days.
"""

import warnings
from collections import Counter
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS, WEEK_MS

#: Days from the holiday of the slots of one name, the strongest claim first.
OFFSETS: Final = (0, -1, 1, -2)
_TEXTS: Final = {0: "", -1: "day before ", 1: "day after ", -2: "two days before "}
#: Names with slots; a country's rarer ones have none.
NAMES: Final = 16
N_SLOTS: Final = NAMES * len(OFFSETS)
NO_SLOT: Final = -1
#: Years by which the names are counted, so that their order does not depend on the data.
_COUNTED: Final = range(1995, 2035)


@lru_cache(maxsize=512)
def days_off(country: str, year: int) -> dict[int, str]:
    """Names of the public holidays of a country's year, by day since 1970.

    Of two holidays on one day the first counts; a substitute day has a name of its own.
    Raises NotImplementedError (from `holidays`) for an unknown country.

    >>> sorted(days_off("GB", 2024).values())[:3]
    ['Boxing Day', 'Christmas Day', 'Easter Monday']
    """
    import holidays  # slow to import; only needed with a configured country

    subdivision = "ENG" if country == "GB" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # years before a calendar begins; lunar ones are estimates
        found = holidays.country_holidays(country, subdiv=subdivision, years=year)
    return {
        int(np.datetime64(day).astype(np.int64)): name.split(";")[0].strip()
        for day, name in found.items()
    }


@lru_cache(maxsize=16)
def named(country: str) -> dict[str, int]:
    """Number of each of a country's most frequent holidays, below `NAMES`.

    >>> sorted(named("CZ"))[:2]
    ['Christmas Day', 'Christmas Eve']
    """
    count = Counter(name for year in _COUNTED for name in set(days_off(country, year).values()))
    order = sorted(count, key=lambda name: (-count[name], name))
    return {name: number for number, name in enumerate(order[:NAMES])}


def slots(
    start_ms_X: NDArray[np.int64], *, bucket_ms: int, country: str | None
) -> NDArray[np.int64]:
    """Slot of the day on which each bucket starts, `NO_SLOT` for most; none for weeks or longer.

    >>> days = np.array(["2024-11-27", "2024-11-28", "2025-11-27"], "datetime64[ms]")
    >>> eve, thanksgiving, next = slots(days.astype(np.int64), bucket_ms=DAY_MS, country="US")
    >>> bool(eve != thanksgiving), bool(thanksgiving == next)
    (True, True)
    """
    if country is None or bucket_ms >= WEEK_MS or not start_ms_X.size:
        return np.full(start_ms_X.shape, NO_SLOT)
    day_X = start_ms_X // DAY_MS
    first, last = int(day_X.min()), int(day_X.max())
    return _table(country, first // 512, last // 512 + 1)[day_X - first // 512 * 512]


def day_names(
    start_ms_X: NDArray[np.int64], *, bucket_ms: int, country: str | None
) -> tuple[str, ...]:
    """Name of the special day on which each bucket starts, "" for usual days.

    Public holidays too rare for a slot are named as well.

    >>> days = np.array(["2024-12-24", "2024-12-25", "2024-12-28"], "datetime64[ms]")
    >>> day_names(days.astype(np.int64), bucket_ms=DAY_MS, country="GB")
    ('day before Christmas Day', 'Christmas Day', '')
    """
    if country is None or bucket_ms >= WEEK_MS:
        return ("",) * len(start_ms_X)
    names = list(named(country))
    found = []
    for day, slot in zip(
        (start_ms_X // DAY_MS).tolist(),
        slots(start_ms_X, bucket_ms=bucket_ms, country=country).tolist(),
        strict=True,
    ):
        year = 1970 + int(np.datetime64(day, "D").astype("datetime64[Y]").astype(np.int64))
        name = days_off(country, year).get(day, "")
        if not name and slot != NO_SLOT:
            name = _TEXTS[OFFSETS[slot % len(OFFSETS)]] + names[slot // len(OFFSETS)]
        found.append(name)
    return tuple(found)


@lru_cache(maxsize=64)
def _table(country: str, first: int, end: int) -> NDArray[np.int64]:
    """Slots [D] of the days from 512 · `first` to 512 · `end`."""
    low, high = 512 * first, 512 * end
    slot_D = np.full(high - low, NO_SLOT)
    numbers = named(country)
    years = (np.array([low - 3, high + 3]).astype("datetime64[D]")).astype("datetime64[Y]")
    span = range(*(years.astype(np.int64) + 1970 + np.array([0, 1])).tolist())
    days = {day: name for year in span for day, name in days_off(country, year).items()}
    for claim, offset in reversed(list(enumerate(OFFSETS))):
        for day, name in days.items():
            if name in numbers and low <= day + offset < high:
                slot_D[day + offset - low] = numbers[name] * len(OFFSETS) + claim
    return slot_D
