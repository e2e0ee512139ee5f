"""Stored forecasts: the loss of precision, and what is preserved exactly."""

import numpy as np
from numpy.typing import NDArray

from model.contract import QuantileForecast
from stream.state.forecasts import (
    BAND_BYTES,
    pack_bands,
    pack_forecast,
    row_bytes,
    unpack_bands,
    unpack_forecast,
)

QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def forecast() -> QuantileForecast:
    """Series of 0.01 to ten million units per bucket, and one of zeros."""
    rng = np.random.default_rng(0)
    level_S = np.concatenate([np.zeros(1), np.logspace(-2, 7, 40)])
    steps_SHQ = level_S[:, None, None] * rng.gamma(1.0, size=(41, 24, 9))
    units_SHQ = np.cumsum(steps_SHQ, axis=2)
    sums_SHQ = np.cumsum(units_SHQ, axis=1)
    return QuantileForecast(
        0, 1, QUANTILES, units_SHQ.astype(np.float32), sums_SHQ.astype(np.float32),
        units_SHQ.mean(axis=2).astype(np.float32), "m",
    )  # fmt: skip


def packed_and_unpacked(forecast: QuantileForecast) -> tuple[NDArray[np.float32], ...]:
    """Units, sums and means as read from the stored rows."""
    packed, width = pack_forecast(forecast), row_bytes(24, 9)
    rows = [packed[at : at + width] for at in range(0, len(packed), width)]
    read = [unpack_forecast(row, horizon=24, n_quantiles=9) for row in rows]
    found = [blocks for blocks in read if blocks is not None]
    assert len(found) == len(forecast.units_SHQ)
    return tuple(np.stack(block) for block in zip(*found, strict=True))


def test_a_stored_forecast_is_within_a_twentieth_of_a_percent() -> None:
    """Of its value, or within a millionth of a unit near zero; zeros stay zeros."""
    given = forecast()
    blocks = given.units_SHQ, given.cumulative_SHQ, given.mean_SH
    for values, before in zip(packed_and_unpacked(given), blocks, strict=True):
        np.testing.assert_allclose(values, before, rtol=5e-4, atol=1e-6)
        assert not values[0].any()


def test_a_stored_forecast_stays_monotone() -> None:
    """In the quantile, and the running sums in the step: rounding swaps no two numbers."""
    units_SHQ, sums_SHQ, _ = packed_and_unpacked(forecast())

    assert (np.diff(units_SHQ, axis=2) >= 0).all()
    assert (np.diff(sums_SHQ, axis=2) >= 0).all()
    assert (np.diff(sums_SHQ, axis=1) >= 0).all()


def test_a_row_of_another_shape_is_not_a_forecast() -> None:
    """A reader with another horizon gets None instead of wrong numbers."""
    row = pack_forecast(forecast())[: row_bytes(24, 9)]

    assert unpack_forecast(row, horizon=23, n_quantiles=9) is None
    assert unpack_forecast(b"", horizon=24, n_quantiles=9) is None


def test_bands_are_within_a_hundredth_and_in_order() -> None:
    """All three quantiles, at every volume; no band is read as missing."""
    given = forecast()
    packed = pack_bands(given)
    bands_S3 = unpack_bands(packed)

    assert len(packed) == BAND_BYTES * len(given.units_SHQ)
    np.testing.assert_allclose(bands_S3, given.units_SHQ[:, 0, [0, 4, 8]], rtol=0.012, atol=0.002)
    assert (np.diff(bands_S3, axis=1) >= 0).all()
    assert not bands_S3[0].any()
