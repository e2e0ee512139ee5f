"""Stored format of closed buckets: values [S, F] to pages and back.

Axes: T = buckets, S = series slots, F = features.
"""

import json
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stream.features.packed_block import (
    PACKED_BYTES,
    pack_block,
    stored_sums,
    unpack_block,
    unpack_into,
)
from stream.state import pages
from stream.state.port import Path

Floats = NDArray[np.float32]


def closed_pages(start_ms: int, values_SF: Floats) -> dict[Path, bytes]:
    """Pages of a closed bucket, by path.

    >>> [(path, len(page)) for path, page in closed_pages(60, np.ones((2, 11))).items()]
    [(('closed', 60), 80)]
    """
    return pages.cut(("closed", start_ms), pack_block(values_SF), PACKED_BYTES)


def closed_paths(start_ms: int, n_series: int) -> list[Path]:
    """Paths of the pages of a closed bucket, in a partition of `n_series` series."""
    return pages.paths(("closed", start_ms), n_series, PACKED_BYTES)


def closed_values(stored: Sequence[bytes | None]) -> Floats:
    """Values [S, F] from the pages of `closed_paths`; S is the number of slots at the close.

    >>> closed_values([None]).shape[0]
    0
    """
    return unpack_block(pages.join(stored, PACKED_BYTES))


def closed_sums(stored: Sequence[bytes | None]) -> Floats:
    """Sums only, else as `closed_values`; read-only."""
    return stored_sums(pages.join(stored, PACKED_BYTES))


def paste_closed(stored: Sequence[bytes | None], values_SF: Floats) -> None:
    """Unpack the pages of `closed_paths` into the first rows of `values_SF`, without a copy.

    Rows of later slots stay unchanged.
    """
    step = pages.rows_per_page(PACKED_BYTES)
    for first, page in zip(range(0, len(values_SF), step), stored, strict=False):
        if page:
            unpack_into(values_SF[first : first + step], page)


def pack_partial(rollups: Mapping[str, Sequence[int]]) -> bytes:
    """Packed integer sums of a closed bucket by roll-up.

    >>> unpack_partial(pack_partial({"total": [3, 0]}))
    {'total': [3, 0]}
    """
    return zlib.compress(json.dumps(rollups, separators=(",", ":")).encode(), 1)


def unpack_partial(stored: bytes | None) -> dict[str, list[int]]:
    """The inverse of `pack_partial`; empty if nothing is stored."""
    return dict(json.loads(zlib.decompress(stored))) if stored else {}
