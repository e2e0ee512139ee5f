"""Sums over the series of a partition, by the roll-up that they belong to. Pure.

Axes: S = series, G = roll-ups, H = horizon.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stream.series_ids import TOTAL, category_id, location_id, split_sku

Floats = NDArray[np.floating]


class RollupMembers:
    """The roll-ups of some series: `total`, and each one's category and location.

    `categories` are by SKU; a SKU without one belongs to no category.

    >>> members = RollupMembers(["A", "B@Berlin"], {"A": "Bags"})
    >>> members.names
    ['total', 'location:Berlin', 'category:Bags']
    >>> members.sums(np.array([[1.0], [2.0]])).ravel().tolist()
    [3.0, 2.0, 1.0]
    """

    def __init__(self, series: Sequence[str], categories: Mapping[str, str]) -> None:
        location_S, category_S = [], []
        for name in series:
            sku, location = split_sku(name)
            category = categories.get(sku)
            location_S.append(location_id(location) if location else "")
            category_S.append(category_id(category) if category else "")
        self.names = [TOTAL]
        self._groups: list[tuple[NDArray[np.int64], int]] = []
        for name_S in (location_S, category_S):
            names = sorted({name for name in name_S if name})
            place = {name: number for number, name in enumerate(names)}
            place_S = np.array([place.get(name, len(names)) for name in name_S], np.int64)
            self.names += names
            self._groups.append((place_S, len(names)))

    def sums(self, values_SH: Floats) -> NDArray[np.float64]:
        """Sums [G, H] in the order of `names`."""
        columns_HS = np.ascontiguousarray(values_SH.T, np.float64)
        rows = [columns_HS.sum(axis=1)[None]]
        for place_S, groups in self._groups:
            if groups:
                sums = [np.bincount(place_S, values_S, groups + 1) for values_S in columns_HS]
                rows.append(np.stack(sums, axis=1)[:groups])
        return np.concatenate(rows)
