"""The seasonal naive forecasts last week, with sensible forecasts for shorter histories."""

import numpy as np
import pytest

from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.durations import DAY_MS, HOUR_MS
from tests.support.model_cases import START_MS, real_hours


def _bucket(*units: float) -> np.ndarray:
    values_SF = np.zeros((len(units), 11), np.float32)
    values_SF[:, 0] = units
    return values_SF


def test_the_median_is_the_same_hour_of_last_week() -> None:
    naive = SeasonalNaiveForecaster(horizon=200, bucket_ms=HOUR_MS)
    values_TSF = real_hours(days=15, series=5)
    states = naive.new_states(5)
    naive.warm_up(states, values_TSF[:-1], START_MS)
    forecast = naive.step(states, values_TSF[-1], START_MS + (len(values_TSF) - 1) * HOUR_MS)

    last_week = values_TSF[-168:, :, 0].T
    np.testing.assert_allclose(forecast.units_SHQ[:, :168, 4], last_week)
    np.testing.assert_allclose(forecast.units_SHQ[:, 168:, 4], last_week[:, :32])


def test_with_two_days_known_yesterday_is_forecast() -> None:
    naive = SeasonalNaiveForecaster(horizon=48, bucket_ms=HOUR_MS)
    states = naive.new_states(1)
    for t in range(48):
        forecast = naive.step(states, _bucket(t % 24 + 1.0), START_MS + t * HOUR_MS)

    np.testing.assert_allclose(forecast.units_SHQ[0, :, 4], np.tile(np.arange(24) + 1.0, 2))


def test_before_a_day_is_known_the_mean_is_forecast() -> None:
    naive = SeasonalNaiveForecaster(horizon=3, bucket_ms=HOUR_MS)
    states = naive.new_states(1)
    for t, units in enumerate((2.0, 4.0)):
        forecast = naive.step(states, _bucket(units), START_MS + t * HOUR_MS)

    np.testing.assert_allclose(forecast.units_SHQ[0, :, 4], 3.0)


def test_a_series_without_any_history_is_forecast_as_zero() -> None:
    naive = SeasonalNaiveForecaster(horizon=3, bucket_ms=DAY_MS)
    states = naive.new_states(0)

    forecast = naive.step(states, _bucket(0.0, 5.0), START_MS)

    assert forecast.units_SHQ[0].max() == 0
    assert forecast.units_SHQ[1, 0, 4] == 5


def test_the_band_has_nominal_coverage_on_noise() -> None:
    """On independent demand the 80 % band of the next bucket covers about 80 %."""
    rng = np.random.default_rng(4)
    naive = SeasonalNaiveForecaster(horizon=1, bucket_ms=DAY_MS)
    states = naive.new_states(200)
    inside = []
    band = None
    for t in range(150):
        units_S = rng.normal(100, 10, 200).astype(np.float32)
        if t > 60 and band is not None:
            inside.append((band[:, 0] <= units_S) & (units_S <= band[:, -1]))
        forecast = naive.step(states, _bucket(*units_S), START_MS + t * DAY_MS)
        band = forecast.units_SHQ[:, 0]

    assert np.mean(inside) == pytest.approx(0.8, abs=0.03)
