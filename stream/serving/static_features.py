"""Static features of series, from the catalog and the series id.

The catalog describes SKUs; the location is part of the series id. A roll-up has the feature that it
adds up: `category:bags` has a category, `location:Berlin` a location.

Axes: S = series, X = static columns.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import redis
from numpy.typing import NDArray

from model.inputs.static_features import N_STATIC, launch_day, row_of
from stream.decoding.catalog import Listing
from stream.series_ids import level_of, rollup_name, split_sku
from stream.state import keys
from stream.state.keys import Tag
from stream.state.redis import translate_store_errors
from stream.topics import CATALOG

Floats = NDArray[np.float32]

#: Returns the static features [S, X] of some series of a partition.
StaticReader = Callable[[Tag, Sequence[str]], Floats]
#: Field of a partition's `meta` that changes with its part of the catalog.
_OFFSET: Final = f"offset:{CATALOG.name}"
_NO_LISTINGS: Final[Mapping[str, Listing]] = {}
#: Static features of no series.
NOTHING_S0 = np.zeros((0, N_STATIC), np.float32)


def static_features(
    series: Sequence[str],
    categories: Mapping[str, str],
    listings: Mapping[str, Listing] = _NO_LISTINGS,
) -> Floats:
    """Static features [S, X] of series from the catalog; zero where unknown.

    >>> series = ["A@Berlin", "category:bags", "location:Berlin", "B"]
    >>> known = static_features(series, {"A": "bags"})
    >>> (known[0, :2] == (known[1, 0], known[2, 1])).tolist(), known[3].tolist()
    ([True, True], [0.0, 0.0, 0.0, 0.0, 0.0])
    """
    category_S, location_S = [], []
    static_SX = np.zeros((len(series), N_STATIC), np.float32)
    row_of_name: dict[tuple[str, str | None], int] = {}

    def row(kind: str, name: str | None) -> int:
        found = row_of_name.get((kind, name))
        if found is None:
            found = row_of_name[kind, name] = row_of(kind, name)
        return found

    for slot, name in enumerate(series):
        level = level_of(name)
        category = location = None
        if level == "category":
            category = rollup_name(name)
        elif level == "location":
            location = rollup_name(name)
        else:
            sku, location = split_sku(name)
            category = categories.get(sku)
            listing = listings.get(sku)
            if listing is not None:
                brand, price, day = row("brand", listing.brand), listing.price, listing.launched_ms
                static_SX[slot, 2:] = brand, price or 0.0, launch_day(day)
        category_S.append(row("category", category))
        location_S.append(row("location", location))
    static_SX[:, 0], static_SX[:, 1] = category_S, location_S
    return static_SX


def stored_categories(client: redis.Redis, tag: Tag) -> dict[str, str]:
    """Category of each SKU of a partition, where the catalog has one."""
    found: Any = client.hgetall(keys.of(tag, "categories"))
    return {sku.decode(): name.decode() for sku, name in found.items()}


def read_categories(client: redis.Redis, tag: Tag) -> tuple[object, Callable[[], dict[str, str]]]:
    """A version that changes with the catalog of a partition, and a reader of its categories."""
    with translate_store_errors():
        version: Any = client.hget(keys.of(tag, "meta"), _OFFSET)

    def read() -> dict[str, str]:
        with translate_store_errors():
            return stored_categories(client, tag)

    return version, read


def stored_listings(client: redis.Redis, tag: Tag) -> dict[str, Listing]:
    """Brand, price and launch of each SKU of a partition that has a catalog entry."""
    found: Any = client.hgetall(keys.of(tag, "listings"))
    return {sku.decode(): Listing.read(stored) for sku, stored in found.items()}


def static_reader(client: redis.Redis) -> StaticReader:
    """Return a reader of static features from the stored catalog.

    A call reads one short field; the catalog is read for new series, and again after the
    partition has consumed further catalog records.
    """
    known: dict[Tag, tuple[bytes | None, list[str], Floats]] = {}

    def read(tag: Tag, series: Sequence[str]) -> Floats:
        with translate_store_errors():
            found: Any = client.hget(keys.of(tag, "meta"), _OFFSET)
            offset, names, static_SX = known.get(tag, (None, [], NOTHING_S0))
            if offset != found or names != series[: len(names)]:
                names, static_SX = [], NOTHING_S0
            if len(names) < len(series):
                more_SX = static_features(
                    series[len(names) :],
                    stored_categories(client, tag),
                    stored_listings(client, tag),
                )
                static_SX = np.concatenate((static_SX, more_SX))
            known[tag] = found, list(series), static_SX
            return static_SX[: len(series)]

    return read
