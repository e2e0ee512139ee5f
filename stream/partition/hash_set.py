"""A set of 64-bit hashes, probed and filled a batch at a time in numpy.

Open addressing with linear probing. A Python set costs some 85 bytes and two cache misses per
member; this one costs 11 to 32 bytes, and probes a batch in a few passes. Zero marks an empty cell,
so the hash 0 counts as 1.

Axes: N = hashes of a batch, K = hashes still pending.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Mask = NDArray[np.bool_]

#: 2⁶⁴ divided by the golden ratio, odd: spreads differences in any bits over the high bits (Knuth,
#: The Art of Computer Programming, volume 3, section 6.4).
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)
_ONE: Final = np.uint64(1)
_FIRST_BITS: Final = 12
#: A full table with at least this many bits doubles; a smaller one grows eightfold.
_LARGE_BITS: Final = 18
_FULL: Final = 0.7


def distinct(hash_N: Hashes) -> Hashes:
    """Distinct hashes of a batch, in rising order.

    >>> distinct(np.array([3, 1, 3], np.uint64)).tolist()
    [1, 3]
    """
    ordered_N = np.sort(hash_N)
    if len(ordered_N) < 2:
        return ordered_N
    first_N = np.empty(len(ordered_N), np.bool_)
    first_N[0] = True
    np.not_equal(ordered_N[1:], ordered_N[:-1], out=first_N[1:])
    return ordered_N[first_N]


class HashSet:
    """Set of 64-bit hashes.

    >>> seen = HashSet()
    >>> seen.add(np.array([7, 9, 7], np.uint64))
    >>> seen.contains(np.array([9, 8], np.uint64)).tolist(), len(seen)
    ([True, False], 2)
    """

    __slots__ = ("_cells", "_n", "_shift")

    def __init__(self) -> None:
        self._make(_FIRST_BITS)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._cells))

    @property
    def members(self) -> Hashes:
        """All hashes, in no particular order."""
        members: Hashes = self._cells[self._cells != 0]
        return members

    def contains(self, hash_N: Hashes) -> Mask:
        """Mask of the hashes that are in the set."""
        wanted_N = np.maximum(hash_N, _ONE)
        cell_N = self._home(wanted_N)
        found_N = self._cells[cell_N]
        found_mask_N: Mask = found_N == wanted_N
        pending_K = np.flatnonzero((found_N != 0) & ~found_mask_N)
        last = len(self._cells) - 1
        while len(pending_K):
            cell_K = (cell_N[pending_K] + 1) & last
            cell_N[pending_K] = cell_K
            found_K = self._cells[cell_K]
            match_K = found_K == wanted_N[pending_K]
            found_mask_N[pending_K[match_K]] = True
            pending_K = pending_K[(found_K != 0) & ~match_K]
        return found_mask_N

    def add(self, hash_N: Hashes) -> None:
        """Add hashes; duplicates change nothing."""
        if self._n + len(hash_N) > len(self._cells) * _FULL:
            self._grow(len(hash_N))
        self._n += len(hash_N)  # an upper bound: `_grow` counts again
        self._insert(np.maximum(hash_N, _ONE))

    def _insert(self, hash_K: Hashes) -> None:
        cells = self._cells
        cell_K = self._home(hash_K)
        last = len(cells) - 1
        while len(hash_K):
            free_K = cells[cell_K] == 0
            cells[cell_K[free_K]] = hash_K[free_K]  # of two at one cell, one stays
            pending_K = cells[cell_K] != hash_K
            hash_K = hash_K[pending_K]
            cell_K = (cell_K[pending_K] + 1) & last

    def _home(self, hash_N: Hashes) -> NDArray[np.int64]:
        return ((hash_N * _SPREAD) >> self._shift).view(np.int64)

    def _grow(self, n_more: int) -> None:
        members = self.members
        bits = len(self._cells).bit_length() - 1
        while (len(members) + n_more) > (1 << bits) * _FULL:
            bits += 1 if bits >= _LARGE_BITS else 3
        if 1 << bits > len(self._cells):
            self._make(bits)
            self._insert(members)
        self._n = len(members)

    def _make(self, bits: int) -> None:
        self._cells: Hashes = np.zeros(1 << bits, np.uint64)
        self._shift = np.uint64(64 - bits)
        self._n = 0
