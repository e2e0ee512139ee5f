"""Sums of one open bucket in memory, and its changes since the last flush.

A block is int64 [S, F]. Changes are tracked in pages: a flush writes a few bytes after a few events
and whole runs after many. Distinct visitors are counted with a set of (series, visitor) pairs,
exact but for collisions of pseudonyms.

Axes: N = events, S = slots, F = features.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stream.features.definitions import N_SUMS, VISITORS, add_clicks, add_orders
from stream.features.packed_block import ROW_BYTES
from stream.partition.hash_set import Hashes, HashSet, distinct

Ints = NDArray[np.int64]

PAGE_SLOTS = 64
#: Bits of a slot in a stored visit, below the pseudonym: a partition has at most 2²⁴ slots.
SLOT_BITS = 24


class OpenBucket:
    """Sums of one open bucket; grows with the number of slots.

    >>> bucket = OpenBucket(2)
    >>> bucket.add_orders(np.array([1]), np.array([3]), np.array([2.5]))
    >>> bucket.sums_SF[1, :4].tolist()
    [3, 0, 75000, 1]
    >>> [(offset, len(block)) for offset, block in bucket.unsaved_runs()]
    [(0, 144)]
    """

    def __init__(self, n_slots: int) -> None:
        self._capacity = max(PAGE_SLOTS, -(-n_slots // PAGE_SLOTS) * PAGE_SLOTS)
        self._sums = np.zeros((self._capacity, N_SUMS), np.int64)
        self._dirty = np.zeros(self._capacity // PAGE_SLOTS, np.bool_)
        self._n_slots = n_slots
        self.visitors = HashSet()
        self.unsaved_visitors: list[Hashes] = []

    @classmethod
    def from_bytes(cls, block: bytes, visitors: bytes, n_slots: int) -> "OpenBucket":
        """Restore an open bucket from its stored block and visits."""
        rows = np.frombuffer(block, "<i8").reshape(-1, N_SUMS)
        bucket = cls(max(n_slots, len(rows)))
        bucket._sums[: len(rows)] = rows
        bucket.visitors.add(np.frombuffer(visitors, "<u8"))
        return bucket

    @property
    def sums_SF(self) -> Ints:
        """Sums of all slots; money in ticks."""
        return self._sums[: self._n_slots]

    def grow(self, n_slots: int) -> None:
        """Add rows for series that are new since the bucket opened."""
        if n_slots > self._capacity:
            capacity = max(-(-n_slots // PAGE_SLOTS) * PAGE_SLOTS, 2 * self._capacity)
            sums = np.zeros((capacity, N_SUMS), np.int64)
            sums[: self._capacity] = self._sums
            dirty = np.zeros(capacity // PAGE_SLOTS, np.bool_)
            dirty[: len(self._dirty)] = self._dirty
            self._sums, self._dirty, self._capacity = sums, dirty, capacity
        self._n_slots = max(self._n_slots, n_slots)

    def add_orders(self, slot_N: Ints, quantity_N: Ints, price_N: NDArray[np.float64]) -> None:
        """Count order lines."""
        add_orders(self._sums, slot_N, quantity_N, price_N)
        self._dirty[slot_N // PAGE_SLOTS] = True

    def add_clicks(self, slot_N: Ints, column_N: Ints) -> None:
        """Count clicks by action."""
        add_clicks(self._sums, slot_N, column_N)
        self._dirty[slot_N // PAGE_SLOTS] = True

    def add_visitors(self, slot_N: Ints, visitor_N: Ints) -> None:
        """Count visitors that are new to their series in this bucket, by 63-bit pseudonyms.

        A visit is one integer: the slot in the low bits, the high bits of the pseudonym above.
        Two visitors of one series and bucket count as one with a probability of 2⁻³⁹.
        """
        visits = (visitor_N >> SLOT_BITS << SLOT_BITS | slot_N).view(np.uint64)
        distinct_V = distinct(visits)
        fresh_V = distinct_V[~self.visitors.contains(distinct_V)]
        if len(fresh_V):
            self.visitors.add(fresh_V)
            self.unsaved_visitors.append(fresh_V)
            slot_V = (fresh_V & np.uint64((1 << SLOT_BITS) - 1)).view(np.int64)
            np.add.at(self._sums[:, VISITORS], slot_V, 1)

    def unsaved_runs(self) -> Iterator[tuple[int, bytes]]:
        """Yield byte offset and bytes of each run of changed pages, and mark them as saved."""
        pages = np.flatnonzero(self._dirty)
        if not len(pages):
            return
        self._dirty[:] = False
        for run in np.split(pages, np.flatnonzero(np.diff(pages) > 1) + 1):
            start = int(run[0]) * PAGE_SLOTS
            stop = min((int(run[-1]) + 1) * PAGE_SLOTS, self._n_slots)
            yield start * ROW_BYTES, self._sums[start:stop].tobytes()
