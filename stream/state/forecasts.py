"""Stored format of forecasts: 16 bits per quantile, and 4 bytes for the band of a past bucket.

A forecast row is three float32 units (powers of two; one for the buckets, one for the running sums,
one for the means) and then float16 [2 × H × Q] and [H] in multiples of them: within 0.05 % of the
value, in the same order, without an upper bound. Each further target of the model has rows of its
own, of one such unit and [H × Q]; the header lists those targets. The band of a past bucket, which
only charts draw, is one word of three codes.

Axes: S = series slots, H = horizon, Q = quantiles.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.contract import QuantileForecast

Floats = NDArray[np.float32]
#: Buckets and running sums [..., H, Q], and means [..., H].
Blocks = tuple[Floats, Floats, Floats]

#: Quantiles of the one-step-ahead band, and its size in bytes.
BAND_QUANTILES: Final = (0.1, 0.5, 0.9)
BAND_BYTES: Final = 4

_UNIT: Final = 4
_HEADER: Final = 3 * _UNIT
_LARGEST: Final = 32_768.0
#: Least unit of the means, which may be tiny and still add up.
_LEAST_MEAN: Final = 2.0**-40
#: A band is three logarithmic codes; the largest means `_MOST` units, a word `_NO_BAND` no band.
_BITS: Final = 10
_MOST_CODE: Final = (1 << _BITS) - 1
_MOST: Final = 1e9
_FINENESS: Final = 8.0
_LOG_MOST: Final = float(np.log1p(_MOST * _FINENESS))
_NO_BAND: Final = 0xFFFFFFFF


def row_bytes(horizon: int, n_quantiles: int) -> int:
    """Bytes of one series' forecast.

    >>> row_bytes(24, 11)
    1116
    """
    return _HEADER + 4 * horizon * n_quantiles + 2 * horizon


def target_row_bytes(horizon: int, n_quantiles: int) -> int:
    """Bytes of one series' forecast of a further target.

    >>> target_row_bytes(24, 9)
    436
    """
    return _UNIT + 2 * horizon * n_quantiles


def pack_forecast(forecast: QuantileForecast) -> bytes:
    """Contiguous rows of all series."""
    return _pack(forecast.units_SHQ, forecast.cumulative_SHQ, forecast.mean_SH)


def pack_target(block_SHQ: Floats) -> bytes:
    """Contiguous rows of one further target, all series."""
    return _pack(block_SHQ)


def _pack(*blocks: Floats) -> bytes:
    """Rows of the units of all blocks, followed by their values."""
    size, at = len(blocks[0]), _UNIT * len(blocks)
    rows_SB = np.empty((size, at + sum(2 * block[0].size for block in blocks)), np.uint8)
    for number, values in enumerate(blocks):
        flat_SV = values.reshape(size, -1)
        unit_S = _units(flat_SV, least=1.0 if values.ndim > 2 else _LEAST_MEAN)
        if (unit_S != 1).any():
            flat_SV = flat_SV / unit_S[:, None]
        rows_SB[:, _UNIT * number : _UNIT * (number + 1)] = unit_S[:, None].view(np.uint8)
        end = at + 2 * flat_SV.shape[1]
        rows_SB[:, at:end] = flat_SV.astype("<f2").view(np.uint8)
        at = end
    return rows_SB.tobytes()


def unpack_forecast(row: bytes, *, horizon: int, n_quantiles: int) -> Blocks | None:
    """Buckets [H, Q], running sums [H, Q] and means [H] of one series.

    None if the row has another size.

    >>> units_SHQ = np.array([[[1.0, 2.0], [3.0, 9e6]]], np.float32)
    >>> mean_SH = np.array([[0.0, 1e-6]], np.float32)
    >>> row = pack_forecast(QuantileForecast(0, 1, (0.1, 0.9), units_SHQ, units_SHQ, mean_SH, ""))
    >>> units_HQ, _, mean_H = unpack_forecast(row, horizon=2, n_quantiles=2)
    >>> units_HQ.tolist(), mean_H[1].round(9).item()
    ([[1.0, 2.0], [3.0, 9003008.0]], 1e-06)
    """
    if len(row) != row_bytes(horizon, n_quantiles):
        return None
    units_SHQ, cumulative_SHQ, mean_SH = unpack_rows(row, horizon=horizon, n_quantiles=n_quantiles)
    return units_SHQ[0], cumulative_SHQ[0], mean_SH[0]


def unpack_target(row: bytes, *, horizon: int, n_quantiles: int) -> Floats | None:
    """A further target [H, Q] of one series; None if the row has another size.

    >>> row = pack_target(np.array([[[1.0, 2.0], [3.0, 9e6]]], np.float32))
    >>> values_HQ = unpack_target(row, horizon=2, n_quantiles=2)
    >>> values_HQ.tolist()
    [[1.0, 2.0], [3.0, 9003008.0]]
    """
    if len(row) != target_row_bytes(horizon, n_quantiles):
        return None
    values_HQ = np.frombuffer(row, "<f2", offset=_UNIT).reshape(horizon, n_quantiles)
    target_HQ: Floats = values_HQ.astype(np.float32) * np.frombuffer(row, "<f4", 1)
    return target_HQ


def named_targets(header: Mapping[bytes, bytes]) -> tuple[str, ...]:
    """Further targets of a stored forecast, from its header.

    >>> named_targets({b"targets": b"revenue,visitors"}), named_targets({})
    (('revenue', 'visitors'), ())
    """
    text = header.get(b"targets", b"").decode()
    return tuple(text.split(",")) if text else ()


def unpack_rows(block: bytes, *, horizon: int, n_quantiles: int) -> Blocks:
    """Buckets and running sums [S, H, Q] and means [S, H]; the inverse of `pack_forecast`.

    >>> units_SHQ = np.array([[[1.0, 2.0], [3.0, 9e6]]], np.float32)
    >>> made = QuantileForecast(0, 1, (0.1, 0.9), units_SHQ, units_SHQ, units_SHQ[..., 0], "")
    >>> unpack_rows(pack_forecast(made), horizon=2, n_quantiles=2)[0].tolist()
    [[[1.0, 2.0], [3.0, 9003008.0]]]
    """
    rows_SB = np.frombuffer(block, np.uint8).reshape(-1, row_bytes(horizon, n_quantiles))
    unit_S3 = np.ascontiguousarray(rows_SB[:, :_HEADER]).view("<f4")
    values_SV = np.ascontiguousarray(rows_SB[:, _HEADER:]).view("<f2").astype(np.float32)
    shape = (len(rows_SB), 2, horizon, n_quantiles)
    values_S2HQ = values_SV[:, :-horizon].reshape(shape) * unit_S3[:, :2, None, None]
    return values_S2HQ[:, 0], values_S2HQ[:, 1], values_SV[:, -horizon:] * unit_S3[:, 2:]


def _units(flat_SV: Floats, *, least: float) -> Floats:
    """Smallest power of two [S] that fits each row into the range of float16, at least `least`."""
    most_S = np.maximum(flat_SV.max(axis=1, initial=0.0) / _LARGEST, least)
    units_S: Floats = np.exp2(np.ceil(np.log2(most_S))).astype("<f4")
    return units_S


def pack_bands(forecast: QuantileForecast) -> bytes:
    """One word per series: the first step of its forecast at `BAND_QUANTILES`, within 1.2 %.

    Zero stays zero; the order of the quantiles is preserved.
    """
    known_Q = np.array(forecast.quantiles)
    words_S = np.zeros(len(forecast.units_SHQ), "<u4")
    for place, q in enumerate(BAND_QUANTILES):
        values_S = forecast.units_SHQ[:, 0, int(np.argmin(np.abs(known_Q - q)))]
        share_S = np.log1p(np.minimum(values_S, _MOST) * _FINENESS) / _LOG_MOST
        words_S |= np.rint(share_S * _MOST_CODE).astype("<u4") << np.uint32(place * _BITS)
    return words_S.tobytes()


def unpack_bands(packed: bytes) -> Floats:
    r"""Bands [rows, 3]; NaN for a row of all ones, which means that there was no forecast.

    >>> unpack_bands(bytes(4) + b"\xff" * 4).tolist()
    [[0.0, 0.0, 0.0], [nan, nan, nan]]
    """
    words_S = np.frombuffer(packed, "<u4")
    shift_3 = np.arange(len(BAND_QUANTILES), dtype=np.uint32) * np.uint32(_BITS)
    code_S3 = (words_S[:, None] >> shift_3) & np.uint32(_MOST_CODE)
    bands_S3: Floats = (np.expm1(code_S3 * (_LOG_MOST / _MOST_CODE)) / _FINENESS).astype(np.float32)
    bands_S3[words_S == np.uint32(_NO_BAND)] = np.nan
    return bands_S3
