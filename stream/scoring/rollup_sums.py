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
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        for group_S in (location_S, category_S):
            names, place_S = np.unique(np.array(group_S, object).astype(str), return_inverse=True)
            order_S = np.argsort(place_S, kind="stable")
            first_G = np.searchsorted(place_S[order_S], np.arange(len(names)))
            if len(names) and not names[0]:  # series of none come first
                beginning = int(first_G[1]) if len(names) > 1 else len(series)
                names, order_S = names[1:], order_S[beginning:]
                first_G = first_G[1:] - beginning
            self.names += names.tolist()
            self._parts.append((order_S, first_G))

    def sums(self, values_SH: Floats) -> NDArray[np.float64]:
        """Sums [G, H] in the order of `names`."""
        rows = [values_SH.sum(axis=0, dtype=np.float64)[None]]
        for order_S, first_G in self._parts:
            if first_G.size:
                rows.append(np.add.reduceat(values_SH[order_S], first_G, axis=0, dtype=np.float64))
        return np.concatenate(rows)
