"""Equal identities mean equal statistics, whatever else differs between two models."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.config import ModelConfig
from model.durations import DAY_MS, HOUR_MS
from model.inference.forecaster import NetworkForecaster
from model.inputs.statistics_identity import inherited_width, statistics_identity
from model.networks.quantile_network import QuantileNetwork
from tests.support.model_cases import awkward, with_clicks

#: 2011-12-23T00:00Z, before public holidays.
_CHRISTMAS_MS = 1_324_598_400_000
_BASE = ModelConfig(horizon=3, bucket_ms=HOUR_MS, hidden=4, layers=1, rank=2, context=4)
#: Another value of every setting that is not a switch.
_OTHER: dict[str, Any] = {
    "horizon": 5, "bucket_ms": DAY_MS, "quantiles": (0.5,), "architecture": "gru", "hidden": 8,
    "layers": 2, "rank": 4, "dropout": 0.3, "context": 8, "memory_days": 2.0, "scale_floor": 0.5,
    "censored_share": 0.1, "inputs_off": ("demand",), "static": 2, "holidays_country": None,
    "targets": ("revenue",), "timezone": "America/New_York",
}  # fmt: skip


def _other(name: str) -> ModelConfig:
    value = getattr(_BASE, name)
    changed: dict[str, Any] = {name: not value if isinstance(value, bool) else _OTHER[name]}
    return replace(_BASE, **changed)


def _carried(config: ModelConfig) -> NDArray[np.float32]:
    torch.manual_seed(0)
    forecaster = NetworkForecaster(QuantileNetwork(config), "m")
    states = forecaster.new_states(1)
    values_TSF = with_clicks(awkward(120)[1])
    values_TSF[..., 10] = 0.3 * (values_TSF[..., 9] > 0)  # out of stock for a part of each bucket
    forecaster.warm_up(states, values_TSF, _CHRISTMAS_MS)
    return states.stats_SK[: states.size, : inherited_width(config)].numpy()


@pytest.mark.parametrize("name", [field.name for field in fields(ModelConfig)])
def test_a_setting_changes_the_identity_if_and_only_if_it_changes_the_statistics(name: str) -> None:
    other = _other(name)

    same = np.array_equal(_carried(_BASE), _carried(other))
    assert (statistics_identity(_BASE) == statistics_identity(other)) == same
