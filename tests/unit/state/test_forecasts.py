"""Forecasts as the store keeps them: how much of a value is lost, and what never is."""

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
    """Series from a hundredth of a unit to ten million units a bucket, and one of zeros."""
    rng = np.random.default_rng(0)
    level_S = np.concatenate([np.zeros(1), np.logspace(-2, 7, 40)])
    steps_SHQ = level_S[:, None, None] * rng.gamma(1.0, size=(41, 24, 9))
    units_SHQ = np.cumsum(steps_SHQ, axis=2)
    sums_SHQ = np.cumsum(units_SHQ, axis=1)
    return QuantileForecast(
        0, 1, QUANTILES, units_SHQ.astype(np.float32), sums_SHQ.astype(np.float32), "m"
    )


def stored(given: QuantileForecast) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    packed, width = pack_forecast(given), row_bytes(24, 9)
    rows = [packed[at : at + width] for at in range(0, len(packed), width)]
    read = [unpack_forecast(row, horizon=24, n_quantiles=9) for row in rows]
    pairs = [pair for pair in read if pair is not None]
    assert len(pairs) == len(given.units_SHQ)
    return np.stack([units for units, _ in pairs]), np.stack([sums for _, sums in pairs])


def test_a_stored_forecast_is_within_a_twentieth_of_a_percent() -> None:
    """Of its value, or a millionth of a unit where it is next to nothing; zeros stay zeros."""
    given = forecast()
    for values, before in zip(stored(given), (given.units_SHQ, given.cumulative_SHQ), strict=True):
        np.testing.assert_allclose(values, before, rtol=5e-4, atol=1e-6)
        assert not values[0].any()


def test_a_stored_forecast_still_rises() -> None:
    """With the quantile, and the running sums with the step: rounding swaps no two numbers."""
    units_SHQ, sums_SHQ = stored(forecast())

    assert (np.diff(units_SHQ, axis=2) >= 0).all()
    assert (np.diff(sums_SHQ, axis=2) >= 0).all()
    assert (np.diff(sums_SHQ, axis=1) >= 0).all()


def test_a_row_of_another_shape_is_no_forecast() -> None:
    """A reader that knows another horizon gets nothing rather than other numbers."""
    row = pack_forecast(forecast())[: row_bytes(24, 9)]

    assert unpack_forecast(row, horizon=23, n_quantiles=9) is None
    assert unpack_forecast(b"", horizon=24, n_quantiles=9) is None


def test_bands_are_within_a_hundredth_and_in_order() -> None:
    """Each of the three quantiles, at every size of series; none reads as missing."""
    given = forecast()
    packed = pack_bands(given)
    bands_S3 = unpack_bands(packed)

    assert len(packed) == BAND_BYTES * len(given.units_SHQ)
    np.testing.assert_allclose(bands_S3, given.units_SHQ[:, 0, [0, 4, 8]], rtol=0.012, atol=0.002)
    assert (np.diff(bands_S3, axis=1) >= 0).all()
    assert not bands_S3[0].any()
