"""Each series carries factors of its hours and weekdays: learned, shrunk, with a mean of one."""

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.durations import DAY_MS, HOUR_MS
from model.inputs.seasons.season_layout import layout_of
from model.inputs.seasons.week_profile import CLOSED, factor_of, log_factors
from tests.support.model_cases import START_MS, Floats, carried_through, phases_at

MINUTE_MS = 60_000
WEEKDAYS = np.array([0.5, 0.7, 0.9, 1.0, 1.2, 1.9, 0.8])
HOURS = np.exp(1.5 * np.sin(2 * np.pi * (np.arange(24) - 9) / 24))
HOURS /= HOURS.mean()


def _factors(
    units_TS: np.ndarray, bucket_ms: int = DAY_MS, *, horizon: int = 7
) -> tuple[Floats, torch.Tensor]:
    """Factors [S, H] of the buckets after `units_TS`, and the statistics."""
    config = ModelConfig(horizon=horizon, bucket_ms=bucket_ms, holidays_country=None)
    stats_SK = carried_through(units_TS, config)
    origin_ms = START_MS + bucket_ms * len(units_TS)
    ahead = layout_of(bucket_ms).horizon(origin_ms, horizon, None)
    factors_SH: Floats = log_factors(stats_SK, ahead, layout_of(bucket_ms)).exp().numpy()
    return factors_SH, stats_SK


@pytest.mark.parametrize("weeks", [4, 8, 20])
def test_weekdays_of_a_seasonal_series_are_recovered_within_weeks(weeks: int) -> None:
    """Twenty units a day as Poisson counts."""
    rng = np.random.default_rng(1)
    mean_T = 20 * WEEKDAYS[np.arange(7 * weeks) % 7]
    factors_SH, _ = _factors(rng.poisson(mean_T[:, None], (7 * weeks, 30)))

    relative_SH = factors_SH / WEEKDAYS
    assert relative_SH.mean(axis=0) == pytest.approx(np.ones(7), abs=0.1)
    assert relative_SH.std(axis=0).max() < 0.25


@pytest.mark.slow
def test_hours_of_the_week_are_recovered_too() -> None:
    """The weekend has other hours than the other days."""
    weeks = 6
    hour = np.arange(168 * weeks)
    profile_W = np.concatenate((np.tile(HOURS, 5), np.tile(HOURS[::-1], 2)))
    mean_T = 30 * profile_W[hour % 168]
    rng = np.random.default_rng(2)
    factors_SH, _ = _factors(rng.poisson(mean_T[:, None], (hour.size, 8)), HOUR_MS, horizon=168)

    busy = profile_W > 0.5
    assert factors_SH.mean(axis=0)[busy] == pytest.approx(profile_W[busy], rel=0.15)
    assert np.abs(factors_SH.mean(axis=0) - profile_W)[~busy].max() < 0.15


def test_the_hour_of_the_day_is_known_before_the_hour_of_the_week() -> None:
    """After six days, the hours of a Sunday, which was never seen, and all days alike."""
    mean_T = 30 * HOURS[np.arange(144) % 24]
    counts_TS = np.random.default_rng(3).poisson(mean_T[:, None], (144, 20))
    factors_SH, _ = _factors(counts_TS, HOUR_MS, horizon=24)
    early_SH, _ = _factors(counts_TS[:72], HOUR_MS, horizon=72)

    assert np.abs(factors_SH.mean(axis=0) - HOURS).mean() < 0.1 * np.abs(1 - HOURS).mean()
    by_day_SDH = early_SH.reshape(20, 3, 24)
    assert np.abs(by_day_SDH.mean(axis=(0, 1)) - HOURS).mean() < 0.3 * np.abs(1 - HOURS).mean()
    np.testing.assert_array_equal(by_day_SDH[:, 0], by_day_SDH[:, 2])


def test_a_change_of_the_profile_is_followed() -> None:
    """Sixteen weeks after the weekdays moved by three, the old ones are forgotten."""
    days = np.arange(7 * 26)
    moved = np.where(days < 70, 0, 3)
    units_T = 20 * WEEKDAYS[(days + moved) % 7]
    factors_SH, _ = _factors(units_T[:, None])

    assert factors_SH[0] == pytest.approx(np.roll(WEEKDAYS, -3), abs=0.15)


def test_a_weekday_without_any_sale_becomes_closed() -> None:
    """A series with two units a day needs longer than one with twenty; unseen days never are."""
    closed_H = np.array([False] * 6 + [True])
    open_T = np.arange(7 * 12) % 7 != 6

    def seen(units: float, days: int) -> np.ndarray:
        factors_SH, _ = _factors(units * open_T[:days, None])
        closed_S: np.ndarray = np.isclose(factors_SH[0], CLOSED)
        return closed_S

    assert (seen(20, 7 * 3) == closed_H).all()
    assert not seen(20, 6).any()
    assert not seen(2, 7 * 3).any()
    assert (seen(2, 7 * 8) == closed_H).all()


def test_a_sale_on_a_closed_weekday_opens_it() -> None:
    units_T = 20.0 * (np.arange(7 * 10) % 7 != 6)
    units_T[-1] = 20.0
    factors_SH, _ = _factors(units_T[:, None])

    assert factors_SH[0, 6] > 0.1


@pytest.mark.parametrize(
    ("bucket_ms", "horizon"), [(DAY_MS, 7), pytest.param(HOUR_MS, 168, marks=pytest.mark.slow)]
)
def test_a_sparse_series_stays_near_one(bucket_ms: int, horizon: int) -> None:
    """A unit every five weeks: its mean by weekday or hour is zero, or many times its level."""
    rng = np.random.default_rng(4)
    buckets = 7 * 8 * DAY_MS // bucket_ms
    share = bucket_ms / (35 * DAY_MS)
    factors_SH, _ = _factors(rng.random((buckets, 40)) < share, bucket_ms, horizon=horizon)

    assert factors_SH.min() > 0.6
    assert factors_SH.max() < 2.2
    assert factors_SH.std() < 0.25


@pytest.mark.parametrize(
    ("bucket_ms", "horizon"),
    [
        pytest.param(30 * MINUTE_MS, 336, marks=pytest.mark.slow),
        (HOUR_MS, 168),
        (6 * HOUR_MS, 28),
        (DAY_MS, 7),
    ],
)
@pytest.mark.parametrize("level", [0.2, 30.0])
def test_the_factors_of_a_week_have_a_mean_of_one(
    bucket_ms: int, horizon: int, level: float
) -> None:
    buckets = 2 * 7 * DAY_MS // bucket_ms
    starts_T = np.arange(buckets) * bucket_ms
    mean_T = level * WEEKDAYS[starts_T // DAY_MS % 7] * HOURS[starts_T % DAY_MS // HOUR_MS]
    units_TS = np.random.default_rng(5).poisson(mean_T[:, None], (buckets, 10))
    factors_SH, _ = _factors(units_TS, bucket_ms, horizon=horizon)

    assert factors_SH.mean(axis=1) == pytest.approx(np.ones(10), abs=0.05)
    assert factors_SH.mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("days", [0.4, 1.4, 2.6, 7.4])
def test_a_steady_series_has_no_factors_whatever_its_age(days: float) -> None:
    """Quarters of an hour are averaged from the first visit of an hour on."""
    buckets = round(days * 96)
    factors_SH, _ = _factors(np.full((buckets, 1), 10.0), 15 * MINUTE_MS, horizon=96)

    assert factors_SH[0] == pytest.approx(np.ones(96), abs=0.01)


def test_wide_buckets_have_no_factors() -> None:
    units_TS = np.random.default_rng(6).poisson(9.0, (60, 2))
    factors_SH, _ = _factors(units_TS, 7 * DAY_MS, horizon=5)

    assert (factors_SH == 1).all()


def test_the_factor_of_the_next_bucket_is_the_first_of_the_horizon() -> None:
    """Also if each series has its own time."""
    units_TS = np.random.default_rng(7).poisson(5 * HOURS[np.arange(200) % 24, None], (200, 3))
    factors_SH, stats_SK = _factors(units_TS, HOUR_MS, horizon=30)
    layout = layout_of(HOUR_MS)
    next_ms = START_MS + 200 * HOUR_MS
    own = factor_of(stats_SK, phases_at(next_ms), layout)
    starts = next_ms + HOUR_MS * torch.tensor([[0, 168, 336]])
    by_series = factor_of(stats_SK, layout.buckets(starts, None).at(0), layout)
    others = layout.buckets(next_ms + HOUR_MS * torch.tensor([[0, 5, 11]]), None).at(0)

    np.testing.assert_allclose(own, factors_SH[:, 0], rtol=1e-6)
    np.testing.assert_allclose(by_series, factors_SH[:, 0], rtol=1e-6)
    apart = factor_of(stats_SK, others, layout)
    alone = [
        factor_of(stats_SK[s : s + 1], phases_at(next_ms + HOUR_MS * ahead), layout).item()
        for s, ahead in enumerate((0, 5, 11))
    ]
    np.testing.assert_allclose(apart, alone, rtol=1e-6)
    assert len(set(alone)) == 3
