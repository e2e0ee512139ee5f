"""A product without any event is forecast from the first sales of similar products."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.contract import QuantileForecast
from model.durations import DAY_MS
from model.inference.forecaster import NetworkForecaster
from model.inputs.carried_statistics import UNITS, VIEWS
from model.inputs.static_features import static_row
from model.inputs.unseen_demand import _levels, fit_unseen
from model.networks.quantile_network import QuantileNetwork
from model.training.dataset import History
from tests.support.model_cases import START_MS, Floats, untrained

#: Mean units per day of a product by category.
LEVELS = {"bags": 0.8, "toys": 6.0, "garden": 40.0}
HORIZON, DAYS = 7, 200
CONFIG = ModelConfig(
    horizon=HORIZON, bucket_ms=DAY_MS, hidden=12, layers=1, rank=8, dropout=0.0, prior=True
)


def shop(*, seed: int, series: int = 120, dated: bool = True) -> History:
    """Products launched one after the other; some are first sold days later, one in six never."""
    rng = np.random.default_rng(seed)
    values_TSF = np.zeros((DAYS, series, 11), np.float32)
    rows = []
    for slot in range(series):
        category = list(LEVELS)[slot % 3]
        price = 2.0 * rng.lognormal(0.0, 0.5)
        level = LEVELS[category] * rng.gamma(2.0, 0.5) * (2.0 / price) ** 0.7
        launch = 20 + slot * 140 // series
        first = launch + int(rng.geometric(0.4)) - 1
        if rng.random() > 1 / 6:
            units_T = rng.poisson(level * rng.gamma(4.0, 0.25, DAYS - first))
            values_TSF[first:, slot, UNITS] = units_T
            values_TSF[first:, slot, 2] = price * units_T
            values_TSF[first:, slot, 3] = units_T > 0
        launched_ms = START_MS + launch * DAY_MS if dated else None
        rows.append(static_row(category, list_price=price, launched_ms=launched_ms))
    names = [f"s{slot}" for slot in range(series)]
    return History(values_TSF, START_MS, DAY_MS, names, np.stack(rows))


def fitted(history: History, config: ModelConfig = CONFIG) -> NetworkForecaster:
    """A network with random weights and fitted demand of unseen products."""
    torch.manual_seed(0)
    network = QuantileNetwork(config)
    assert network.unseen is not None
    fit_unseen(network.unseen, history.values_TSF, history.static_features_SX, history.start_ms)
    return NetworkForecaster(network, "net", threads=1)


@cache
def seen() -> NetworkForecaster:
    return fitted(shop(seed=1))


def forecast(
    forecaster: NetworkForecaster, *rows: Floats, after: int = 3, views: float = 0.0
) -> QuantileForecast:
    """Forecast products with static features `rows`, after buckets without events.

    With `views`, the last bucket has views. The first bucket is ten days before `START_MS`.
    """
    states = forecaster.new_states(1)
    states.set_static(np.stack(rows))
    values_TSF = np.zeros((after, len(rows), 11), np.float32)
    values_TSF[-1, :, VIEWS] = views
    start_ms = START_MS - 10 * DAY_MS
    forecaster.warm_up(states, values_TSF[:-1], start_ms)
    return forecaster.step(states, values_TSF[-1], start_ms + (after - 1) * DAY_MS)


def _row(category: str | None, *, price: float = 2.0, launch_day: int = 0) -> Floats:
    launched_ms = START_MS - 7 * DAY_MS + launch_day * DAY_MS
    return static_row(category, list_price=price, launched_ms=launched_ms)


@pytest.mark.slow
def test_hidden_products_are_covered_from_the_day_of_their_launch() -> None:
    """Single days and the week's sum of another shop's products have nominal coverage."""
    hidden = shop(seed=2, series=240)
    launch_S = np.round(hidden.static_features_SX[:, 4] - START_MS / DAY_MS).astype(int)
    forecaster = seen()
    states = forecaster.new_states(1)
    states.set_static(hidden.static_features_SX)
    days, sums, bands, sum_bands = [], [], [], []
    for day in range(20, 170):
        values_SF = np.where((launch_S <= day)[:, None], hidden.values_TSF[day], 0)
        unseen_S = ~(hidden.values_TSF[: day + 1, :, UNITS] > 0).any(axis=0)
        made = forecaster.step(states, values_SF, START_MS + day * DAY_MS)
        for slot in np.flatnonzero(unseen_S & (launch_S == day + 1)):
            units_H = hidden.values_TSF[day + 1 : day + 1 + HORIZON, slot, UNITS]
            days.append(units_H)
            sums.append(units_H.sum())
            bands.append(made.units_SHQ[slot])
            sum_bands.append(made.cumulative_SHQ[slot, -1])
    actual_NH, band_NHQ = np.stack(days), np.stack(bands)
    sum_N, sum_NQ = np.array(sums), np.stack(sum_bands)

    assert len(sum_N) > 150
    assert 0.8 < (actual_NH <= band_NHQ[..., -1]).mean() < 0.985
    assert 0.8 < (sum_N <= sum_NQ[:, -1]).mean() < 0.985
    assert 0.35 < (sum_N <= sum_NQ[:, 4]).mean() < 0.7
    assert 0.4 < sum_NQ[:, 4].sum() / sum_N.sum() < 1.3


def test_category_and_list_price_distinguish_products() -> None:
    made = forecast(
        seen(), _row("bags"), _row("toys"), _row("garden"), _row("garden", price=8.0)
    )  # fmt: skip

    bags, toys, garden, dear = made.cumulative_SHQ[:, -1, -1].tolist()
    assert 0 < bags < toys < garden
    assert dear < garden


def test_quantiles_rise_and_sums_with_the_horizon() -> None:
    made = forecast(
        seen(), *(_row(category, launch_day=day) for category in LEVELS for day in (-9, 0, 3))
    )

    for values_SHQ in (made.units_SHQ, made.cumulative_SHQ):
        assert np.isfinite(values_SHQ).all()
        assert (np.diff(values_SHQ, axis=2) >= 0).all()
        assert values_SHQ.min() >= 0
    assert (np.diff(made.cumulative_SHQ, axis=1) >= 0).all()
    np.testing.assert_array_equal(made.cumulative_SHQ[:, 0], made.units_SHQ[:, 0])
    assert (made.cumulative_SHQ >= made.units_SHQ).all()


@pytest.mark.parametrize("own", [CONFIG.quantiles, (0.5, 0.7, 0.9)], ids=len)
def test_any_quantiles_of_unseen_products_are_published(own: tuple[float, ...]) -> None:
    """Coherent and never negative, also below a median of zero, whatever tables are fitted."""
    plain = fitted(shop(seed=1), replace(CONFIG, quantiles=own))
    levels = (0.01, 0.3, 0.6, 0.95, 0.999, *own)
    more = NetworkForecaster(plain.network, "more", quantiles=tuple(sorted({*levels})), threads=1)
    assert plain.network.unseen is not None
    plain.network.unseen.table_4MQ[1] *= 0.3  # sums of a smaller dispersion than buckets
    rows = [_row(category, launch_day=day) for category in LEVELS for day in (-40, -9, 0, 3)]
    mine, made = (forecast(each, *rows) for each in (plain, more))

    places = [more.quantiles.index(level) for level in own]
    for name in ("units_SHQ", "cumulative_SHQ"):
        block = getattr(made, name)
        np.testing.assert_allclose(block[..., places], getattr(mine, name), rtol=1e-5, atol=1e-5)
        assert block.min() >= 0
        assert (np.diff(block, axis=2) >= -1e-4).all()
    assert (np.diff(made.cumulative_SHQ, axis=1) >= 0).all()
    assert (made.cumulative_SHQ >= made.units_SHQ).all()
    highest = mine.units_SHQ[..., -1]
    assert (made.units_SHQ[..., -1] > highest)[highest > 0].all()


def test_nothing_is_sold_before_the_launch() -> None:
    made = forecast(
        seen(), _row("garden", launch_day=2), _row("garden"), _row("garden", launch_day=90)
    )

    assert not made.units_SHQ[0, :2].any()
    assert not made.cumulative_SHQ[0, :2].any()
    assert made.units_SHQ[0, 2, -1] > 0
    np.testing.assert_allclose(
        made.cumulative_SHQ[0, 2:], made.cumulative_SHQ[1, : HORIZON - 2], rtol=1e-5
    )
    assert not made.units_SHQ[2].any()


def test_only_a_product_with_a_recent_launch_and_no_event_is_unseen() -> None:
    """Otherwise the forecast is the network's, as without a launch."""
    launched = [_row("garden", launch_day=-60), static_row("garden", list_price=2.0)]
    plain = [static_row("garden", list_price=2.0)] * 2
    np.testing.assert_array_equal(
        forecast(seen(), *launched).units_SHQ, forecast(seen(), *plain).units_SHQ
    )
    np.testing.assert_array_equal(
        forecast(seen(), _row("garden"), views=3.0).units_SHQ,
        forecast(seen(), plain[0], views=3.0).units_SHQ,
    )
    assert (
        forecast(seen(), _row("garden")).units_SHQ != forecast(seen(), plain[0]).units_SHQ
    ).any()


def test_the_longer_it_stays_unseen_the_less_is_expected() -> None:
    made = forecast(seen(), *(_row("garden", launch_day=-day) for day in (0, 20, 40, 55)))

    assert (np.diff(made.cumulative_SHQ[:, -1, -1]) < 0).all()


def test_the_length_of_the_empty_history_does_not_matter() -> None:
    states = seen().new_states(1)
    states.set_static(_row("toys")[None])
    late = seen().step(states, np.zeros((1, 11), np.float32), START_MS - 8 * DAY_MS)

    np.testing.assert_array_equal(forecast(seen(), _row("toys")).units_SHQ, late.units_SHQ)


def test_first_sales_replace_unknown_launches() -> None:
    """For a catalog without dates, the level is close to that of one with dates."""
    dated, undated = (
        forecast(fitted(shop(seed=1, dated=dated)), _row("toys")).cumulative_SHQ[0, -1, 6]
        for dated in (True, False)
    )

    assert 0.8 < undated / dated < 2.5


def test_an_older_network_leaves_unseen_products_to_the_network() -> None:
    """Its checkpoint lacks the buffers: it loads, and the network forecasts unseen products."""
    network = seen().network
    weights = {k: v for k, v in network.state_dict().items() if not k.startswith("unseen.")}
    old = QuantileNetwork(CONFIG)
    old.load_state_dict(weights)
    forecaster = NetworkForecaster(old, "old", threads=1)

    np.testing.assert_array_equal(
        forecast(forecaster, _row("toys")).units_SHQ,
        forecast(seen(), static_row("toys", list_price=2.0)).units_SHQ,
    )


def test_without_a_prior_nothing_is_fitted_or_stored() -> None:
    network = untrained().network

    assert network.unseen is None
    assert not [name for name in network.state_dict() if "unseen" in name]


@pytest.mark.parametrize("units", [0.0, 1e6])
def test_a_history_without_samples_gives_finite_forecasts(units: float) -> None:
    history = shop(seed=1, series=2, dated=False)
    values_TSF = np.zeros_like(history.values_TSF)
    values_TSF[:, 0, UNITS] = units
    made = forecast(fitted(replace(history, values_TSF=values_TSF)), _row("toys"))

    assert np.isfinite(made.units_SHQ).all()


def test_levels_follow_products_that_sell() -> None:
    """A thousand samples with hardly any expected demand have less weight than good sellers."""
    counts_N = np.concatenate((np.zeros(1_000), np.full(30, 10.0), np.zeros(10)))
    mean_N = np.concatenate((np.full(1_000, 0.001), np.full(40, 7.5)))
    level_L = _levels(counts_N, mean_N)

    assert level_L.mean().item() == pytest.approx(1.0)
    assert 0.6 < (level_L > 0).double().mean().item() < 0.8
