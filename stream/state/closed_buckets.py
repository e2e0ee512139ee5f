"""Closed buckets in the store: values [S, F] to pages and back, the one place that knows both.

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
    """What to store of a closed bucket, by path.

    >>> [(path, len(page)) for path, page in closed_pages(60, np.ones((2, 11))).items()]
    [(('closed', 60), 80)]
    """
    return pages.cut(("closed", start_ms), pack_block(values_SF), PACKED_BYTES)


def closed_paths(start_ms: int, n_series: int) -> list[Path]:
    """Where the pages of a closed bucket lie, of a partition that has `n_series` by now."""
    return pages.paths(("closed", start_ms), n_series, PACKED_BYTES)


def closed_values(stored: Sequence[bytes | None]) -> Floats:
    """Values [S, F] out of the pages of `closed_paths`, of the slots the bucket had when it closed.

    >>> closed_values([None]).shape[0]
    0
    """
    return unpack_block(pages.joined(stored, PACKED_BYTES))


def closed_sums(stored: Sequence[bytes | None]) -> Floats:
    """The sums alone, as `closed_values`; read-only."""
    return stored_sums(pages.joined(stored, PACKED_BYTES))


def paste_closed(stored: Sequence[bytes | None], values_SF: Floats) -> None:
    """Write the pages of `closed_paths` over the first rows of `values_SF`, without a copy between.

    Rows that the bucket had none of stay as they are.
    """
    step = pages.rows_a_page(PACKED_BYTES)
    for first, page in zip(range(0, len(values_SF), step), stored, strict=False):
        if page:
            unpack_into(values_SF[first : first + step], page)


def pack_partial(rollups: Mapping[str, Sequence[int]]) -> bytes:
    """Whole-number sums by roll-up as they are stored beside a closed bucket.

    >>> unpack_partial(pack_partial({"total": [3, 0]}))
    {'total': [3, 0]}
    """
    return zlib.compress(json.dumps(rollups, separators=(",", ":")).encode(), 1)


def unpack_partial(stored: bytes | None) -> dict[str, list[int]]:
    """The inverse of `pack_partial`; nothing where nothing is stored."""
    return dict(json.loads(zlib.decompress(stored))) if stored else {}
