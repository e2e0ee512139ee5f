"""Restored states continue exactly; a foreign or damaged snapshot is refused."""

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from model.contract import QuantileForecast
from model.durations import HOUR_MS
from model.errors import CorruptCheckpoint, IncompatibleCheckpoint
from model.inference.forecaster import NetworkForecaster
from model.inference.network_states import NetworkStates, read_statistics
from model.inputs.static_features import static_row
from tests.support.model_cases import (
    ARCHITECTURES,
    START_MS,
    real_hours,
    untrained,
    with_static,
)


def _read(forecaster: NetworkForecaster, buckets: int = 60) -> NetworkStates:
    states = forecaster.new_states(4)
    forecaster.warm_up(states, real_hours(days=3, series=9)[:buckets], START_MS)
    return states


def _next(forecaster: NetworkForecaster, states: NetworkStates) -> QuantileForecast:
    return forecaster.step(states, real_hours(days=3, series=9)[60], START_MS + 60 * HOUR_MS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_after_a_restore_is_the_same_bit_for_bit(architecture: str) -> None:
    forecaster = untrained(architecture=architecture)
    states = _read(forecaster)
    snapshot = states.snapshot(forecaster.model_id)

    expected = _next(forecaster, states)
    restored = forecaster.restore(snapshot)
    assert restored.last_ms == START_MS + 59 * HOUR_MS
    made = _next(forecaster, restored)

    assert restored.size == 9
    assert expected.origin_ms == made.origin_ms
    np.testing.assert_array_equal(made.units_SHQ, expected.units_SHQ)
    np.testing.assert_array_equal(made.cumulative_SHQ, expected.cumulative_SHQ)
    assert restored.snapshot("x") == states.snapshot("x")


def test_restored_states_take_new_series() -> None:
    forecaster = untrained()
    restored = forecaster.restore(_read(forecaster).snapshot(forecaster.model_id))

    forecast = forecaster.step(restored, real_hours(days=3, series=20)[60], START_MS + 60 * HOUR_MS)

    assert forecast.units_SHQ.shape[0] == 20


def test_a_snapshot_without_series_can_be_restored() -> None:
    forecaster = untrained()
    states = forecaster.new_states(8)

    restored = forecaster.restore(states.snapshot(forecaster.model_id))

    assert restored.size == 0
    assert restored.last_ms is None


def test_a_snapshot_of_another_model_is_refused() -> None:
    forecaster = untrained()
    snapshot = _read(forecaster).snapshot("another")

    with pytest.raises(IncompatibleCheckpoint, match="another"):
        forecaster.restore(snapshot)


def test_a_snapshot_of_other_shapes_is_refused() -> None:
    forecaster = untrained()
    other = untrained(hidden=8)
    snapshot = _read(other).snapshot(forecaster.model_id)

    with pytest.raises(IncompatibleCheckpoint, match="does not fit"):
        forecaster.restore(snapshot)


def test_states_with_inherited_statistics_are_those_of_a_model_that_carried_them() -> None:
    """Static features stay; the newcomer's prior is derived by the own network."""
    values_TSF = real_hours(days=3, series=9)
    static_SX = np.stack([static_row(f"c{slot % 3}", list_price=2.0) for slot in range(9)])
    carrier, heir = untrained(), with_static()
    carried, expected = carrier.new_states(4), heir.new_states(4)
    carrier.warm_up(carried, values_TSF[:60], START_MS)
    expected.set_static(static_SX)
    heir.warm_up(expected, values_TSF[:60], START_MS)

    made = heir.new_states(4)
    made.set_static(static_SX)
    made.inherit(read_statistics(carried.statistics_snapshot(), heir.config))
    for states in (made, expected):
        heir.step(states, values_TSF[60], START_MS + 60 * HOUR_MS)

    np.testing.assert_array_equal(made.stats_SK[:9], expected.stats_SK[:9])


def test_statistics_of_another_identity_are_refused() -> None:
    snapshot = _read(untrained()).statistics_snapshot()
    other = untrained(memory_days=7.0)

    with pytest.raises(IncompatibleCheckpoint, match="statistics"):
        read_statistics(snapshot, other.config)


@pytest.mark.parametrize("damage", ["cut", "foreign", "nan"])
def test_damaged_statistics_are_refused(damage: str) -> None:
    forecaster = untrained()
    states = _read(forecaster)
    if damage == "nan":
        with torch.inference_mode():
            states.stats_SK[2, 3] = float("nan")
    snapshot = states.statistics_snapshot()
    payload = {"cut": snapshot[:-9], "foreign": b"no safetensors", "nan": snapshot}[damage]

    with pytest.raises(CorruptCheckpoint):
        read_statistics(payload, forecaster.config)


@pytest.mark.parametrize("damage", ["cut", "foreign", "no header", "nan"])
def test_a_damaged_snapshot_is_refused(damage: str) -> None:
    forecaster = untrained()
    states = _read(forecaster)
    if damage == "nan":
        with torch.inference_mode():
            states.state[0][2, 3] = float("nan")
    snapshot = states.snapshot(forecaster.model_id)
    payload = {
        "cut": snapshot[:-9],
        "foreign": b"no safetensors at all",
        "no header": save(load(snapshot)),
        "nan": snapshot,
    }[damage]

    with pytest.raises(CorruptCheckpoint):
        forecaster.restore(payload)
