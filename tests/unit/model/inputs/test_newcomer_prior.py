"""A newcomer is forecast from its category, its price and its first clicks."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from model.config import ModelConfig, TrainConfig
from model.durations import DAY_MS
from model.evaluation.metrics import pit_coverage, wql
from model.inference.forecaster import NetworkForecaster
from model.inputs.carried_statistics import SLOW, UNITS, VIEWS
from model.inputs.newcomer_prior import NewcomerPrior, fit_prior, scale_of
from model.inputs.series_inputs import new_carried, observe
from model.inputs.static_features import PRIOR, set_static, static_row
from model.training.dataset import History
from model.training.train import train
from tests.support.model_cases import START_MS, Floats, phases_at

#: Mean units per day of a product by category.
LEVELS = {"bags": 0.8, "toys": 6.0, "garden": 40.0}
HORIZON = 7


def shop(*, seed: int, series: int, days: int, latest: int) -> tuple[History, list[str]]:
    """Products that start one after the other, with two days of views before the first sale."""
    rng = np.random.default_rng(seed)
    values_TSF = np.zeros((days, series, 11), np.float32)
    category_S = [list(LEVELS)[slot % 3] for slot in range(series)]
    for slot, category in enumerate(category_S):
        level = LEVELS[category] * rng.lognormal(0.0, 0.5)
        first = 30 + slot * (latest - 30) // series
        units_T = rng.negative_binomial(2.0, 2.0 / (2.0 + level), days - first - 2)
        values_TSF[first:, slot, VIEWS] = rng.poisson(5 * level + 1, days - first)
        values_TSF[first + 2 :, slot, UNITS] = units_T
        values_TSF[first + 2 :, slot, 2] = 3.0 * units_T
        values_TSF[first + 2 :, slot, 3] = units_T > 0
    static_SX = np.stack([static_row(category) for category in category_S])
    names = [f"s{slot}" for slot in range(series)]
    return History(values_TSF, START_MS, DAY_MS, names, static_SX), category_S


CONFIG = ModelConfig(
    horizon=HORIZON, bucket_ms=DAY_MS, hidden=12, layers=1, rank=8, dropout=0.0, prior=True,
    static=4,
)  # fmt: skip
SEEN, CATEGORY_S = shop(seed=1, series=60, days=200, latest=180)


@cache
def fitted() -> NewcomerPrior:
    """The prior fitted on the history."""
    prior = NewcomerPrior(CONFIG)
    fit_prior(prior, SEEN.values_TSF, SEEN.static_features_SX)
    return prior


def _carried(prior: NewcomerPrior, category: str | None, buckets: Floats) -> torch.Tensor:
    stats_SK = new_carried(1, CONFIG)
    set_static(stats_SK, torch.from_numpy(static_row(category))[None], CONFIG)
    for t, bucket_F in enumerate(torch.from_numpy(buckets)):
        phases = phases_at(START_MS + t * DAY_MS, DAY_MS)
        observe(stats_SK, bucket_F[None], phases, CONFIG, prior=prior)
    return stats_SK


def _clicked(views: float, days: int = 1) -> Floats:
    bucket = np.zeros((days, 11), np.float32)
    bucket[:, VIEWS] = views
    return bucket


@pytest.mark.parametrize("category", LEVELS)
def test_the_first_clicks_give_a_scale_near_what_the_category_sells(category: str) -> None:
    stats_SK = _carried(fitted(), category, _clicked(5 * LEVELS[category]))

    scale = scale_of(stats_SK, CONFIG).item()
    assert 0.5 < scale / (LEVELS[category] * np.exp(0.5**2 / 2)) < 2.0


def test_in_an_unknown_category_more_clicks_give_a_higher_prior() -> None:
    few, many = (
        scale_of(_carried(fitted(), None, _clicked(views)), CONFIG).item() for views in (3, 300)
    )

    assert many > 2 * few


def test_own_sales_replace_the_prior() -> None:
    """At forty units per day in a category with less than one, the scale converges to the sales."""
    bucket = _clicked(200.0, 60)
    bucket[:, UNITS] = 40.0
    bucket[:, 2] = 120.0
    first_click = _clicked(5 * LEVELS["bags"])
    scales = [
        scale_of(_carried(fitted(), "bags", days), CONFIG).item()
        for days in (first_click, bucket[:3], bucket[:20], bucket[:57])
    ]

    assert scales[0] < 4.0
    assert 0.7 < scales[1] / 40 < 1.4
    assert 0.9 < scales[2] / 40 < 1.1
    assert scales[3] == pytest.approx(40.0, rel=1e-5)


def test_a_series_that_has_not_started_has_no_prior() -> None:
    stats_SK = _carried(fitted(), "garden", np.zeros((5, 11), np.float32))

    assert stats_SK[0, PRIOR] == 0
    assert scale_of(stats_SK, CONFIG).item() == pytest.approx(CONFIG.scale_floor)


def test_an_old_series_has_the_scale_of_its_own_mean() -> None:
    stats_SK = _carried(fitted(), "garden", SEEN.values_TSF[:, 0])

    assert scale_of(stats_SK, CONFIG).item() == pytest.approx(stats_SK[0, SLOW].item())


@pytest.mark.parametrize("units", [0.0, 1e6])
def test_a_history_without_newcomers_gives_a_usable_prior(units: float) -> None:
    """No sale at all, or one series with very many: finite, and never below the floor."""
    values_TSF = np.zeros((60, 2, 11), np.float32)
    values_TSF[:, 0, UNITS] = units
    prior = NewcomerPrior(CONFIG)
    fit_prior(prior, values_TSF, np.zeros((2, 5), np.float32))

    scale = scale_of(_carried(prior, None, _clicked(1.0)), CONFIG).item()
    assert 0.999 * CONFIG.scale_floor <= scale < 1e7


def _hidden() -> tuple[History, list[str]]:
    return shop(seed=2, series=24, days=80, latest=60)


def _first_week(config: TrainConfig) -> tuple[Floats, Floats, list[int]]:
    """Actual [N, H] and forecasts [N, H, Q] of hidden newcomers at the ends of days 1 to 7."""
    network = NetworkForecaster(train(SEEN, config).network, "net", threads=1)
    hidden, _ = _hidden()
    began_S = (hidden.values_TSF[:, :, VIEWS] > 0).argmax(axis=0)
    states = network.new_states(1)
    states.set_static(hidden.static_features_SX)
    actual, forecast, ages = [], [], []
    for day in range(hidden.buckets - HORIZON):
        made = network.step(states, hidden.values_TSF[day], START_MS + day * DAY_MS)
        for slot in np.flatnonzero((began_S <= day) & (day < began_S + 7)):
            actual.append(hidden.values_TSF[day + 1 : day + 1 + HORIZON, slot, UNITS])
            forecast.append(made.units_SHQ[slot])
            ages.append(int(day - began_S[slot]))
    return np.stack(actual), np.stack(forecast), ages


@pytest.mark.slow
def test_hidden_newcomers_are_forecast_from_their_first_click() -> None:
    """Better than without prior and than the category's mean, with nominal coverage and level."""
    config = TrainConfig(
        model=CONFIG, updates=150, chunk=32, lanes=48, groups=4, validate_every=50,
        learning_rate=1e-2, volume_power=0.5,
    )  # fmt: skip
    actual_NH, forecast_NHQ, ages = _first_week(config)
    _, without_NHQ, _ = _first_week(replace(config, model=replace(CONFIG, prior=False, static=0)))
    hidden, category_S = _hidden()
    seen_S = SEEN.values_TSF[:, :, UNITS].sum(axis=0) / (SEEN.values_TSF[:, :, VIEWS] > 0).sum(0)
    began_S = (hidden.values_TSF[:, :, VIEWS] > 0).argmax(axis=0)
    means = {c: seen_S[[d == c for d in CATEGORY_S]].mean() for c in LEVELS}
    order = sorted((int(began_S[s]) + age, s) for s in range(24) for age in range(7))
    order = [pair for pair in order if pair[0] < hidden.buckets - HORIZON]
    point_N = np.array([means[category_S[slot]] for _, slot in order])
    point_NHQ = np.broadcast_to(point_N[:, None, None], forecast_NHQ.shape)

    def score(forecast: Floats) -> float:
        quantiles = CONFIG.quantiles
        return wql(actual_NH.reshape(-1), forecast.reshape(-1, len(quantiles)), quantiles)

    mine = score(forecast_NHQ)
    covered = pit_coverage(
        actual_NH.reshape(-1), forecast_NHQ.reshape(-1, len(CONFIG.quantiles)), CONFIG.quantiles
    )
    first_day = np.array(ages) == 0
    assert mine < 0.85 * score(without_NHQ)
    assert mine < 0.85 * score(point_NHQ)
    assert 0.65 < covered < 0.9
    assert 0.5 < forecast_NHQ.mean() / actual_NH.mean() < 2.0
    assert 0.5 < forecast_NHQ[first_day].mean() / actual_NH[first_day].mean() < 2.0
