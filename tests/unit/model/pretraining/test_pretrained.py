"""The network that ships: any bucket width, from the first bucket on; and how it is made."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.baselines.exponential_smoothing import SmoothingForecaster
from model.config import DECILES, NETWORK_QUANTILES, ModelConfig, TrainConfig
from model.durations import DAY_MS, HOUR_MS, MONTH_MS, WEEK_MS
from model.evaluation.backtest import backtest, score
from model.history import History
from model.inference.forecaster import Forecaster, NetworkForecaster
from model.inputs.carried_statistics import REVENUE, UNITS
from model.pretraining.disturbances import disturbed
from model.pretraining.finetune import finetune, for_history
from model.pretraining.pretrain import pretrain
from model.pretraining.shipped import WEIGHTS, pretrained, shipped, start_for
from model.pretraining.synthetic.shop import synthetic_shop
from model.pretraining.walks import Kind
from tests.support.model_cases import START_MS, Floats, awkward, real_hours

_KIND = Kind(DAY_MS, 7, 140, 12, 1.0)


def test_the_weights_are_small_and_fit_this_build() -> None:
    network, manifest = shipped()

    assert WEIGHTS.stat().st_size < 2_000_000
    assert manifest.model_id.startswith("pretrained-")
    assert network.config.quantiles == NETWORK_QUANTILES


@pytest.mark.parametrize("bucket_ms", [60_000, 900_000, HOUR_MS, DAY_MS, WEEK_MS, MONTH_MS])
def test_it_serves_every_bucket_width_from_the_first_bucket(bucket_ms: int) -> None:
    _, values_TSF = awkward(40)
    network = pretrained(bucket_ms=bucket_ms, horizon=5, country="US")
    forecaster = NetworkForecaster(network, "pretrained", quantiles=DECILES, threads=1)
    states = forecaster.new_states(values_TSF.shape[1])
    start_ms = START_MS // bucket_ms * bucket_ms

    for t, values_SF in enumerate(values_TSF):
        made = forecaster.step(states, values_SF, start_ms + t * bucket_ms)
        for block_SHQ in (made.units_SHQ, made.cumulative_SHQ):
            assert block_SHQ.shape[1:] == (5, 9)
            assert np.isfinite(block_SHQ).all()
            assert block_SHQ.min() >= 0
            assert (np.diff(block_SHQ, axis=2) >= -1e-4 * (1 + block_SHQ[:, :, 1:])).all()


def _shop_hours(days: int) -> History:
    values_TSF: Floats = real_hours(days=days, series=40)
    values_TSF = np.concatenate((values_TSF, values_TSF.sum(axis=1, keepdims=True)), axis=1)
    names = [*(str(place) for place in range(40)), "total"]
    return History(values_TSF, START_MS, HOUR_MS, names)


@pytest.mark.slow
def test_it_is_better_than_exponential_smoothing_from_the_first_week_on() -> None:
    """On real orders by the hour, for products and their total."""
    history = _shop_hours(14)
    network = pretrained(bucket_ms=HOUR_MS, horizon=24, country="GB")
    models: dict[str, Forecaster] = {
        "pretrained": NetworkForecaster(network, "pretrained", quantiles=DECILES, threads=1),
        "smoothing": SmoothingForecaster(horizon=24, bucket_ms=HOUR_MS),
    }
    for days in (range(1, 7), range(7, 13)):
        result = backtest(history, models, [START_MS + day * DAY_MS for day in days])
        for series in (np.arange(40), np.array([40])):
            own, other = (score(result, name, series=series).wql for name in models)
            assert own is not None
            assert other is not None
            assert own < other


@pytest.mark.slow
def test_equal_seeds_give_equal_weights() -> None:
    first, again, other = (pretrain(2, seed=seed, kinds=(_KIND,)) for seed in (1, 1, 2))

    for name, part in first.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], part, rtol=0, atol=0)
    assert not torch.equal(other.heads.write.weight, first.heads.write.weight)


def test_disturbances_keep_prices_and_whole_units() -> None:
    shop = synthetic_shop(bucket_ms=DAY_MS, buckets=200, series=6, seed=4)
    made = disturbed(shop, 5).history.values_TSF
    before = shop.history.values_TSF
    sold = (before[..., UNITS] > 0) & (made[..., UNITS] > 0)

    assert (made[..., UNITS] != before[..., UNITS]).any()
    assert (made[..., UNITS] % 1 == 0).all() == (before[..., UNITS] % 1 == 0).all()
    np.testing.assert_allclose(
        made[sold][:, REVENUE] / made[sold][:, UNITS],
        before[sold][:, REVENUE] / before[sold][:, UNITS],
        rtol=1e-4,
        atol=1e-4,
    )


def test_some_shops_hide_their_plans_and_their_country() -> None:
    shop = synthetic_shop(bucket_ms=DAY_MS, buckets=60, series=6, seed=4)
    shop = replace(shop, country="US")
    made = [disturbed(shop, seed) for seed in range(30)]

    assert {one.country for one in made} == {None, "US"}
    assert {one.history.plans is None for one in made} == {True, False}


def test_a_training_starts_from_the_pretrained_weights_where_they_fit() -> None:
    days = np.random.default_rng(0).poisson(20.0, (60, 4, 1)).astype(np.float32)
    values_TSF = np.zeros((60, 4, 11), np.float32)
    values_TSF[:, :, :1] = days
    history = History(values_TSF, START_MS // DAY_MS * DAY_MS, DAY_MS, list("abcd"))
    model = ModelConfig(horizon=7, bucket_ms=DAY_MS, quantiles=NETWORK_QUANTILES)
    config = TrainConfig(model=model, updates=2, lanes=8, chunk=16, pretrained=True)

    trained = finetune(history, config)
    scratch = finetune(history, replace(config, pretrained=False))
    other = finetune(history, replace(config, model=replace(model, hidden=16)))

    assert trained.parent == shipped()[1].model_id
    assert scratch.parent is None
    assert other.parent is None
    start = start_for(model)
    assert start is not None
    moved = trained.network.heads.write.weight - start.heads.write.weight
    assert 0 < moved.abs().max() < 0.1


def test_terms_of_the_year_need_a_year_and_a_half() -> None:
    config = TrainConfig(model=ModelConfig(horizon=7, bucket_ms=DAY_MS))
    short, long = (
        History(np.zeros((days, 1, 11), np.float32), 0, DAY_MS, ["a"]) for days in (539, 540)
    )

    assert not for_history(config, short).model.year_terms
    assert for_history(config, long).model.year_terms
