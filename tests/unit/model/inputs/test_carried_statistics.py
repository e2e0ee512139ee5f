"""Carried statistics stay finite and small on difficult series."""

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.durations import HOUR_MS
from model.inputs.carried_statistics import AGE, N_STATISTICS, PRICE, SLOW, scale_of
from model.inputs.series_inputs import (
    INPUT_NAMES,
    carry_statistics,
    input_names,
    new_carried,
    observe,
)
from tests.support.model_cases import START_MS, awkward, real_hours

CONFIG = ModelConfig(horizon=24, bucket_ms=HOUR_MS)


def _scales(units_T: np.ndarray) -> np.ndarray:
    stats = torch.zeros(1, N_STATISTICS)
    scales = []
    for units in units_T:
        bucket = torch.zeros(1, 11)
        bucket[0, 0] = float(units)
        carry_statistics(stats, bucket, CONFIG)
        scales.append(scale_of(stats, floor=CONFIG.scale_floor).item())
    return np.array(scales)


def test_the_scale_is_the_plain_mean_while_history_is_short() -> None:
    units_T = np.random.default_rng(0).poisson(3.0, 100) + 1.0

    expected = np.cumsum(units_T) / np.arange(1, 101)
    np.testing.assert_allclose(_scales(units_T), expected, rtol=1e-5)


@pytest.mark.slow
def test_the_scale_follows_a_level_shift() -> None:
    scales = _scales(np.r_[np.full(700, 2.0), np.full(2_700, 900.0)])

    assert scales[699] == pytest.approx(2.0, rel=1e-3)
    assert 870 < scales[-1] <= 900


@pytest.mark.slow
def test_the_scale_survives_long_runs_of_zeros() -> None:
    """After a year without a sale the scale is the floor, not zero."""
    scales = _scales(np.r_[np.full(100, 3.0), np.zeros(8_760)])

    assert scales.min() == pytest.approx(CONFIG.scale_floor)
    assert np.isfinite(scales).all()


def test_statistics_begin_with_the_first_activity() -> None:
    values = torch.from_numpy(real_hours(days=3, series=4))
    late = torch.cat((torch.zeros(500, 4, 11), values))
    one, other = torch.zeros(4, N_STATISTICS), torch.zeros(4, N_STATISTICS)
    for bucket in values:
        carry_statistics(one, bucket, CONFIG)
    for bucket in late:
        carry_statistics(other, bucket, CONFIG)

    torch.testing.assert_close(one, other)


def test_a_return_without_a_sale_moves_no_price() -> None:
    stats = torch.zeros(1, N_STATISTICS)
    sale = torch.tensor([[2.0, 0, 10.0, 1, 0, 0, 0, 0, 0, 0, 0]])
    returned = torch.tensor([[0.0, 2, -10.0, 1, 0, 0, 0, 0, 0, 0, 0]])
    carry_statistics(stats, sale, CONFIG)
    carry_statistics(stats, returned, CONFIG)

    assert stats[0, PRICE].item() == 5.0
    assert stats[0, SLOW].item() == 1.0
    assert stats[0, AGE].item() == 2.0


@pytest.mark.slow
def test_inputs_of_awkward_series_are_finite_and_small() -> None:
    """Inputs stay in range for any demand."""
    names, values_TSF = awkward()
    stats = new_carried(len(names), CONFIG)
    for t, bucket in enumerate(torch.from_numpy(values_TSF)):
        inputs = observe(stats, bucket, START_MS + t * HOUR_MS, CONFIG)

        assert inputs.shape == (len(names), len(input_names(CONFIG)))
        assert torch.isfinite(inputs).all()
        assert inputs.abs().max() < 25


def test_click_inputs_of_a_series_without_clicks_are_zero() -> None:
    stats = new_carried(3, CONFIG)
    for bucket in torch.from_numpy(real_hours(days=2, series=3)):
        inputs = observe(stats, bucket, START_MS, CONFIG)
        for name in ("views", "carts", "visitors", "conversion", "has_clicks"):
            assert inputs[:, INPUT_NAMES.index(name)].abs().max() == 0
