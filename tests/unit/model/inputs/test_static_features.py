"""Static features are carried and stored with the states, and cost nothing if unused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.config import ModelConfig, TrainConfig
from model.durations import HOUR_MS
from model.errors import InvalidValues
from model.evaluation.backtest import backtest, score
from model.evaluation.importance import permutation_importance
from model.inference.forecaster import NetworkForecaster
from model.inference.network_states import NetworkStates
from model.inputs.anchors import anchors_of
from model.inputs.seasons.season_layout import layout_of
from model.inputs.series_inputs import carried_width
from model.inputs.static_features import N_STATIC, N_STATIC_CARRIED, ROWS, row_of, static_row
from model.networks.quantile_network import QuantileNetwork
from model.training.checkpoint import dump, input_hash, restore
from model.training.dataset import pick_series
from model.training.lanes import LaneGroups, encode
from model.training.ranks import Ranks
from model.training.run_file import fingerprint
from model.training.train import train
from tests.support.model_cases import (
    ARCHITECTURES,
    START_MS,
    STATIC_SETTINGS,
    VARIANTS,
    Floats,
    history_of,
    of_variant,
    real_hours,
    reread,
    small_training,
    step_through,
    untrained,
    with_clicks,
    with_static,
)

CATEGORIES = ("bags", "toys", "garden")


def static_of(series: int) -> Floats:
    """Category, location, brand and price of series; every fourth is unknown."""
    rows = [
        static_row() if slot % 4 == 3 else static_row(CATEGORIES[slot % 3], "Berlin", "x", 1 + slot)
        for slot in range(series)
    ]
    return np.stack(rows)


def _states(forecaster: NetworkForecaster, static_SX: Floats) -> NetworkStates:
    states = forecaster.new_states(1)
    states.set_static(static_SX)
    return states


@pytest.fixture(params=VARIANTS)
def forecaster(request: pytest.FixtureRequest) -> NetworkForecaster:
    """Every architecture, and the fixed-shape steps of a GPU."""
    return of_variant(request.param, with_static)


@pytest.mark.slow
def test_carried_state_equals_a_full_reread(forecaster: NetworkForecaster) -> None:
    values_TSF = with_clicks(real_hours(days=5, series=14))
    values_TSF[:70, 5] = 0

    made = step_through(forecaster, values_TSF, static_SX=static_of(14))
    again = reread(forecaster, values_TSF, static_SX=static_of(14))

    np.testing.assert_allclose(made.units_SHQ, again.units_SHQ, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(made.cumulative_SHQ, again.cumulative_SHQ, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("year_terms", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_serving_equals_training(architecture: str, year_terms: bool) -> None:
    """Chunk, encoder and heads of training against the carried step, with newcomers."""
    forecaster = with_static(architecture=architecture, year_terms=year_terms)
    network, config = forecaster.network, forecaster.config
    values_TSF = with_clicks(real_hours(days=5, series=9))
    values_TSF[0, :, 0] += 1  # a lane's state starts with its chunk
    history = history_of(values_TSF, static_of(9))
    picked = pick_series(history, config, end=120, every=96, limit=9, power=0.5)
    picked.prior = network.prior
    lanes_GB = torch.arange(9)[None]
    stats_NK = picked.grid_GSK[0].clone()
    with torch.inference_mode():
        chunk = picked.chunk(lanes_GB, stats_NK, np.array([0]), length=96, end=120)
        cpu = torch.device("cpu")
        encoded_NLD, _ = encode(network, chunk, network.new_state(9, cpu), cpu)
        inputs_NI = network.with_embedding(chunk.inputs_NLI[:, -1], chunk.ids_N3)
        horizon_OHC = picked.horizon_calendar(chunk.first_G, np.array([95]))
        ahead = layout_of(HOUR_MS).horizon(chunk.ends_NL[:, -1], 24, config.holidays_country)
        anchors = anchors_of(chunk.carried_NLK[:, -1], ahead, config).map(lambda part: part[None])
        units, _ = network.heads(encoded_NLD[None, :, -1], inputs_NI[None], horizon_OHC, anchors)
        expected = units[0].clamp(min=0.0) * chunk.scale_NL[:, -1, None, None]
    states = _states(forecaster, static_of(9))
    forecaster.warm_up(states, values_TSF[:95], START_MS)

    made = forecaster.step(states, values_TSF[95], START_MS + 95 * HOUR_MS)

    np.testing.assert_allclose(made.units_SHQ, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_a_snapshot_keeps_static_features(forecaster: NetworkForecaster) -> None:
    values_TSF = real_hours(days=2, series=9)
    states = _states(forecaster, static_of(9))
    forecaster.warm_up(states, values_TSF[:30], START_MS)
    restored = forecaster.restore(states.snapshot(forecaster.model_id))

    expected, made = (
        forecaster.step(one, values_TSF[30], START_MS + 30 * HOUR_MS) for one in (states, restored)
    )

    np.testing.assert_array_equal(made.units_SHQ, expected.units_SHQ)


def test_static_features_survive_growth_and_may_be_set_later() -> None:
    forecaster = with_static()
    values_TSF = real_hours(days=2, series=9)
    known_SX = static_of(9)
    early, late, never = (forecaster.new_states(2) for _ in range(3))
    early.set_static(known_SX[:4])
    made = []
    for t in range(30):
        if t == 20:
            early.set_static(known_SX)
            late.set_static(known_SX)
        rows = 4 if t < 10 else 9
        made = [
            forecaster.step(states, values_TSF[t, :rows], START_MS + t * HOUR_MS).units_SHQ
            for states in (early, late, never)
        ]
    assert early.stats_SK[:9, -6:-2].numpy().tolist() == known_SX[:, :N_STATIC_CARRIED].tolist()
    assert np.abs(made[0] - made[2]).max() > 0.01
    assert np.abs(made[1] - made[2]).max() > 0.01
    np.testing.assert_array_equal(made[1][3], made[2][3])  # its static features were unknown


def test_a_name_unseen_in_training_counts_as_unknown() -> None:
    forecaster = with_static()
    embedding = forecaster.network.embedding
    assert embedding is not None
    with torch.inference_mode():
        embedding.met.zero_()
        embedding.mark_seen(torch.from_numpy(static_of(2)))
        met, unmet, unknown = (
            embedding(torch.from_numpy(row[None, :3]).long())
            for row in (static_row("bags"), static_row("lamps"), static_row())
        )

    assert torch.equal(unmet, unknown)
    assert not torch.equal(met, unknown)


def test_rows_are_the_same_in_every_build() -> None:
    assert (row_of("category", "bags"), row_of("brand", "bags"), row_of("brand", "")) == (
        769,
        497,
        0,
    )


@pytest.mark.parametrize(
    "wrong_SX",
    [
        np.zeros((2, N_STATIC + 1), np.float32),
        np.full((2, N_STATIC), ROWS, np.float32),
        np.full((2, N_STATIC), 0.5, np.float32),
        np.full((2, N_STATIC), -1, np.float32),
        np.full((2, N_STATIC), np.nan, np.float32),
    ],
    ids=["shape", "row", "fraction", "negative", "nan"],
)
def test_invalid_static_features_are_refused(wrong_SX: Floats) -> None:
    with pytest.raises(InvalidValues, match="static"):
        with_static().new_states(2).set_static(wrong_SX)
    with pytest.raises(InvalidValues, match="static"):
        history_of(real_hours(days=1, series=2), wrong_SX)


def test_a_network_without_static_features_ignores_them() -> None:
    """Weights, statistics and forecasts are the same with and without static features."""
    plain = untrained()
    values_SF = real_hours(days=1, series=5)[10]
    made = [
        plain.step(states, values_SF, START_MS).units_SHQ
        for states in (_states(plain, static_of(5)), plain.new_states(1))
    ]

    np.testing.assert_array_equal(made[0], made[1])
    assert carried_width(plain.config) == layout_of(HOUR_MS).end
    assert not any(name.startswith(("embedding", "prior")) for name in plain.network.state_dict())


def test_another_set_of_inputs_has_another_hash() -> None:
    plain = ModelConfig(horizon=6, bucket_ms=HOUR_MS)
    configs = [
        plain,
        replace(plain, static=4),
        replace(plain, static=8),
        replace(plain, prior=True),
    ]

    assert len({input_hash(config) for config in configs}) == len(configs)


@pytest.mark.slow
def test_training_uses_static_features_and_a_checkpoint_keeps_them() -> None:
    values_TSF = real_hours(days=14, series=10)
    history = history_of(values_TSF, static_of(10))
    plain = small_training()
    config = small_training(
        model=ModelConfig.from_dict(plain.model.as_dict() | STATIC_SETTINGS), unknown_share=0.3
    )
    trained, again = (train(history, config) for _ in range(2))
    for name, weight in trained.network.state_dict().items():
        assert torch.equal(weight, again.network.state_dict()[name]), name
    embedding, prior = trained.network.embedding, trained.network.prior
    assert embedding is not None
    assert prior is not None
    assert embedding.rows[row_of("category", "toys")].abs().max() > 0
    assert prior.worth_days > 0

    payload, manifest = dump(trained)
    origins = [START_MS + 13 * 24 * HOUR_MS]
    result = backtest(
        history,
        {
            "trained": NetworkForecaster(trained.network, "trained"),
            "restored": NetworkForecaster(restore(payload, manifest), "restored"),
        },
        origins,
    )
    unknown = backtest(
        history_of(values_TSF),
        {"trained": NetworkForecaster(trained.network, "trained")},
        origins,
    )

    np.testing.assert_array_equal(result.forecast["trained"], result.forecast["restored"])
    assert np.abs(result.forecast["trained"] - unknown.forecast["trained"]).max() > 0
    assert fingerprint(history, config) != fingerprint(history_of(values_TSF), config)


def test_some_lanes_have_hidden_static_features() -> None:
    values_TSF = real_hours(days=14, series=10)
    static_SX = np.tile(static_row("bags", "Berlin", "x", 2.0), (10, 1))
    history = history_of(values_TSF, static_SX)
    model = ModelConfig(horizon=6, bucket_ms=HOUR_MS, hidden=8, layers=1, rank=4, static=4)
    config = TrainConfig(
        model=model, lanes=400, groups=2, chunk=24, cold_share=0.5, unknown_share=0.25
    )
    picked = pick_series(history, model, end=300, every=24, limit=10, power=0.5)
    lanes = LaneGroups(picked, QuantileNetwork(model), config, np.random.default_rng(1), Ranks())
    lanes.begin()

    hidden_NX = lanes.stats_NK[:, -6:-2] == 0
    assert hidden_NX.float().mean(dim=0).tolist() == pytest.approx([0.25] * 4, abs=0.07)


@pytest.mark.slow
def test_importance_reads_static_features_as_serving_does() -> None:
    forecaster = with_static()
    history = history_of(real_hours(days=12, series=12), static_of(12))
    origins = [START_MS + day * 24 * HOUR_MS for day in (9, 10)]
    result = backtest(history, {"net": forecaster}, origins)

    found = permutation_importance(history, forecaster.network, origins, repeats=1)

    assert found.wql == pytest.approx(score(result, "net").wql, rel=1e-4)
