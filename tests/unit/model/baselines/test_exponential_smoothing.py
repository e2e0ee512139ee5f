"""Exponential smoothing follows level and seasons; its band comes from its own errors."""

import numpy as np
import pytest

from model.baselines.exponential_smoothing import SmoothingForecaster
from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.contract import FEATURE_NAMES, QuantileForecast
from model.durations import DAY_MS, HOUR_MS
from model.evaluation.backtest import backtest, last_origins, score
from model.inference.forecaster import Forecaster
from tests.support.model_cases import START_MS, Floats, history_of, real_hours, require_coherent


def buckets(units_TS: Floats) -> Floats:
    """Closed buckets [T, S, F] with these units."""
    values_TSF = np.zeros((*units_TS.shape, len(FEATURE_NAMES)), np.float32)
    values_TSF[..., 0] = units_TS
    return values_TSF


def after(smoothing: SmoothingForecaster, units_TS: Floats) -> QuantileForecast:
    """The forecast after these buckets."""
    values_TSF = buckets(units_TS)
    states = smoothing.new_states(1)
    smoothing.warm_up(states, values_TSF[:-1], START_MS)
    last_ms = START_MS + (len(values_TSF) - 1) * smoothing.bucket_ms
    return smoothing.step(states, values_TSF[-1], last_ms)


def test_daily_and_weekly_profiles_are_learned() -> None:
    """Busy at noon, closed on Sundays: the forecast of a week shows both."""
    hour = np.arange(24 * 7 * 12)
    units_T = np.where(hour % 24 == 12, 40.0, 4.0) * (hour // 24 % 7 != 6)
    smoothing = SmoothingForecaster(horizon=168, bucket_ms=HOUR_MS)
    forecast = after(smoothing, units_T[:, None].astype(np.float32))

    np.testing.assert_allclose(forecast.units_SHQ[0, :, 4], units_T[:168], atol=6.0)


def test_a_shift_of_the_level_is_followed_within_days() -> None:
    units_T = np.where(np.arange(60) < 40, 10.0, 30.0).astype(np.float32)
    smoothing = SmoothingForecaster(horizon=3, bucket_ms=DAY_MS)
    forecast = after(smoothing, units_T[:, None])

    assert forecast.units_SHQ[0, 0, 4] == pytest.approx(30, rel=0.1)


def test_the_bands_of_a_step_and_of_a_sum_have_nominal_coverage() -> None:
    """On overdispersed counts, the 80 % bands one and six days ahead cover about 80 %."""
    rng = np.random.default_rng(3)
    units_TS = rng.negative_binomial(3, 0.2, (260, 150)).astype(np.float32)
    values_TSF = buckets(units_TS)
    smoothing = SmoothingForecaster(horizon=6, bucket_ms=DAY_MS)
    states = smoothing.new_states(150)
    step, total = [], []
    for t in range(250):
        forecast = smoothing.step(states, values_TSF[t], START_MS + t * DAY_MS)
        if t > 150:
            band, ahead = forecast.units_SHQ[:, 0], units_TS[t + 1]
            step.append((band[:, 0] <= ahead) & (ahead <= band[:, -1]))
            band, ahead = forecast.cumulative_SHQ[:, 5], units_TS[t + 1 : t + 7].sum(axis=0)
            total.append((band[:, 0] <= ahead) & (ahead <= band[:, -1]))

    assert np.mean(step) == pytest.approx(0.8, abs=0.06)
    assert np.mean(total) == pytest.approx(0.8, abs=0.12)


def test_sums_never_contradict_their_parts() -> None:
    """Counts with lone spikes, whose errors are skewed."""
    units_TS = np.random.default_rng(2).negative_binomial(0.2, 0.02, (90, 40)).astype(np.float32)

    require_coherent(after(SmoothingForecaster(horizon=14, bucket_ms=DAY_MS), units_TS))


def test_nights_do_not_narrow_the_band_of_the_day() -> None:
    """With a shop closed 15 hours of 24, the 80 % band at noon has nominal coverage."""
    rng = np.random.default_rng(5)
    hour = np.arange(24 * 35)
    open_T = (hour % 24 >= 9) & (hour % 24 < 18)
    units_TS = rng.negative_binomial(3, 0.2, (len(hour), 60)).astype(np.float32) * open_T[:, None]
    values_TSF = buckets(units_TS)
    smoothing = SmoothingForecaster(horizon=1, bucket_ms=HOUR_MS)
    states = smoothing.new_states(60)
    covered = []
    for t in range(len(hour) - 1):
        forecast = smoothing.step(states, values_TSF[t], START_MS + t * HOUR_MS)
        if t >= 24 * 21:
            band, ahead = forecast.units_SHQ[:, 0], units_TS[t + 1]
            if open_T[t + 1]:
                covered.append((band[:, 0] <= ahead) & (ahead <= band[:, -1]))
            else:
                assert np.median(band[:, -1]) < 3  # no sales, no forecast demand

    assert np.mean(covered) == pytest.approx(0.8, abs=0.07)


def test_the_band_of_a_dormant_series_narrows() -> None:
    """After a month without demand the level is below an old profile; the band still shrinks."""
    rng = np.random.default_rng(2)
    sold_TS = rng.negative_binomial(0.3, 0.03, (84, 30)).astype(np.float32)
    silent_TS = np.concatenate((sold_TS, np.zeros((30, 30), np.float32)))
    smoothing = SmoothingForecaster(horizon=7, bucket_ms=DAY_MS)

    def upper(units_TS: Floats) -> Floats:
        return np.asarray(after(smoothing, units_TS).units_SHQ[:, :, -1].max(axis=1))

    assert (upper(silent_TS) < upper(sold_TS)).all()


def test_a_series_with_rare_sales_keeps_its_zeros() -> None:
    rng = np.random.default_rng(1)
    units_TS = rng.binomial(1, 0.05, (400, 20)).astype(np.float32)
    forecast = after(SmoothingForecaster(horizon=4, bucket_ms=DAY_MS), units_TS)

    assert (forecast.units_SHQ[:, :, 4] < 0.5).all()
    assert (forecast.units_SHQ >= 0).all()


def test_it_beats_the_seasonal_naive_on_real_hours() -> None:
    history = history_of(real_hours(days=35, series=40))
    models: dict[str, Forecaster] = {
        "naive": SeasonalNaiveForecaster(horizon=24, bucket_ms=HOUR_MS),
        "smoothing": SmoothingForecaster(horizon=24, bucket_ms=HOUR_MS),
    }
    result = backtest(history, models, last_origins(history, horizon=24, count=7))
    naive, smoothing = score(result, "naive").wql, score(result, "smoothing").wql

    assert naive is not None
    assert smoothing is not None
    assert smoothing < 0.9 * naive
