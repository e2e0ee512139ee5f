"""Revenue and visitors as further targets: carried, monotone, learned, and absent if off."""

import dataclasses

import numpy as np
import pytest
import torch

from model.config import DECILES, TARGETS, ModelConfig
from model.contract import QuantileForecast
from model.durations import HOUR_MS
from model.evaluation.metrics import wql
from model.evaluation.sanity_check import find_fault
from model.inference.forecaster import NetworkForecaster
from model.inputs.anchors import FACTORS, Anchors
from model.inputs.carried_statistics import PRICE
from model.inputs.plans import Plans
from model.inputs.seasons.calendar import N_HORIZON
from model.inputs.series_inputs import new_carried
from model.inputs.static_features import LIST_PRICE
from model.inputs.targets import scales_of
from model.networks.quantile_heads import QuantileHeads
from model.networks.quantile_levels import PublishedLevels
from model.quantiles.coherence import make_coherent
from model.training.checkpoint import Manifest, dump, input_hash, restore
from model.training.dataset import pick_series
from model.training.train import Trained, train
from model.workspace import Workspace
from tests.support.model_cases import (
    START_MS,
    STATIC_SETTINGS,
    Floats,
    awkward,
    history_of,
    real_hours,
    small_training,
    stock_up,
    untrained,
    with_clicks,
    with_fixed_shape,
    with_static,
)

VARIANTS = ("lstm", "gru", "transformer", "lstm-static", "lstm-fixed_shape")


@pytest.fixture(params=VARIANTS)
def forecaster(request: pytest.FixtureRequest) -> NetworkForecaster:
    """A network with both targets, of every kind."""
    architecture, _, variant = request.param.partition("-")
    make = with_static if variant == "static" else untrained
    made = make(architecture=architecture, targets=TARGETS)
    return with_fixed_shape(made) if variant == "fixed_shape" else made


def _step_through(forecaster: NetworkForecaster, values_TSF: Floats) -> QuantileForecast:
    states = forecaster.new_states(1)
    for t, values_SF in enumerate(values_TSF):
        forecast = forecaster.step(states, values_SF, START_MS + t * HOUR_MS)
    return forecast


def _assert_same(a: QuantileForecast, b: QuantileForecast) -> None:
    assert set(a.extras) == set(b.extras) == set(TARGETS)
    for name, block in a.extras.items():
        largest = max(1.0, float(np.abs(block).max()))
        np.testing.assert_allclose(block, b.extras[name], rtol=0, atol=1e-4 * largest)


@pytest.mark.slow
def test_carried_state_equals_a_full_reread(forecaster: NetworkForecaster) -> None:
    values_TSF = with_clicks(real_hours(days=9, series=25))
    states = forecaster.new_states(1)
    forecaster.warm_up(states, values_TSF[:-1], START_MS)

    again = forecaster.step(states, values_TSF[-1], START_MS + (len(values_TSF) - 1) * HOUR_MS)

    _assert_same(_step_through(forecaster, values_TSF), again)


def test_one_fixed_shape_gives_the_forecasts_of_blocks_with_plans() -> None:
    """Includes series with plans ahead, which a GPU forecasts a second time."""
    blocks = untrained(targets=TARGETS, plans=True)
    answer = blocks.network.heads.answer
    assert answer is not None
    with torch.inference_mode():
        answer.weight.normal_(generator=torch.Generator().manual_seed(2))
    values_TSF = with_clicks(real_hours(days=2, series=8))
    ahead_TNP = np.zeros((25, 2, 4), np.float32)
    ahead_TNP[1:, :, 0] = 0.3
    plans = Plans(np.array([1, 5]), ahead_TNP)
    made = []
    for one in (blocks, with_fixed_shape(blocks)):
        states = one.new_states(8)
        one.warm_up(states, values_TSF[:-1], START_MS)
        last_ms = START_MS + (len(values_TSF) - 1) * HOUR_MS
        made.append(one.step(states, values_TSF[-1], last_ms, plans))

    _assert_same(*made)
    without = _step_through(blocks, values_TSF)
    for name in TARGETS:
        moved_S = np.abs(made[0].extras[name] - without.extras[name]).max(axis=(1, 2))
        assert np.flatnonzero(moved_S > 1e-3).tolist() == [1, 5]


@pytest.mark.slow
def test_forecasts_are_monotone_finite_and_never_negative(forecaster: NetworkForecaster) -> None:
    """For any sales, also with more returns than sales."""
    _, values_TSF = awkward(buckets=150)
    values_TSF[::5, :, 2] *= -3

    forecast = _step_through(forecaster, with_clicks(values_TSF))

    assert list(forecast.extras) == list(TARGETS)
    for block in forecast.extras.values():
        assert block.shape == forecast.units_SHQ.shape
        assert block.dtype == np.float32
        assert np.isfinite(block).all()
        assert block.min() >= 0
        assert (np.diff(block, axis=2) >= 0).all()


def test_a_snapshot_continues_with_targets() -> None:
    forecaster = untrained(targets=TARGETS)
    values_TSF = with_clicks(real_hours(days=3, series=6))
    states = forecaster.new_states(6)
    forecaster.warm_up(states, values_TSF[:-1], START_MS)
    kept = forecaster.restore(states.snapshot(forecaster.model_id))

    last_ms = START_MS + (len(values_TSF) - 1) * HOUR_MS
    one, other = (forecaster.step(each, values_TSF[-1], last_ms) for each in (states, kept))

    for name in TARGETS:
        np.testing.assert_array_equal(one.extras[name], other.extras[name])


def test_targets_do_not_enlarge_states() -> None:
    sizes = {untrained(targets=t).new_states(1).bytes_per_series for t in ((), TARGETS)}

    assert len(sizes) == 1


def test_serving_equals_training_in_each_scale() -> None:
    torch.manual_seed(2)
    heads = QuantileHeads(16, 3, N_HORIZON, quantiles=DECILES, rank=4, n_targets=2).eval()
    encoded, inputs, horizon = torch.randn(7, 16), torch.randn(7, 3), torch.rand(1, 5, N_HORIZON)
    anchors = Anchors(torch.randn(len(FACTORS), 7, 5).unbind(0), torch.rand(7))
    scales = tuple(torch.rand(7) * 10 for _ in range(4))
    with torch.no_grad():
        trained = heads(encoded[None], inputs[None], horizon, anchors.map(lambda part: part[None]))
        served = tuple(torch.empty(7, 5, 9) for _ in range(4))
        weights = heads.horizon_weights(horizon)[0].flatten(2)
        heads.serve(
            encoded, inputs, weights, scales, served,
            mean_BH=torch.empty(7, 5), anchors=anchors, work=Workspace(),
            levels=PublishedLevels.of(DECILES, DECILES),
        )  # fmt: skip

    expected = [
        seen[0].clamp(min=0) * scale[:, None, None]
        for seen, scale in zip(trained, scales, strict=True)
    ]
    make_coherent(*(block.numpy() for block in expected[:2]))
    for out, block in zip(served, expected, strict=True):
        torch.testing.assert_close(out, block, rtol=1e-5, atol=1e-5)


def test_revenue_of_a_series_without_a_sale_is_scaled_by_its_list_price() -> None:
    config = ModelConfig(horizon=2, bucket_ms=HOUR_MS, targets=("revenue",), prior=True)
    stats = new_carried(3, config)
    stats[1:, LIST_PRICE] = 20.0
    stats[2, PRICE] = 15.0

    units_S, _, revenue_S = scales_of(stats, config)

    assert (revenue_S / units_S).tolist() == pytest.approx([1.0, 20.0, 15.0])


def test_targets_are_never_negative_and_revenue_is_censored() -> None:
    """Revenue of a stock-out is censored, visitors are not."""
    values_TSF = with_clicks(real_hours(days=10, series=6))
    values_TSF[..., 9:] = 0
    values_TSF[::3, :, 2] = -5.0
    out_T = np.arange(len(values_TSF)) % 4 == 0
    stock_up(values_TSF, 2, out_T)
    model = dataclasses.replace(small_training().model, targets=TARGETS)
    picked = pick_series(history_of(values_TSF), model, end=200, every=24, limit=6, power=0.5)
    lanes_GB = torch.arange(len(picked.index_S))[None]

    chunk = picked.chunk(
        lanes_GB, new_carried(lanes_GB.numel(), model), np.array([24]), length=12, end=200
    )

    revenue, visitors = chunk.targets
    ahead_XBF = values_TSF[25 : 25 + revenue.ahead_NX.shape[1], picked.index_S]
    np.testing.assert_array_equal(revenue.ahead_NX, ahead_XBF[..., 2].clip(0).T)
    np.testing.assert_array_equal(visitors.ahead_NX, ahead_XBF[..., 8].T)
    assert visitors.known_NX.min() == 1
    assert (revenue.known_NX[2].numpy() == ~out_T[25:][: len(ahead_XBF)]).all()
    assert revenue.known_NX[[0, 1, 3]].min() == 1


@pytest.mark.parametrize("targets", [("profit",), ("revenue", "revenue")])
def test_unknown_targets_are_refused(targets: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="targets"):
        ModelConfig.from_dict({"horizon": 2, "bucket_ms": HOUR_MS, "targets": targets})


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A short training with both targets."""
    config = small_training()
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, targets=TARGETS))
    return train(history_of(with_clicks(real_hours(days=10, series=5))), config)


@pytest.mark.slow
def test_a_restored_checkpoint_has_its_targets(trained: Trained) -> None:
    payload, manifest = dump(trained)
    network = restore(payload, Manifest.from_json(manifest.to_json()))
    values_SF = with_clicks(real_hours(days=1, series=5))[10]
    made = []
    for each in (trained.network, network):
        forecaster = NetworkForecaster(each, "x")
        made.append(forecaster.step(forecaster.new_states(5), values_SF, START_MS))

    assert network.config.targets == TARGETS
    for name in TARGETS:
        np.testing.assert_array_equal(made[0].extras[name], made[1].extras[name])


def test_a_checkpoint_without_targets_has_no_such_key_and_loads() -> None:
    """An older build wrote the same configuration, inputs and weights."""
    config = small_training()
    payload, manifest = dump(train(history_of(real_hours(days=10, series=5)), config))

    network = restore(payload, Manifest.from_json(manifest.to_json()))

    assert "targets" not in manifest.model
    assert network.config == config.model
    assert network.heads.write.out_features == (config.model.rank + 1) * 2 * 9
    assert manifest.input_hash == input_hash(dataclasses.replace(config.model, targets=TARGETS))


def test_a_network_without_targets_forecasts_none() -> None:
    forecast = _step_through(untrained(**STATIC_SETTINGS), real_hours(days=1, series=3))  # type: ignore[arg-type]

    assert forecast.extras == {}


def test_a_broken_target_is_a_fault() -> None:
    forecast = _step_through(untrained(targets=TARGETS), real_hours(days=1, series=3))
    assert find_fault(forecast, None) is None

    forecast.extras["visitors"][0, 3] = np.nan

    assert find_fault(forecast, None) == "its forecasts are not finite"


@pytest.mark.slow
def test_revenue_follows_a_price_change_that_the_seasonal_naive_misses() -> None:
    """Units are unchanged, the price rose by half two days ago."""
    rng = np.random.default_rng(4)
    hours = np.arange(24 * 35)
    values_TSF = np.zeros((hours.size, 12, 11), np.float32)
    level_S = rng.uniform(2, 8, 12)
    rhythm_T = np.where((hours % 24 >= 8) & (hours % 24 < 18), 1.5, 0.2)
    values_TSF[..., 0] = rng.poisson(rhythm_T[:, None] * level_S)
    price_TS = np.tile(rng.uniform(2, 40, 12), (hours.size, 1))
    for slot in range(12):  # prices change at times, so that the network can learn it
        for moved in rng.integers(24, 24 * 26, 4):
            price_TS[moved:, slot] *= rng.uniform(0.6, 1.6)
    origin = 24 * 33
    price_TS[origin - 48 :] *= 1.5
    values_TSF[..., 2] = values_TSF[..., 0] * price_TS
    values_TSF[..., 3] = values_TSF[..., 0] > 0
    config = small_training(updates=200, validate_every=50, learning_rate=1e-2)
    model = dataclasses.replace(config.model, targets=("revenue",), horizon=24)
    past_TSF = values_TSF[:origin]
    network = train(history_of(past_TSF), dataclasses.replace(config, model=model)).network

    forecaster = NetworkForecaster(network, "x")
    states = forecaster.new_states(12)
    forecaster.warm_up(states, past_TSF[:-1], START_MS)
    forecast = forecaster.step(states, past_TSF[-1], START_MS + (origin - 1) * HOUR_MS)

    actual_N = values_TSF[origin : origin + 24, :, 2].T.reshape(-1)
    naive_N = values_TSF[origin - 168 : origin - 144, :, 2].T.reshape(-1)
    ours = wql(actual_N, forecast.extras["revenue"].reshape(-1, 9), forecaster.quantiles)
    naive = wql(actual_N, np.tile(naive_N[:, None], 9), forecaster.quantiles)
    median_SH = forecast.extras["revenue"][:, :, 4]
    assert ours < 0.7 * naive
    assert median_SH.sum() == pytest.approx(actual_N.sum(), rel=0.25)
