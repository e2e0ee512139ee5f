"""The grammar of series ids: `sku`, `sku@location`, and the roll-ups.

A roll-up is `total`, `category:NAME` or `location:NAME`. All series ids are built and split here;
`stream.decoding.fields` decides which names an event may use.
"""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Level = Literal["sku", "category", "location", "total"]

TOTAL: Final = "total"
AT: Final = "@"
_CATEGORY: Final = "category:"
_LOCATION: Final = "location:"


def join_series(sku: str, location: str | None) -> str:
    """Return the series id of a SKU, at a location if there is one.

    >>> join_series("85123A", "Berlin"), join_series("85123A", None)
    ('85123A@Berlin', '85123A')
    """
    return f"{sku}{AT}{location}" if location else sku


def split_series(series_id: str) -> tuple[str | None, str | None]:
    """Return SKU and location of a series id; both None for a roll-up.

    >>> split_series("85123A@Berlin"), split_series("85123A"), split_series("category:Bags")
    (('85123A', 'Berlin'), ('85123A', None), (None, None))
    """
    return (None, None) if is_rollup(series_id) else split_sku(series_id)


def split_sku(series_id: str) -> tuple[str, str | None]:
    """Return SKU and location of a series id that is not a roll-up.

    >>> split_sku("85123A@Berlin"), split_sku("85123A")
    (('85123A', 'Berlin'), ('85123A', None))
    """
    sku, _, location = series_id.partition(AT)
    return sku, location or None


def category_id(name: str) -> str:
    """Return the series id of a category's roll-up.

    >>> category_id("Bags")
    'category:Bags'
    """
    return f"{_CATEGORY}{name}"


def location_id(name: str) -> str:
    """Return the series id of a location's roll-up.

    >>> location_id("Berlin")
    'location:Berlin'
    """
    return f"{_LOCATION}{name}"


def is_rollup(series_id: str) -> bool:
    """True if a series id is a roll-up, a sum over series.

    >>> [is_rollup(name) for name in ("total", "category:Bags", "location:Berlin", "85123A")]
    [True, True, True, False]
    """
    return series_id == TOTAL or series_id.startswith((_CATEGORY, _LOCATION))


def level_of(series_id: str) -> Level:
    """Return the level of aggregation of a series.

    >>> level_of("total"), level_of("category:Toys"), level_of("85123A@DE")
    ('total', 'category', 'sku')
    """
    if series_id == TOTAL:
        return "total"
    if series_id.startswith(_CATEGORY):
        return "category"
    return "location" if series_id.startswith(_LOCATION) else "sku"


def rollup_name(series_id: str) -> str:
    """Return the category or location of a roll-up.

    >>> rollup_name("category:Garden: tools")
    'Garden: tools'
    """
    return series_id.partition(":")[2]


def rollups_of(series: Sequence[str]) -> NDArray[np.int64]:
    """Return the positions of the roll-ups in a list of series ids.

    >>> rollups_of(["85123A", "total", "category:garden"]).tolist()
    [1, 2]
    """
    return np.array([i for i, name in enumerate(series) if is_rollup(name)], np.int64)
