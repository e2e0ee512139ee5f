"""Training, serving and importance read the wall clock of the network's time zone alike.

A zone that is always five hours behind must give what UTC gives for times five hours earlier.
"""

from dataclasses import replace

import numpy as np
import pytest

from model.config import ModelConfig
from model.durations import DAY_MS, HOUR_MS
from model.evaluation.importance import permutation_importance
from model.history import History
from model.inference.forecaster import NetworkForecaster
from model.pretraining.shipped import pretrained
from model.training.train import train
from tests.support.model_cases import (
    START_MS,
    history_of,
    real_hours,
    small_training,
    untrained,
    with_clicks,
    with_fixed_shape,
)

ZONE, BEHIND_MS = "Etc/GMT+5", 5 * HOUR_MS


def _earlier(history: History) -> History:
    return replace(history, start_ms=history.start_ms - BEHIND_MS)


@pytest.mark.parametrize("fixed_shape", [False, True])
def test_a_served_network_reads_the_wall_clock(*, fixed_shape: bool) -> None:
    values_TSF = with_clicks(real_hours(days=12, series=5))
    made = []
    for zone, start_ms in ((ZONE, START_MS), ("UTC", START_MS - BEHIND_MS), ("UTC", START_MS)):
        forecaster = untrained(timezone=zone)
        if fixed_shape:
            forecaster = with_fixed_shape(forecaster)
        states = forecaster.new_states(5)
        forecaster.warm_up(states, values_TSF[:-1], start_ms)
        last_ms = start_ms + (len(values_TSF) - 1) * HOUR_MS
        made.append(forecaster.step(states, values_TSF[-1], last_ms).units_SHQ)

    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_a_network_is_trained_on_the_wall_clock() -> None:
    history = history_of(real_hours(days=10, series=5))
    config = small_training()
    local = replace(config, model=replace(config.model, timezone=ZONE))
    nets = [
        train(history, local).network,
        train(_earlier(history), config).network,
        train(history, config).network,
    ]

    first, second, third = (net.heads.write.weight.detach().numpy() for net in nets)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)


def test_importance_is_measured_by_the_wall_clock() -> None:
    history = history_of(real_hours(days=10, series=5))
    origins_ms = np.array([START_MS + 8 * DAY_MS])
    local = permutation_importance(history, untrained(timezone=ZONE).network, [*origins_ms])
    plain = permutation_importance(
        _earlier(history), untrained().network, [*(origins_ms - BEHIND_MS)]
    )

    assert local.wql == plain.wql
    assert [one.wql_rise for one in local.inputs] == [one.wql_rise for one in plain.inputs]


def test_the_pretrained_network_takes_the_zone_of_any_shop() -> None:
    network = pretrained(bucket_ms=HOUR_MS, horizon=24, country="JP", timezone="Asia/Tokyo")

    forecaster = NetworkForecaster(network, "pretrained")
    assert forecaster.config.timezone == "Asia/Tokyo"
    made = forecaster.step(forecaster.new_states(1), np.ones((1, 11), np.float32), START_MS)
    assert np.isfinite(made.units_SHQ).all()


def test_a_configuration_of_an_older_build_has_the_clock_of_utc() -> None:
    older = ModelConfig(horizon=24, bucket_ms=HOUR_MS).as_dict()
    assert "timezone" not in older
    assert ModelConfig.from_dict(older).timezone == "UTC"

    tokyo = ModelConfig(horizon=24, bucket_ms=HOUR_MS, timezone="Asia/Tokyo")
    assert ModelConfig.from_dict(tokyo.as_dict()) == tokyo


@pytest.mark.parametrize("name", ["Mars/Olympus", "Europe", "", "../etc/passwd", "/etc/localtime"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a time zone"):
        ModelConfig(horizon=24, bucket_ms=HOUR_MS, timezone=name)
