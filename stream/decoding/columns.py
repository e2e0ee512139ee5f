"""Decoded batches: readable events as columns, and the refused records.

Axes: N = readable events of the batch, in log order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.decoding.refusals import Refused

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(slots=True)
class Columns:
    """Readable events of a batch as columns, and the refused records.

    `position_N` is an event's position in the batch, `series_N` its series id, `id_hash_N` the
    64-bit hash of its `event_id`.
    """

    position_N: Ints
    event_time_N: Ints
    series_N: Sequence[str]
    id_hash_N: NDArray[np.uint64]
    refused: list[Refused]

    def __len__(self) -> int:
        return len(self.id_hash_N)


@dataclass(slots=True)
class OrderColumns(Columns):
    """Order lines: quantities in units, prices in units of the currency."""

    quantity_N: Ints
    price_N: Floats


@dataclass(slots=True)
class ClickColumns(Columns):
    """Clicks: the feature column that counts each, and the visitor (None if unknown)."""

    column_N: Ints
    visitor_N: Sequence[str | None]
