"""Slots of a partition's series, and the roll-ups that each series belongs to.

A slot is the row of a series in every block of the partition, and never changes. Roll-ups are
`total`, `category:…` (from the catalog, by SKU) and `location:…` (from the series id).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream.features.definitions import N_SUMS
from stream.series_ids import TOTAL, category_id, location_id, split_sku

Ints = NDArray[np.int64]

#: Group of a series without one; its sums go to a last row that is never read.
_NONE = -1


class SeriesIndex:
    """Slots of a partition's series, in order of appearance.

    >>> series = SeriesIndex()
    >>> series.slots(["A", "B@Berlin", "A"]).tolist()
    [0, 1, 0]
    >>> series.categorise("A", "Bags")
    >>> sums = np.ones((2, N_SUMS), np.int64)
    >>> {name: row[0] for name, row in series.rollups(sums).items()}
    {'total': 2, 'location:Berlin': 1, 'category:Bags': 1}
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.category_of: dict[str, str] = {}
        self._slots: dict[str, int] = {}
        self._slots_of: dict[str, list[int]] = {}
        self._groups: dict[str, int] = {}
        self._category: list[int] = []
        self._location: list[int] = []

    def __len__(self) -> int:
        return len(self.ids)

    def slots(self, series_N: Sequence[str]) -> Ints:
        """Slots [N] of series; new ones are appended."""
        known = self._slots
        try:
            return np.fromiter(map(known.__getitem__, series_N), np.int64, len(series_N))
        except KeyError:
            for name in dict.fromkeys(series_N):
                if name not in known:
                    self._append(name)
        return np.fromiter(map(known.__getitem__, series_N), np.int64, len(series_N))

    def has(self, sku: str) -> bool:
        """True if a SKU has a series, at any location or at none."""
        return sku in self._slots_of

    def categorise(self, sku: str, category: str) -> None:
        """Put a SKU into a category, from the next closed bucket on."""
        self.category_of[sku] = category
        for slot in self._slots_of.get(sku, ()):
            self._category[slot] = self._group(category_id(category))

    def rollups(self, sums_SF: Ints) -> dict[str, list[int]]:
        """Partial sums [F] by roll-up, without roll-ups that had no event."""
        total_F = sums_SF.sum(axis=0)
        if not total_F.any():
            return {}
        by_group = np.zeros((len(self._groups) + 1, N_SUMS), np.int64)
        for groups in (self._category, self._location):
            np.add.at(by_group, np.array(groups[: len(sums_SF)], np.int64), sums_SF)
        result = {TOTAL: total_F.tolist()}
        for name, group in self._groups.items():
            if by_group[group].any():
                result[name] = by_group[group].tolist()
        return result

    def _append(self, name: str) -> None:
        sku, location = split_sku(name)
        slot = self._slots[name] = len(self.ids)
        self.ids.append(name)
        self._slots_of.setdefault(sku, []).append(slot)
        category = self.category_of.get(sku)
        self._category.append(_NONE if category is None else self._group(category_id(category)))
        self._location.append(self._group(location_id(location)) if location else _NONE)

    def _group(self, name: str) -> int:
        return self._groups.setdefault(name, len(self._groups))
