"""Plans of past and future are inputs, have no effect where absent, and can be learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.config import DECILES, ModelConfig
from model.contract import QuantileForecast
from model.durations import DAY_MS, HOUR_MS
from model.errors import InvalidValues
from model.evaluation.backtest import backtest
from model.evaluation.importance import PLANS, permutation_importance
from model.inference.forecaster import NetworkForecaster
from model.inputs.anchors import FACTORS, Anchors
from model.inputs.plans import CLOSURE, EVENT, N_PLANS, PLAN_INPUT_NAMES, PRICE, PROMOTION, Plans
from model.inputs.seasons.calendar import N_HORIZON
from model.inputs.series_inputs import places_of
from model.networks.quantile_levels import PublishedLevels
from model.quantiles.coherence import make_coherent
from model.training.checkpoint import input_hash
from model.training.dataset import History, last_buckets
from model.training.train import train
from model.workspace import Workspace
from tests.support.model_cases import (
    ARCHITECTURES,
    START_MS,
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
    with_fixed_shape,
)

SERIES = 12
HORIZON = 24


def _planner(**changes: object) -> NetworkForecaster:
    """A network with random plan weights, as if trained."""
    made = untrained(plans=True, **changes)  # type: ignore[arg-type]  # settings by name
    network = made.network
    answer = network.heads.answer
    assert answer is not None
    torch.manual_seed(1)
    torch.nn.init.normal_(answer.weight, std=0.5)
    torch.nn.init.normal_(answer.bias, std=0.5)
    columns = torch.tensor(places_of(PLAN_INPUT_NAMES, made.config))
    for weight, first in ((network.encoder.input_weights, 0), (network.heads.project.weight, 16)):
        weight[:, first + columns] = torch.randn(len(weight), len(columns)) * 0.3
    return made


@pytest.fixture(params=VARIANTS)
def planner(request: pytest.FixtureRequest) -> NetworkForecaster:
    """Every architecture with plans, and the fixed-shape steps of a GPU."""
    return of_variant(request.param, _planner)


def _plans(buckets: int, *, seed: int = 2) -> Plans:
    """Plans of every kind for every other series, most buckets without any."""
    rng = np.random.default_rng(seed)
    values_TSP = rng.random((buckets, SERIES, N_PLANS), np.float32)
    values_TSP[..., PRICE] *= 6
    values_TSP *= rng.random((buckets, SERIES, N_PLANS)) < 0.2
    values_TSP[:, ::2] = 0
    return Plans.from_dense(values_TSP)


def _values() -> Floats:
    return with_clicks(real_hours(days=4, series=SERIES))


def _difference(one: QuantileForecast, other: QuantileForecast, rows: slice = slice(None)) -> float:
    """Largest difference, relative to the larger of the two forecasts, at least 1 unit."""
    difference = 0.0
    for a, b in ((one.units_SHQ, other.units_SHQ), (one.cumulative_SHQ, other.cumulative_SHQ)):
        a_, b_ = a[rows], b[rows]
        difference = max(
            difference, float((np.abs(a_ - b_) / np.maximum(1, np.maximum(a_, b_))).max())
        )
    return difference


@pytest.mark.slow
def test_carried_plans_equal_a_full_reread(planner: NetworkForecaster) -> None:
    values_TSF = _values()
    plans = _plans(len(values_TSF) + HORIZON)

    carried = step_through(planner, values_TSF, plans)

    assert _difference(carried, reread(planner, values_TSF, plans)) < 1e-4


@pytest.mark.slow
def test_carried_plans_equal_the_plans_of_training(planner: NetworkForecaster) -> None:
    """Training runs a whole sequence through encoder and heads."""
    values_TSF = _values()
    history = history_of(
        np.concatenate((values_TSF, np.ones((HORIZON, *values_TSF.shape[1:]), np.float32))),
        plans=_plans(len(values_TSF) + 2 * HORIZON),
    )
    origin_ms = START_MS + len(values_TSF) * HOUR_MS
    made = backtest(history, {"carried": planner}, [origin_ms])

    read = permutation_importance(history, planner.network, [origin_ms], repeats=1)

    total = made.actual_OSH.sum(dtype=np.float64)
    q_Q = np.array(made.quantiles)
    miss = made.actual_OSH[..., None] - made.forecast["carried"]
    assert read.wql == pytest.approx(
        2 * np.maximum(q_Q * miss, (q_Q - 1) * miss).sum() / total / q_Q.size, rel=1e-4
    )
    assert next(one for one in read.inputs if one.name == PLANS).wql_rise != 0


@pytest.mark.parametrize("seed", range(2))
def test_heads_serve_plans_as_in_training(seed: int) -> None:
    """Units and sums of a training batch, and of the same series served."""
    heads = _planner(seed=seed).network.heads
    rng = torch.Generator().manual_seed(seed)
    width = heads.project.in_features
    both_BX = torch.randn(SERIES, width, generator=rng)
    calendar_HC = torch.rand(HORIZON, N_HORIZON, generator=rng)
    logs = torch.randn(len(FACTORS), SERIES, HORIZON, generator=rng).unbind(0)
    anchors = Anchors(logs, torch.rand(SERIES, generator=rng))
    plans_MHE = torch.rand(3, HORIZON, len(PLAN_INPUT_NAMES), generator=rng)
    rows_M = torch.tensor([1, 4, 5])
    plans_BHE = torch.zeros(SERIES, HORIZON, len(PLAN_INPUT_NAMES)).index_copy(0, rows_M, plans_MHE)
    out = torch.empty(SERIES, HORIZON, 9), torch.empty(SERIES, HORIZON, 9)

    with torch.inference_mode():
        encoded_BD, inputs_BI = both_BX[:, :16], both_BX[:, 16:]
        trained = heads(
            encoded_BD[None], inputs_BI[None], calendar_HC[None],
            anchors.map(lambda part: part[None]), plans_BHE[None],
        )  # fmt: skip
        weights = heads.horizon_weights(calendar_HC[None])[0].flatten(2)
        heads.serve(
            encoded_BD, inputs_BI, weights, (torch.ones(SERIES),) * 2, out,
            mean_BH=torch.empty(SERIES, HORIZON), anchors=anchors, work=Workspace(),
            levels=PublishedLevels.of(DECILES, DECILES),
            planned=(rows_M, plans_MHE),
        )  # fmt: skip

    expected = [block_OBHQ[0].clamp(min=0) for block_OBHQ in trained]
    make_coherent(*(block.numpy() for block in expected))
    for served_BHQ, expected_BHQ in zip(out, expected, strict=True):
        torch.testing.assert_close(served_BHQ, expected_BHQ, rtol=1e-4, atol=1e-4)


def test_blocks_and_one_fixed_shape_give_the_same() -> None:
    blocks = _planner()
    values_TSF = _values()
    plans = _plans(len(values_TSF) + HORIZON)

    fixed = step_through(with_fixed_shape(blocks), values_TSF, plans)

    assert _difference(fixed, reread(blocks, values_TSF, plans)) < 1e-4


@pytest.mark.slow
def test_empty_plans_are_no_plans(planner: NetworkForecaster) -> None:
    values_TSF = _values()
    nothing = Plans(np.arange(SERIES), np.zeros((len(values_TSF) + 24, SERIES, 4), np.float32))

    empty = step_through(planner, values_TSF, nothing)

    assert _difference(empty, step_through(planner, values_TSF, None)) == 0


def test_a_plan_changes_its_own_series_only(planner: NetworkForecaster) -> None:
    values_TSF = _values()
    plain = reread(planner, values_TSF, None)

    planned = reread(planner, values_TSF, _plans(len(values_TSF) + HORIZON))

    assert _difference(planned, plain, slice(0, None, 2)) < 1e-6
    assert _difference(planned, plain, slice(1, None, 2)) > 0.01


def test_a_plan_ahead_changes_its_own_buckets_and_the_sums_from_there_on(
    planner: NetworkForecaster,
) -> None:
    values_TSF = _values()
    ahead = np.zeros((1 + HORIZON, 1, N_PLANS), np.float32)
    ahead[1 + 5, 0, PROMOTION] = 0.4
    states = [planner.new_states(SERIES) for _ in range(2)]
    for carried in states:
        planner.warm_up(carried, values_TSF[:-1], START_MS)
    last_ms = START_MS + (len(values_TSF) - 1) * HOUR_MS

    plain = planner.step(states[0], values_TSF[-1], last_ms)
    planned = planner.step(states[1], values_TSF[-1], last_ms, Plans(np.array([3]), ahead))

    units_H = np.abs(planned.units_SHQ - plain.units_SHQ)[3].max(axis=1)
    sums_H = np.abs(planned.cumulative_SHQ - plain.cumulative_SHQ)[3].max(axis=1)
    assert np.flatnonzero(units_H > 1e-4).tolist() == [5]
    assert np.flatnonzero(sums_H > 1e-4).tolist() == list(range(5, HORIZON))


@pytest.mark.slow
def test_forecasts_with_plans_are_monotone_and_never_negative(planner: NetworkForecaster) -> None:
    values_TSF = _values()

    forecast = step_through(planner, values_TSF, _plans(len(values_TSF) + HORIZON))

    for block in (forecast.units_SHQ, forecast.cumulative_SHQ):
        assert np.isfinite(block).all()
        assert block.min() >= 0
        assert (np.diff(block, axis=2) >= 0).all()
    assert (np.diff(forecast.cumulative_SHQ, axis=1) >= 0).all()


@pytest.mark.slow
def test_states_with_plans_survive_a_snapshot(planner: NetworkForecaster) -> None:
    values_TSF = _values()
    plans = _plans(len(values_TSF) + HORIZON)
    states = planner.new_states(SERIES)
    planner.warm_up(states, values_TSF[:60], START_MS, plans)

    kept = planner.restore(states.snapshot(planner.model_id))
    planner.warm_up(kept, values_TSF[60:-1], START_MS + 60 * HOUR_MS, plans.between(60, 95))
    known = plans.between(95, 96 + HORIZON)
    forecast = planner.step(kept, values_TSF[-1], START_MS + 95 * HOUR_MS, known)

    assert _difference(forecast, step_through(planner, values_TSF, plans)) < 1e-4


@pytest.mark.slow
def test_a_network_without_plans_ignores_them() -> None:
    values_TSF = _values()
    plain = untrained()

    planned = step_through(plain, values_TSF, _plans(len(values_TSF) + HORIZON))

    assert _difference(planned, step_through(plain, values_TSF, None)) == 0


def test_plans_change_the_hash_of_the_inputs() -> None:
    config = ModelConfig(horizon=2, bucket_ms=HOUR_MS)

    assert input_hash(config) != input_hash(replace(config, plans=True))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.1])
def test_invalid_plan_values_are_refused(wrong: float) -> None:
    values_TNP = np.zeros((2, 1, N_PLANS), np.float32)
    values_TNP[1, 0, CLOSURE] = wrong

    with pytest.raises(InvalidValues):
        Plans(np.array([0]), values_TNP)


def test_plans_out_of_order_or_of_unknown_series_are_refused() -> None:
    with pytest.raises(InvalidValues):
        Plans(np.array([2, 1]), np.zeros((1, 2, N_PLANS), np.float32))
    with pytest.raises(InvalidValues):
        Plans(np.array([0]), np.zeros((1, 2, N_PLANS), np.float32))
    foreign = Plans(np.array([SERIES]), np.zeros((1, 1, N_PLANS), np.float32))
    with pytest.raises(InvalidValues):
        history_of(_values(), plans=foreign)


def test_the_last_buckets_keep_their_plans() -> None:
    """Plans beyond the end are kept as well."""
    history = _promoted(30, horizon=7)
    assert history.plans is not None

    recent = last_buckets(history, 12)

    assert recent.plans is not None
    assert recent.end_ms == history.end_ms
    np.testing.assert_array_equal(recent.values_TSF, history.values_TSF[18:])
    np.testing.assert_array_equal(recent.plans.dense(24), history.plans.dense(24)[18:])
    assert recent.plans.buckets == 12 + 7


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_kind_of_plan_absent_from_the_data_has_no_effect(architecture: str) -> None:
    """After training on promotions only, an event has no random effect."""
    history = _promoted(90, horizon=7)
    model = ModelConfig(
        horizon=7, bucket_ms=DAY_MS, hidden=8, layers=1, rank=8, plans=True,
        architecture=architecture, context=8,  # type: ignore[arg-type]  # one of the three
    )  # fmt: skip
    network = train(history, small_training(model=model)).network
    forecaster = NetworkForecaster(network, "promoted")
    event = np.zeros((8, 1, N_PLANS), np.float32)
    event[..., EVENT] = 1.0
    bucket_SF = history.values_TSF[0]

    plain, planned = (
        forecaster.step(forecaster.new_states(1), bucket_SF, START_MS, plans)
        for plans in (None, Plans(np.array([0]), event))
    )

    assert _difference(planned, plain) == 0


def _promoted(days: int, *, horizon: int) -> History:
    """Daily demand of 24 series: three times as much on promoted days, twice at half the share."""
    rng = np.random.default_rng(4)
    series = 24
    values_TSF = np.zeros((days, series, 11), np.float32)
    plans_TSP = np.zeros((days + horizon, series, N_PLANS), np.float32)
    plans_TSP[..., PROMOTION] = rng.choice(3, (days + horizon, series), p=(0.8, 0.1, 0.1)) / 2
    level_S = rng.uniform(5, 40, series)
    promoted_TS = plans_TSP[:days, :, PROMOTION]
    values_TSF[..., 0] = rng.poisson(level_S * (1 + 2 * promoted_TS))
    values_TSF[..., 2] = values_TSF[..., 0] * 2
    values_TSF[..., 3] = values_TSF[..., 0] > 0
    return history_of(values_TSF, bucket_ms=DAY_MS, plans=Plans.from_dense(plans_TSP))


@pytest.mark.slow
def test_a_network_trained_on_promotions_forecasts_more_with_one() -> None:
    """Trained on demand that rises with promotions, compared with the forecast without plans."""
    history = _promoted(150, horizon=7)
    model = ModelConfig(
        horizon=7, bucket_ms=DAY_MS, hidden=16, layers=1, rank=8, dropout=0.0, plans=True
    )
    trained = train(history, small_training(model=model, updates=150, learning_rate=1e-2))
    forecaster = NetworkForecaster(trained.network, "promoted")
    ahead = np.zeros((8, 2, N_PLANS), np.float32)
    ahead[4] = [[0.5, 0, 0, 0], [1.0, 0, 0, 0]]
    rows_N = np.array([0, 1])
    forecasts = []
    for plans in (None, Plans(rows_N, ahead)):
        states = forecaster.new_states(len(history.series))
        forecaster.warm_up(states, history.values_TSF[:-1], START_MS, history.plans)
        last_ms = history.end_ms - DAY_MS
        forecasts.append(forecaster.step(states, history.values_TSF[-1], last_ms, plans))

    plain_SH, planned_SH = (made.units_SHQ[:2, :, 4] for made in forecasts)
    ratio_SH = planned_SH / plain_SH
    assert ratio_SH[0, 3] > 1.4
    assert ratio_SH[1, 3] > 2.0
    assert np.delete(ratio_SH, 3, axis=1).tolist() == [[1.0] * 6] * 2
