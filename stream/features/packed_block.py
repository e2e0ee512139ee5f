"""Byte layout of closed buckets, stored under ``closed``.

A row has 40 bytes: the nine sums as float32, then one 32-bit word of the stock. Its upper 24 bits
are the units on hand plus one (0 = unknown, larger stocks are clipped), its lower 8 bits the share
of the bucket without stock in 1/255. A row of zero bytes is a bucket without events and with
unknown stock, and a missing block stands for such rows only.

Axes: S = series slots, F = features in the order of `model.contract.FEATURE_NAMES`.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.features.definitions import N_FEATURES, N_SUMS, STOCK, STOCKOUT_SHARE

#: Bytes of an open bucket's row: the sums as int64.
ROW_BYTES = N_SUMS * 8

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_WORDS: Final = N_SUMS + 1
PACKED_BYTES: Final = 4 * _WORDS
_SHARE_BITS: Final = 8
_SHARE_TICKS: Final = (1 << _SHARE_BITS) - 1
#: Greatest storable units on hand.
MAX_ON_HAND: Final = (1 << 24) - 2
_SHARES: Final = (np.arange(_SHARE_TICKS + 1) / _SHARE_TICKS).astype(np.float32)


def stock_columns(stock_S: Ints, without_S: Ints, *, width_ms: int) -> Floats:
    """Return the stored stock columns [S, 2]: units on hand plus one, share without stock.

    `stock_S` is the units on hand at the bucket's end plus one, 0 if unknown; `without_S` is the
    time without stock in ms, which is rounded half up to 1/255 of the bucket.

    >>> stock_columns(np.array([0, 1, 8]), np.array([0, 60, 30]), width_ms=60).tolist()
    [[0.0, 0.0], [1.0, 1.0], [8.0, 0.50]]
    """
    ticks_S = (without_S * (2 * _SHARE_TICKS) + width_ms) // (2 * width_ms)
    columns_SC = np.empty((len(stock_S), 2), np.float32)
    columns_SC[:, 0] = np.minimum(stock_S, MAX_ON_HAND + 1)
    columns_SC[:, 1] = _SHARES[ticks_S]
    return columns_SC


def pack_block(values_SF: Floats) -> bytes:
    """Return the bytes of a closed bucket's rows [S, F]; the inverse of `unpack_block`.

    >>> len(pack_block(np.zeros((2, N_FEATURES), np.float32)))
    80
    """
    words_SW = np.empty((len(values_SF), _WORDS), "<u4")
    words_SW[:, :N_SUMS] = np.ascontiguousarray(values_SF[:, :N_SUMS], "<f4").view("<u4")
    ticks_S = np.rint(values_SF[:, STOCKOUT_SHARE] * _SHARE_TICKS).astype(np.uint32)
    words_SW[:, N_SUMS] = values_SF[:, STOCK].astype(np.uint32) << _SHARE_BITS | ticks_S
    return words_SW.tobytes()


def unpack_block(raw: bytes) -> Floats:
    """Return the rows [S, F] of a stored block.

    >>> values = np.array([[2, 0, 9.5, 1, 0, 0, 0, 0, 0, 8, 1 / 255]], np.float32)
    >>> (unpack_block(pack_block(values)) == values).all().item()
    True
    """
    values_SF = np.empty((len(raw) // PACKED_BYTES, N_FEATURES), np.float32)
    unpack_into(values_SF, raw)
    return values_SF


def unpack_into(values_SF: Floats, raw: bytes) -> None:
    """Write the rows of a stored block into the first rows of `values_SF`; drop extra rows."""
    sums_SW = np.frombuffer(raw, "<f4").reshape(-1, _WORDS)[: len(values_SF)]
    word_S = np.frombuffer(raw, "<u4").reshape(-1, _WORDS)[: len(values_SF), N_SUMS]
    rows = values_SF[: len(sums_SW)]
    rows[:, :N_SUMS] = sums_SW[:, :N_SUMS]
    if word_S.any():
        rows[:, STOCK] = word_S >> _SHARE_BITS
        rows[:, STOCKOUT_SHARE] = _SHARES[word_S & _SHARE_TICKS]
    else:
        rows[:, N_SUMS:] = 0.0


def stored_sums(raw: bytes) -> Floats:
    """Return the sums [S, 9] of a stored block, without a copy.

    >>> stored_sums(b"").shape
    (0, 9)
    """
    return np.frombuffer(raw, "<f4").reshape(-1, _WORDS)[:, :N_SUMS]
