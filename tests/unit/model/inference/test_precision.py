"""Serving with products in bfloat16: nearly the same forecasts, from the same float32 states."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from model.durations import HOUR_MS
from model.inference.cuda_graph_stepper import FixedShapeStepper
from model.inference.forecaster import NetworkForecaster
from model.networks import quantile_network
from model.pretraining.shipped import shipped
from stream.jobs.training.train import train_config
from stream.registry.model_registry import Registry
from stream.registry.served_models import ServedModels
from stream.settings import ModelSettings
from tests.support.model_cases import (
    ARCHITECTURES,
    random_model,
    real_hours,
    require_coherent,
    reread,
    step_through,
    untrained,
    with_clicks,
)


@pytest.fixture(autouse=True)
def _a_cpu_with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any CPU computes it, if slowly."""
    monkeypatch.setattr(quantile_network, "has_bfloat16", lambda _device: True)


@pytest.mark.parametrize("stepper", ["blocks", "fixed_shape"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_forecasts_are_nearly_those_of_float32(architecture: str, stepper: str) -> None:
    exact = untrained(architecture=architecture)
    rounded = NetworkForecaster(
        exact.network, "rounded", rounded=True,
        stepper=FixedShapeStepper if stepper == "fixed_shape" else None,
    )  # fmt: skip
    values_TSF = with_clicks(real_hours(days=3, series=12))

    one, other = step_through(rounded, values_TSF), step_through(exact, values_TSF)

    scale = np.abs(other.units_SHQ).max()
    assert 0 < np.abs(one.units_SHQ - other.units_SHQ).max() < 0.05 * scale
    require_coherent(one)
    assert (np.diff(one.units_SHQ, axis=-1) >= 0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_and_weights_stay_float32(architecture: str) -> None:
    """And the network that was given serves others as before."""
    exact = untrained(architecture=architecture)
    rounded = NetworkForecaster(exact.network, "rounded", rounded=True)
    states = rounded.new_states(3)
    rounded.step(states, real_hours(days=1, series=3)[0], 0)

    assert exact.network.encoder.products == torch.float32
    assert rounded.network.encoder.products == torch.bfloat16
    assert {part.dtype for part in (states.stats_SK, *states.state)} == {torch.float32}
    assert {part.dtype for part in rounded.network.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_carried_states_equal_a_reread(architecture: str) -> None:
    """Both take the same steps, so rounding is no difference between them."""
    network = untrained(architecture=architecture).network
    rounded = NetworkForecaster(network, "rounded", rounded=True)
    values_TSF = with_clicks(real_hours(days=4, series=12))

    one, other = step_through(rounded, values_TSF), reread(rounded, values_TSF)

    np.testing.assert_array_equal(one.units_SHQ, other.units_SHQ)


def test_a_cpu_without_it_serves_in_float32_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(quantile_network, "has_bfloat16", lambda _device: False)
    # import-linter, which a test of the architecture runs, disables all loggers
    monkeypatch.setattr(quantile_network.log, "disabled", False)
    with caplog.at_level(logging.WARNING):
        forecaster = NetworkForecaster(untrained().network, "exact", rounded=True)

    assert forecaster.network.encoder.products == torch.float32
    assert "no bfloat16 (model.precision)" in caplog.text


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [(ModelSettings(), torch.float32), (ModelSettings(precision="bfloat16"), torch.bfloat16)],
    ids=["auto", "bfloat16"],
)
def test_the_setting_reaches_served_models_and_trainings(
    tmp_path: Path, settings: ModelSettings, dtype: torch.dtype
) -> None:
    registry = Registry(str(tmp_path))
    model_id = registry.publish(random_model(1, span_end_ms=10**12), promote=True)
    served = ServedModels(registry, settings, bucket_ms=HOUR_MS)

    for name in (model_id, shipped()[1].model_id):
        assert served.load(name).network.encoder.products == dtype
    assert train_config(settings, bucket_ms=HOUR_MS).mixed == (dtype == torch.bfloat16)
