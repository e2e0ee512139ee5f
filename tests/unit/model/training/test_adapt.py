"""A network takes over the weights of another with other inputs, targets, plans or terms."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.config import TARGETS, ModelConfig
from model.contract import QuantileForecast
from model.durations import DAY_MS, HOUR_MS
from model.errors import IncompatibleCheckpoint
from model.inference.forecaster import NetworkForecaster
from model.inputs.plans import N_PLANS, Plans
from model.inputs.seasons.calendar import N_CALENDAR, YEAR_TERMS
from model.inputs.series_inputs import input_names, places_of
from model.networks.quantile_network import QuantileNetwork
from model.training.adapt import adapted
from model.training.train import train
from tests.support.model_cases import (
    Floats,
    history_of,
    real_hours,
    reread,
    small_training,
    untrained,
    with_clicks,
)

#: Further inputs and targets, apart and together.
FURTHER: dict[str, dict[str, object]] = {
    "plans": {"plans": True},
    "static": {"static": 4},
    "prior": {"prior": True},
    "year terms": {"year_terms": True},
    "targets": {"targets": TARGETS},
    "horizon": {"horizon": 30},
    "all": {"plans": True, "static": 4, "prior": True, "targets": TARGETS, "year_terms": True},
}


def _start(**changes: object) -> QuantileNetwork:
    return untrained(**changes).network  # type: ignore[arg-type]  # settings by name


def _with(start: QuantileNetwork, **changes: object) -> ModelConfig:
    return ModelConfig.from_dict(start.config.as_dict() | changes)


def _forecast(network: QuantileNetwork, values_TSF: Floats) -> QuantileForecast:
    return reread(NetworkForecaster(network, "x"), values_TSF)


def _values() -> Floats:
    return with_clicks(real_hours(days=3, series=8))


def _assert_same(one: QuantileForecast, other: QuantileForecast, steps: int = 24) -> None:
    for name in ("units_SHQ", "cumulative_SHQ"):
        np.testing.assert_allclose(
            getattr(one, name)[:, :steps], getattr(other, name)[:, :steps], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(
    ("architecture", "further"),
    [*(("lstm", further) for further in FURTHER), ("gru", "all"), ("transformer", "all")],
)
def test_new_inputs_start_without_effect(architecture: str, further: str) -> None:
    """Forecasts of series without the new inputs are those of the network started from."""
    start = _start(architecture=architecture)
    network = adapted(start, _with(start, **FURTHER[further]))

    assert network.config == _with(start, **FURTHER[further])
    _assert_same(_forecast(network, _values()), _forecast(start, _values()))


def test_weights_are_matched_by_the_names_of_inputs() -> None:
    """Of two sets of inputs with a common part, in both directions."""
    start = _start(plans=True, prior=True)
    with torch.no_grad():
        start.encoder.input_weights.normal_()
    network = adapted(start, _with(start, prior=False, static=4))

    common = [name for name in input_names(start.config) if name in input_names(network.config)]
    assert set(input_names(start.config)) - set(common) == {"prior_ratio", "shrunk_ratio"}
    old, new = (places_of(tuple(common), each.config) for each in (start, network))
    old_XI, new_XI = start.encoder.input_weights, network.encoder.input_weights
    assert torch.equal(old_XI[:, old], new_XI[:, new])
    assert torch.equal(old_XI[:, -N_CALENDAR:], new_XI[:, -N_CALENDAR:])
    width = start.encoder.width
    old_RI, new_RI = start.heads.project.weight, network.heads.project.weight
    assert torch.equal(old_RI[:, :width], new_RI[:, :width])
    assert torch.equal(old_RI[:, [width + c for c in old]], new_RI[:, [width + c for c in new]])


def test_learned_plans_embeddings_and_targets_are_kept() -> None:
    start = _start(plans=True, static=4, targets=("visitors",))
    assert start.heads.answer is not None
    assert start.embedding is not None
    with torch.no_grad():
        start.heads.answer.weight.normal_()
        start.embedding.rows.normal_()
    network = adapted(start, _with(start, targets=("revenue", "visitors")))
    values_TSF = _values()
    plans_TSP = np.zeros((len(values_TSF) + 24, 8, N_PLANS), np.float32)
    plans_TSP[60:, ::2, 0] = 0.3
    plans = Plans.from_dense(plans_TSP)
    static_SX = np.zeros((8, 5), np.float32)
    static_SX[:, 0] = 7.0
    one, other = (
        reread(NetworkForecaster(each, "x"), values_TSF, plans, static_SX=static_SX)
        for each in (start, network)
    )

    _assert_same(one, other)
    np.testing.assert_allclose(one.extras["visitors"], other.extras["visitors"], rtol=1e-4)


def test_a_new_target_starts_like_units() -> None:
    """In its own scale: revenue is units times the price."""
    start = _start()
    made = _forecast(adapted(start, _with(start, targets=("revenue",))), _priced(4.0))

    np.testing.assert_allclose(made.extras["revenue"], 4.0 * made.units_SHQ, rtol=1e-3, atol=1e-3)


def _priced(price: float) -> Floats:
    values_TSF = real_hours(days=2, series=4)
    values_TSF[..., 1] = 0.0
    values_TSF[..., 2] = price * values_TSF[..., 0]
    return values_TSF


def test_inputs_that_were_off_start_without_effect() -> None:
    """Their weights are random: the network has never seen them."""
    start = _start(inputs_off=("rate", "demand", "views"))
    network = adapted(start, _with(start, inputs_off=()))

    _assert_same(_forecast(network, _values()), _forecast(start, _values()))


@pytest.mark.slow
def test_what_starts_without_effect_is_learned() -> None:
    """Plans, embedding, prior and terms of the year get gradients, and change the forecasts."""
    rng = np.random.default_rng(2)
    values_TSF = np.zeros((150, 12, 11), np.float32)
    values_TSF[..., 0] = rng.poisson(6.0, (150, 12))
    plans_TSP = np.zeros((157, 12, N_PLANS), np.float32)
    plans_TSP[..., 0] = rng.random((157, 12)) < 0.2
    static_SX = np.zeros((12, 5), np.float32)
    static_SX[:, :3] = rng.integers(1, 9, (12, 3))
    history = history_of(values_TSF, static_SX, bucket_ms=DAY_MS, plans=Plans.from_dense(plans_TSP))
    config = small_training(model=ModelConfig(horizon=7, bucket_ms=DAY_MS, hidden=8, layers=1))
    start = QuantileNetwork(config.model)
    model = replace(config.model, plans=True, static=4, year_terms=True)
    first = adapted(start, model)

    trained = train(history, replace(config, model=model), start=first).network

    moved = {
        name: not torch.equal(part, first.state_dict()[name])
        for name, part in trained.state_dict().items()
    }
    for name in ("heads.answer.weight", "embedding.rows", "encoder.lstm.weight_ih_l0"):
        assert moved[name], name
    plan_columns = places_of(("plan_promotion",), model)
    for columns in (plan_columns, [term - N_CALENDAR for term in YEAR_TERMS]):
        assert first.encoder.input_weights[:, columns].abs().max() == 0
        assert trained.encoder.input_weights[:, columns].abs().max() > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": 24},
        {"layers": 1},
        {"rank": 12},
        {"architecture": "gru"},
        {"quantiles": [0.1, 0.5, 0.9]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_shape_is_refused_by_name(changes: dict[str, object]) -> None:
    start = _start()

    with pytest.raises(IncompatibleCheckpoint, match=next(iter(changes))):
        adapted(start, _with(start, **changes))


def test_the_network_started_from_is_not_changed() -> None:
    start = _start(plans=True)
    before = {name: part.clone() for name, part in start.state_dict().items()}
    network = adapted(start, _with(start, bucket_ms=HOUR_MS // 4, horizon=8))
    with torch.no_grad():
        for part in network.parameters():
            part.add_(1.0)

    for name, part in start.state_dict().items():
        assert torch.equal(part, before[name]), name
