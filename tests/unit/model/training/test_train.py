"""Training learns, repeats itself exactly, and refuses data it cannot learn from."""

import dataclasses

import numpy as np
import pytest
import torch

from model.config import Architecture, ModelConfig
from model.durations import DAY_MS, HOUR_MS
from model.errors import HistoryTooShort, InvalidValues
from model.networks.quantile_network import QuantileNetwork
from model.training.dataset import pick_series
from model.training.lanes import LaneGroups, encode
from model.training.ranks import Ranks
from model.training.train import TrainProgress, train
from tests.support.model_cases import ARCHITECTURES, history_of, real_hours, small_training


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights() -> None:
    history = history_of(real_hours(days=14, series=10))

    one, other = (train(history, small_training()) for _ in range(2))

    for name, weight in one.network.state_dict().items():
        assert torch.equal(weight, other.network.state_dict()[name]), name
    assert one.metrics["validation_loss"] == other.metrics["validation_loss"]


@pytest.mark.slow
def test_another_seed_gives_other_weights() -> None:
    history = history_of(real_hours(days=14, series=10))
    one = train(history, small_training())
    other = train(history, small_training(seed=8))

    weights = zip(one.network.parameters(), other.network.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in weights)


@pytest.mark.slow
def test_training_learns_a_weekly_rhythm() -> None:
    """Demand that follows the hour is forecast far better than before the training."""
    hours = np.arange(24 * 28)
    values_TSF = np.zeros((hours.size, 6, 11), np.float32)
    rhythm_T = np.where((hours % 24 >= 8) & (hours % 24 < 18), 5.0, 0.0)
    values_TSF[:, :, 0] = rhythm_T[:, None] * (1 + np.arange(6))
    history = history_of(values_TSF)
    few = small_training(updates=2, validate_every=2, learning_rate=1e-2)
    many = dataclasses.replace(few, updates=150, validate_every=50)

    before = train(history, few).metrics["validation_loss"]
    after = train(history, many).metrics["validation_loss"]

    assert after < 0.4 * before


@pytest.mark.slow
def test_progress_runs_from_the_first_update_to_the_end() -> None:
    seen: list[TrainProgress] = []
    train(history_of(real_hours(days=10, series=5)), small_training(), seen.append)

    assert seen[0].update == 1
    assert seen[-1].share == 1.0
    assert [p.share for p in seen] == sorted(p.share for p in seen)


@pytest.mark.slow
def test_training_stops_at_its_deadline() -> None:
    history = history_of(real_hours(days=14, series=10))

    trained = train(history, small_training(updates=100_000, max_seconds=1.5, patience=10_000))

    assert trained.metrics["seconds"] < 6
    assert trained.metrics["updates"] < 100_000


def test_values_after_the_end_of_training_do_not_reach_the_statistics_before_it() -> None:
    """The statistics lanes start from do not depend on later values."""
    values_TSF = real_hours(days=14, series=6)
    changed_TSF = values_TSF.copy()
    changed_TSF[200:, :, 0] *= 7
    picked = [
        pick_series(history_of(v), small_training().model, end=300, every=24, limit=6, power=0.5)
        for v in (values_TSF, changed_TSF)
    ]

    before = 200 // 24 + 1
    assert torch.equal(picked[0].grid_GSK[:before], picked[1].grid_GSK[:before])
    assert not torch.equal(picked[0].grid_GSK, picked[1].grid_GSK)


@pytest.mark.parametrize("buckets", [0, 1, 20])
def test_a_history_that_is_too_short_is_refused_with_the_required_length(buckets: int) -> None:
    history = history_of(real_hours(days=2, series=3)[:buckets])

    with pytest.raises(HistoryTooShort, match="give at least 32"):
        train(history, small_training())


def test_a_history_without_demand_is_refused() -> None:
    with pytest.raises(HistoryTooShort, match="no unit was sold"):
        train(history_of(np.zeros((200, 3, 11), np.float32)), small_training())


def test_nan_in_the_history_is_refused() -> None:
    values_TSF = real_hours(days=10, series=5)
    values_TSF[17, 2, 4] = np.nan

    with pytest.raises(InvalidValues, match="NaN"):
        train(history_of(values_TSF), small_training())


def test_another_bucket_width_is_refused() -> None:
    model = ModelConfig(horizon=6, bucket_ms=DAY_MS)

    with pytest.raises(HistoryTooShort, match=str(HOUR_MS)):
        train(history_of(real_hours(days=10, series=5)), small_training(model=model))


@pytest.mark.slow
def test_bfloat16_learns_nearly_as_well_as_float32() -> None:
    """The encoder's arithmetic is rounded; weights, state and loss are not."""
    history = history_of(real_hours(days=14, series=10))
    exact, mixed = (
        train(history, small_training(updates=40, precision=precision))
        for precision in ("float32", "bfloat16")
    )

    loss = exact.metrics["validation_loss"]
    assert mixed.metrics["validation_loss"] != loss
    assert mixed.metrics["validation_loss"] == pytest.approx(loss, rel=0.03)
    assert all(part.dtype == torch.float32 for part in mixed.network.state_dict().values())


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_learns_in_bfloat16(architecture: Architecture) -> None:
    """The loss falls and stays finite; weights stay float32."""
    hours = np.arange(24 * 21)
    values_TSF = np.zeros((hours.size, 6, 11), np.float32)
    rhythm_T = np.where((hours % 24 >= 8) & (hours % 24 < 18), 5.0, 0.0)
    values_TSF[:, :, 0] = rhythm_T[:, None] * (1 + np.arange(6))
    config = small_training(updates=60, validate_every=60, learning_rate=1e-2)
    model = dataclasses.replace(config.model, architecture=architecture, context=16)
    config = dataclasses.replace(config, model=model, precision="bfloat16")
    seen: list[TrainProgress] = []

    trained = train(history_of(values_TSF), config, seen.append)

    assert np.isfinite([at.loss for at in seen]).all()
    assert seen[-1].loss < 0.8 * seen[0].loss
    assert all(part.dtype == torch.float32 for part in trained.network.state_dict().values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_rounds_the_encoding_but_not_the_state(architecture: Architecture) -> None:
    config = small_training()
    model = dataclasses.replace(config.model, architecture=architecture, context=16)
    picked = pick_series(
        history_of(real_hours(days=5, series=6)), model, end=96, every=24, limit=6, power=0.5
    )
    torch.manual_seed(3)
    network = QuantileNetwork(model)
    lanes = LaneGroups(picked, network, config, np.random.default_rng(3), Ranks())
    lanes.begin()
    chunk, before = lanes.next_chunk(), lanes.state
    exact, after = encode(network, chunk, before, torch.device("cpu"))
    rounded, rounded_after = encode(network, chunk, before, torch.device("cpu"), mixed=True)

    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
    assert rounded.dtype == torch.float32
    for part, exact_part in zip(rounded_after, after, strict=True):
        assert part.dtype == torch.float32
        torch.testing.assert_close(part, exact_part, rtol=0.05, atol=0.05)


@pytest.mark.slow
def test_training_stops_early_when_validation_gets_no_better() -> None:
    """On pure noise it stops after `patience` validations without a gain."""
    history = history_of(real_hours(days=14, series=10))
    config = small_training(
        updates=600, validate_every=2, patience=2, learning_rate=1.0, finish_share=0.0
    )

    assert train(history, config).metrics["updates"] < 300
