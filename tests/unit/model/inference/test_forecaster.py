"""Carried state equals a full re-read, and every forecast is valid."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from model.baselines.exponential_smoothing import SmoothingForecaster
from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.contract import FEATURE_NAMES, QuantileForecast
from model.durations import DAY_MS, HOUR_MS, MINUTE_MS, WEEK_MS
from model.errors import InvalidValues
from model.inference.cuda_graph_stepper import FixedShapeStepper
from model.inference.forecaster import Forecaster, NetworkForecaster
from model.inputs.carried_statistics import UNITS
from model.inputs.seasons.calendar import N_CALENDAR
from model.inputs.series_inputs import new_carried, observe
from model.pretraining.shipped import pretrained
from model.workspace import Workspace
from tests.support.model_cases import (
    ARCHITECTURES,
    START_MS,
    VARIANTS,
    awkward,
    of_variant,
    phases_at,
    real_hours,
    reread,
    step_through,
    untrained,
    with_clicks,
    with_fixed_shape,
)

#: A nominal month, a twelfth of a year.
MONTH_MS = 2_629_746_000


def _naive() -> SeasonalNaiveForecaster:
    return SeasonalNaiveForecaster(horizon=24, bucket_ms=HOUR_MS)


@pytest.fixture(params=[*VARIANTS, "seasonal-naive", "smoothing"])
def forecaster(request: pytest.FixtureRequest) -> Forecaster:
    """Every kind of forecaster, and the fixed-shape steps of a GPU."""
    if request.param == "seasonal-naive":
        return _naive()
    if request.param == "smoothing":
        return SmoothingForecaster(horizon=24, bucket_ms=HOUR_MS)
    return of_variant(request.param, untrained)


@pytest.fixture(params=[*ARCHITECTURES, "lstm-fixed_shape"])
def network(request: pytest.FixtureRequest) -> NetworkForecaster:
    """Every architecture, and the fixed-shape steps of a GPU."""
    return of_variant(request.param, untrained)


def _assert_same(a: QuantileForecast, b: QuantileForecast, tolerance: float = 1e-4) -> None:
    scale = max(1.0, float(np.abs(a.units_SHQ).max()))
    assert a.origin_ms == b.origin_ms
    np.testing.assert_allclose(a.units_SHQ, b.units_SHQ, rtol=0, atol=tolerance * scale)
    scale = max(1.0, float(np.abs(a.cumulative_SHQ).max()))
    np.testing.assert_allclose(a.cumulative_SHQ, b.cumulative_SHQ, rtol=0, atol=tolerance * scale)


@pytest.mark.slow
def test_carried_state_equals_a_full_reread_on_real_series(forecaster: Forecaster) -> None:
    values_TSF = with_clicks(real_hours(days=9, series=25))

    _assert_same(step_through(forecaster, values_TSF), reread(forecaster, values_TSF))


def test_stepping_equals_the_sequence_the_network_was_trained_on(
    network: NetworkForecaster,
) -> None:
    """`forward` over a sequence and `step` bucket by bucket give the same encodings."""
    values = torch.from_numpy(real_hours(days=5, series=12))
    values = values[:, (values[0] != 0).any(dim=1) | (values[:60] != 0).any(dim=2).any(dim=0)]
    stats = new_carried(values.shape[1], network.config)
    inputs = torch.stack(
        [
            observe(stats, bucket, phases_at(START_MS + t * HOUR_MS), network.config)
            for t, bucket in enumerate(values)
        ],
        dim=1,
    )
    encoder = network.network.encoder
    generator = torch.Generator().manual_seed(1)
    calendar_TC = torch.rand(len(values), N_CALENDAR, generator=generator)
    zero = encoder.new_state(values.shape[1], torch.device("cpu"))
    expected, after = encoder.forward(inputs, calendar_TC.expand(values.shape[1], -1, -1), zero)

    state = encoder.new_state(values.shape[1], torch.device("cpu"))
    work = Workspace()
    with torch.no_grad():
        stepped = [
            encoder.step(inputs[:, t], calendar_TC[t], state, work).clone()
            for t in range(len(values))
        ]

    torch.testing.assert_close(torch.stack(stepped, dim=1), expected, rtol=0, atol=1e-4)
    for carried, whole in zip(state, after, strict=True):
        torch.testing.assert_close(carried, whole, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_empty_history_before_a_series_starts_has_no_effect(network: NetworkForecaster) -> None:
    """A series read after a week of zeros has the same forecast as one that starts now."""
    values_TSF = real_hours(days=8, series=8)
    values_TSF[: 24 * 7] = 0
    states = network.new_states(8)
    forecast = None
    for t in range(24 * 7, len(values_TSF)):
        forecast = network.step(states, values_TSF[t], START_MS + t * HOUR_MS)
    assert forecast is not None

    _assert_same(step_through(network, values_TSF), forecast)


def test_a_series_that_has_not_started_has_zero_state(network: NetworkForecaster) -> None:
    values_TSF = real_hours(days=1, series=4)
    values_TSF[:, 0, 0], values_TSF[:, 1:] = 3, 0
    states = network.new_states(4)
    for t, values_SF in enumerate(values_TSF[:5]):
        network.step(states, values_SF, START_MS + t * HOUR_MS)

    for part in states.state:
        assert part[0].abs().max() > 0
        assert part[1:].abs().max() == 0


@pytest.mark.slow
def test_a_series_that_joins_late_forecasts_as_if_it_had_always_been_there(
    forecaster: Forecaster,
) -> None:
    """Rows that appear later grow the states; missing rows count as silent."""
    values_TSF = real_hours(days=4, series=10)
    values_TSF[:60, 6:] = 0
    values_TSF[80:, 9] = 0
    states = forecaster.new_states(1)
    for t, values_SF in enumerate(values_TSF):
        rows = 6 if t < 60 else 9 if t >= 80 else 10
        forecast = forecaster.step(states, values_SF[:rows], START_MS + t * HOUR_MS)

    assert states.size == 10
    _assert_same(step_through(forecaster, values_TSF), forecast)


@pytest.mark.slow
def test_blocks_of_series_are_independent(network: NetworkForecaster) -> None:
    """Many series at once have the same forecasts as a few of them alone."""
    few_TSF = real_hours(days=1, series=5)
    many_TSF = np.tile(few_TSF, (1, 450, 1))

    few, many = step_through(network, few_TSF), step_through(network, many_TSF)

    _assert_same(
        few,
        QuantileForecast(
            few.origin_ms,
            few.bucket_ms,
            few.quantiles,
            many.units_SHQ[-5:],
            many.cumulative_SHQ[-5:],
            many.mean_SH[-5:],
            few.model_id,
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_fixed_shape_gives_the_forecasts_of_blocks(architecture: str) -> None:
    """A step of all series at the shape of their capacity gives the same forecasts."""
    blocks = untrained(architecture=architecture)
    values_TSF = with_clicks(real_hours(days=4, series=30))

    _assert_same(step_through(with_fixed_shape(blocks), values_TSF), reread(blocks, values_TSF))


@pytest.mark.slow
def test_missing_buckets_count_as_zeros(forecaster: Forecaster) -> None:
    values_TSF = real_hours(days=4, series=6)
    values_TSF[50:70] = 0
    states = forecaster.new_states(6)
    for t in (*range(50), *range(70, len(values_TSF))):
        forecast = forecaster.step(states, values_TSF[t], START_MS + t * HOUR_MS)

    _assert_same(step_through(forecaster, values_TSF), forecast)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "make",
    [
        *(lambda s, a=a: untrained(seed=s, architecture=a) for a in ARCHITECTURES),
        lambda _: _naive(),
    ],
)
def test_forecasts_of_awkward_series_are_monotone_finite_and_never_negative(
    make: Callable[[int], Forecaster], seed: int
) -> None:
    forecaster = make(seed)
    _, values_TSF = awkward(buckets=200)
    states = forecaster.new_states(1)
    for t, values_SF in enumerate(values_TSF):
        forecast = forecaster.step(states, values_SF, START_MS + t * HOUR_MS)
        if t % 37 and t != len(values_TSF) - 1:
            continue
        for block in (forecast.units_SHQ, forecast.cumulative_SHQ):
            assert block.dtype == np.float32
            assert np.isfinite(block).all()
            assert block.min() >= 0
            assert (np.diff(block, axis=2) >= 0).all()
        assert (np.diff(forecast.cumulative_SHQ, axis=1) >= 0).all()
        if isinstance(forecaster, NetworkForecaster):
            assert (forecast.cumulative_SHQ >= forecast.units_SHQ).all()


@pytest.mark.slow
@pytest.mark.parametrize("stepper", ["blocks", "fixed_shape"])
@pytest.mark.parametrize("bucket_ms", [15 * 60_000, DAY_MS, WEEK_MS, MONTH_MS])
def test_carried_seasons_equal_a_reread_at_any_width_over_a_new_year(
    bucket_ms: int, stepper: str
) -> None:
    """Closed weekdays, public holidays, a season of the year, and a series that starts late."""
    network = untrained(bucket_ms=bucket_ms, horizon=10)
    if stepper == "fixed_shape":
        network = with_fixed_shape(network)
    buckets, stepped = {
        15 * 60_000: (200, 100), DAY_MS: (410, 30), WEEK_MS: (70, 30), MONTH_MS: (20, 12)
    }[bucket_ms]  # fmt: skip
    start_ms = START_MS + 88 * DAY_MS if bucket_ms < DAY_MS else START_MS
    rng = np.random.default_rng(8)
    season_T = 1 + np.sin(np.arange(buckets) * 2 * np.pi * bucket_ms / (365.25 * DAY_MS))
    values_TSF = np.zeros((buckets, 5, 11), np.float32)
    values_TSF[..., 0] = rng.poisson(np.array([0.2, 3.0, 40.0, 8.0, 9.0]) * season_T[:, None])
    values_TSF[:, 2, 0] *= (start_ms + bucket_ms * np.arange(buckets)) // DAY_MS % 7 != 3
    values_TSF[: buckets // 3, 4] = 0

    states, fresh = network.new_states(5), network.new_states(5)
    network.warm_up(states, values_TSF[:-stepped], start_ms)
    for t in range(buckets - stepped, buckets):
        carried = network.step(states, values_TSF[t], start_ms + t * bucket_ms)
    network.warm_up(fresh, values_TSF[:-1], start_ms)
    again = network.step(fresh, values_TSF[-1], start_ms + (buckets - 1) * bucket_ms)

    _assert_same(carried, again)
    torch.testing.assert_close(states.stats_SK, fresh.stats_SK, rtol=1e-4, atol=1e-4)
    assert states.stats_SK.abs().max(dim=0).values.count_nonzero() > 20


@pytest.mark.parametrize("stepper", ["blocks", "fixed_shape"])
def test_any_quantiles_are_published(stepper: str) -> None:
    """The network's own among them are as they were; all rise, none is negative."""
    values_TSF = real_hours(days=2, series=12)
    plain = untrained(targets=("revenue",))
    levels = (0.01, 0.05, *plain.quantiles[:4], 0.45, *plain.quantiles[4:], 0.95, 0.99)
    more = NetworkForecaster(
        plain.network, "more", quantiles=levels,
        stepper=FixedShapeStepper if stepper == "fixed_shape" else None,
    )  # fmt: skip
    own, published = step_through(plain, values_TSF), step_through(more, values_TSF)

    assert more.quantiles == published.quantiles == levels
    places = [levels.index(level) for level in plain.quantiles]
    for name in ("units_SHQ", "cumulative_SHQ"):
        one, other = getattr(own, name), getattr(published, name)
        assert other.shape == (12, 24, len(levels))
        np.testing.assert_allclose(other[..., places], one, rtol=1e-5, atol=1e-5)
        assert (np.diff(other, axis=2) >= -1e-4).all()
        assert other.min() >= 0
    assert (np.diff(published.cumulative_SHQ, axis=1) >= 0).all()
    assert (published.cumulative_SHQ >= published.units_SHQ).all()
    assert published.units_SHQ[..., -1].mean() > 1.2 * own.units_SHQ[..., -1].mean()
    assert published.extras["revenue"].shape == (12, 24, len(levels))


def test_the_first_bucket_forecast_is_the_one_after_the_closed_one(forecaster: Forecaster) -> None:
    states = forecaster.new_states(1)

    forecast = forecaster.step(states, np.ones((2, 11), np.float32), START_MS)

    assert forecast.origin_ms == START_MS + HOUR_MS
    assert forecast.units_SHQ.shape == (2, 24, 9)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0])
def test_invalid_demand_is_refused_and_changes_nothing(
    forecaster: Forecaster, wrong: float
) -> None:
    values_TSF = real_hours(days=1, series=3)
    states = forecaster.new_states(3)
    for t in range(10):
        forecaster.step(states, values_TSF[t], START_MS + t * HOUR_MS)
    bad_SF = values_TSF[10].copy()
    bad_SF[1, 0] = wrong

    with pytest.raises(InvalidValues):
        forecaster.step(states, bad_SF, START_MS + 10 * HOUR_MS)

    after = forecaster.step(states, values_TSF[10], START_MS + 10 * HOUR_MS)
    _assert_same(step_through(forecaster, values_TSF[:11]), after)


@pytest.mark.parametrize("start_ms", [START_MS, START_MS - HOUR_MS, START_MS + 1])
def test_a_bucket_that_does_not_follow_is_refused(forecaster: Forecaster, start_ms: int) -> None:
    states = forecaster.new_states(1)
    forecaster.step(states, np.ones((1, 11), np.float32), START_MS)

    with pytest.raises(InvalidValues):
        forecaster.step(states, np.ones((1, 11), np.float32), start_ms)


def test_states_of_another_forecaster_are_refused() -> None:
    with pytest.raises(TypeError):
        untrained().step(_naive().new_states(1), np.ones((1, 11), np.float32), START_MS)
    with pytest.raises(TypeError):
        _naive().step(untrained().new_states(1), np.ones((1, 11), np.float32), START_MS)


@pytest.mark.parametrize("stepper", ["blocks", "fixed_shape"])
def test_a_rare_product_is_expected_to_sell_as_rarely_in_short_buckets(stepper: str) -> None:
    """The floor of the scale, 0.02 units a bucket, is 28.8 units a day in buckets of a minute."""
    shipped_one = NetworkForecaster(
        pretrained(bucket_ms=MINUTE_MS, horizon=2, country=None),
        "m",
        stepper=FixedShapeStepper if stepper == "fixed_shape" else None,
    )
    minutes = DAY_MS // MINUTE_MS
    values_TSF = np.zeros((minutes, 2, len(FEATURE_NAMES)), np.float32)
    values_TSF[minutes // 2, 0, UNITS] = 1.0
    states = shipped_one.new_states(2)

    shipped_one.warm_up(states, values_TSF[:-1], START_MS)
    forecast = shipped_one.step(states, values_TSF[-1], START_MS + DAY_MS - MINUTE_MS)

    assert 0.3 < forecast.mean_SH[0, 0] * minutes < 3.0
    assert forecast.mean_SH[1, 0] == 0.0  # it has not sold at all
