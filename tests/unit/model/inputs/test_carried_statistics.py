"""Carried statistics stay finite and small on difficult series."""

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.durations import DAY_MS, HOUR_MS, WEEK_MS
from model.inputs.carried_statistics import (
    AGE,
    DAY,
    ERROR,
    EXPECTED,
    PRICE,
    QUARTER,
    SLOW,
    WEEK,
    YEAR,
    Spans,
    scale_of,
)
from model.inputs.series_inputs import (
    INPUT_NAMES,
    carry_statistics,
    input_names,
    new_carried,
    observe,
)
from tests.support.model_cases import START_MS, awkward, carried_through, phases_at, real_hours

CONFIG = ModelConfig(horizon=24, bucket_ms=HOUR_MS)


DAILY = ModelConfig(horizon=7, bucket_ms=DAY_MS)


def _carry(stats_SK: torch.Tensor, values_TSF: torch.Tensor, start_ms: int = START_MS) -> None:
    """Carry statistics over hourly buckets, in place."""
    for t, bucket_SF in enumerate(values_TSF):
        carry_statistics(stats_SK, bucket_SF, phases_at(start_ms + t * HOUR_MS), CONFIG)


def _scales(units_T: np.ndarray) -> np.ndarray:
    """Scale after each day."""
    stats_SK = new_carried(1, DAILY)
    scales = []
    for t, units in enumerate(units_T):
        bucket = torch.zeros(1, 11)
        bucket[0, 0] = float(units)
        carry_statistics(stats_SK, bucket, phases_at(START_MS + t * DAY_MS, DAY_MS), DAILY)
        scales.append(scale_of(stats_SK, floor=DAILY.scale_floor).item())
    return np.array(scales)


def test_the_scale_is_the_plain_mean_while_history_is_short() -> None:
    units_T = np.random.default_rng(0).poisson(3.0, 28) + 1.0

    expected = np.cumsum(units_T) / np.arange(1, 29)
    np.testing.assert_allclose(_scales(units_T), expected, rtol=1e-5)


def test_the_scale_follows_a_level_shift() -> None:
    scales = _scales(np.r_[np.full(30, 2.0), np.full(112, 900.0)])

    assert scales[29] == pytest.approx(2.0, rel=1e-3)
    assert 870 < scales[-1] <= 900


def test_the_scale_survives_long_runs_of_zeros() -> None:
    """After a year without a sale the scale is the floor, not zero."""
    scales = _scales(np.r_[np.full(40, 3.0), np.zeros(365)])

    assert scales.min() == pytest.approx(DAILY.scale_floor)
    assert np.isfinite(scales).all()


def test_statistics_begin_with_the_first_activity() -> None:
    values = torch.from_numpy(real_hours(days=3, series=4))
    late = torch.cat((torch.zeros(200, 4, 11), values))
    one, other = new_carried(4, CONFIG), new_carried(4, CONFIG)
    _carry(one, values)
    _carry(other, late, START_MS - 200 * HOUR_MS)

    torch.testing.assert_close(one, other)


def test_a_return_without_a_sale_moves_no_price() -> None:
    stats = new_carried(1, CONFIG)
    sale = torch.tensor([[2.0, 0, 10.0, 1, 0, 0, 0, 0, 0, 0, 0]])
    returned = torch.tensor([[0.0, 2, -10.0, 1, 0, 0, 0, 0, 0, 0, 0]])
    _carry(stats, torch.stack((sale, returned)))

    assert stats[0, PRICE].item() == 5.0
    assert stats[0, SLOW].item() == 1.0
    assert stats[0, AGE].item() == 2.0


@pytest.mark.slow
def test_inputs_of_awkward_series_are_finite_and_small() -> None:
    """Inputs stay in range for any demand."""
    names, values_TSF = awkward()
    stats = new_carried(len(names), CONFIG)
    for t, bucket in enumerate(torch.from_numpy(values_TSF)):
        inputs = observe(stats, bucket, phases_at(START_MS + t * HOUR_MS), CONFIG)

        assert inputs.shape == (len(names), len(input_names(CONFIG)))
        assert torch.isfinite(inputs).all()
        assert inputs.abs().max() < 25


def test_click_inputs_of_a_series_without_clicks_are_zero() -> None:
    stats = new_carried(3, CONFIG)
    for t, bucket in enumerate(torch.from_numpy(real_hours(days=2, series=3))):
        inputs = observe(stats, bucket, phases_at(START_MS + t * HOUR_MS), CONFIG)
        for name in ("views", "carts", "visitors", "conversion", "has_clicks"):
            assert inputs[:, INPUT_NAMES.index(name)].abs().max() == 0


@pytest.mark.parametrize("days", [1, 7, 28, 30.436875], ids=["day", "week", "4 weeks", "month"])
def test_means_of_wide_buckets_are_means_of_several(days: float) -> None:
    """Memories in days would be less than a bucket; each mean has a least number of buckets."""
    spans = Spans.of(bucket_ms=round(days * DAY_MS), memory_days=28)

    assert spans.day >= 1
    assert spans.week >= 3
    assert spans.slow >= 10
    assert spans.quarter >= 24
    assert spans.year >= 48
    assert spans.day < spans.week < spans.slow < spans.quarter < spans.year


def test_the_scale_of_weekly_demand_is_not_its_last_week() -> None:
    """Alternating weeks of nothing and forty: the mean, at any time."""
    config = ModelConfig(horizon=4, bucket_ms=WEEK_MS, holidays_country=None)
    units_TS = np.tile([[40.0], [0.0]], (20, 1))
    after_sale, after_none = (carried_through(units_TS[:end], config)[0] for end in (39, 40))

    for stats_K in (after_sale, after_none):
        assert stats_K[SLOW].item() == pytest.approx(20.0, rel=0.2)
        assert stats_K[QUARTER].item() == pytest.approx(20.0, rel=0.2)
        assert stats_K[YEAR].item() == pytest.approx(20.0, rel=0.2)
    assert (after_sale[DAY].item(), after_none[DAY].item()) == (40.0, 0.0)
    assert 20.0 < after_sale[WEEK].item() < 30.0


@pytest.mark.slow
def test_what_is_expected_follows_the_hour_and_its_error_is_measured() -> None:
    """Three weeks of a rhythm, without noise and with it."""
    hours = np.arange(24 * 21)
    rhythm_T = np.where((hours % 24 >= 8) & (hours % 24 < 20), 12.0, 2.0)
    noise_T = np.random.default_rng(3).poisson(rhythm_T)
    units_TS = np.stack((rhythm_T, noise_T), axis=1)
    at_night, by_day = (carried_through(units_TS[:end], CONFIG) for end in (504, 492))

    assert at_night[0, EXPECTED].item() == pytest.approx(2.0, abs=0.3)
    assert by_day[0, EXPECTED].item() == pytest.approx(12.0, abs=0.5)
    # the mean absolute error of Poisson counts is 2.8 by day and 1.1 at night
    assert at_night[0, ERROR].item() < 1.0
    assert at_night[1, ERROR].item() - at_night[0, ERROR].item() == pytest.approx(1.7, abs=0.5)


def test_a_surprise_shows_against_the_season_and_not_against_the_mean() -> None:
    """A usual night and a busy one sell less than the mean of the day; only one is a surprise."""
    hours = np.arange(24 * 14 + 2)
    rhythm_T = np.where((hours % 24 >= 8) & (hours % 24 < 20), 12.0, 2.0)
    stats = carried_through(rhythm_T[:-1, None].repeat(2, axis=1), CONFIG)
    bucket_SF = torch.zeros(2, 11)
    bucket_SF[:, 0] = torch.tensor([2.0, 6.0])
    last_ms = START_MS + int(hours[-1]) * HOUR_MS
    usual, busy = (
        dict(zip(INPUT_NAMES, row.tolist(), strict=True))
        for row in observe(stats, bucket_SF, phases_at(last_ms), CONFIG)
    )

    assert usual["season_now"] < -0.5
    for name in ("surprise", "surprise_score"):
        assert abs(usual[name]) < 0.15, name
        assert busy[name] > 0.5, name
