"""What could not be bought was not unwanted: stock-outs are censored demand, not zeros."""

import dataclasses

import numpy as np
import pytest
import torch

from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.config import ModelConfig
from model.durations import HOUR_MS
from model.inputs.carried_statistics import AGE, SLOW
from model.inputs.series_inputs import INPUT_NAMES, carry_statistics, new_carried, observe
from model.training.dataset import pick_series
from model.training.train import train
from tests.support.model_cases import START_MS, Floats, history_of, small_training, stock_up

CONFIG = ModelConfig(horizon=24, bucket_ms=HOUR_MS)
WEEK = 7 * 24


def shelf(units: float = 6.0, *, weeks: int = 4, out: slice | None = None) -> Floats:
    """Hours [T, 1, F] of one series that sells `units` an hour whenever it is in stock."""
    values_TSF = np.zeros((weeks * WEEK, 1, 11), np.float32)
    out_T = np.zeros(weeks * WEEK, np.bool_)
    out_T[slice(0) if out is None else out] = True
    sold_T = np.where(out_T, 0.0, units)
    values_TSF[:, 0, 0], values_TSF[:, 0, 2], values_TSF[:, 0, 3] = sold_T, 2 * sold_T, sold_T > 0
    stock_up(values_TSF, 0, out_T)
    return values_TSF


def carried(values_TSF: Floats) -> torch.Tensor:
    """Statistics after all of it."""
    stats = new_carried(values_TSF.shape[1], CONFIG)
    for bucket in torch.from_numpy(values_TSF):
        carry_statistics(stats, bucket, CONFIG)
    return stats


def test_statistics_pass_over_a_stockout_as_if_it_had_not_been() -> None:
    """Two weeks without stock leave every statistic where it was; without a reading they do not."""
    out = slice(2 * WEEK, 4 * WEEK)
    values_TSF = shelf(out=out)
    before = carried(values_TSF[: 2 * WEEK])

    assert torch.equal(carried(values_TSF), before)
    unknown_TSF = values_TSF.copy()
    unknown_TSF[:, :, 9:] = 0.0
    assert carried(unknown_TSF)[0, SLOW] < 0.7 * before[0, SLOW]


def test_a_bucket_short_of_stock_still_counts_what_it_sold_beyond_the_mean() -> None:
    """What was sold before the shelf was empty is the least that was wanted."""
    values_TSF = shelf()
    values_TSF[-1, 0, [0, 2]] = 60.0, 120.0
    plain, short = carried(values_TSF), values_TSF.copy()
    short[-1, 0, 9:] = 1.0, 0.6

    assert torch.equal(carried(short), plain)


def test_a_share_below_the_threshold_is_demand_like_any_other() -> None:
    """A quarter of an hour without stock censors nothing; the threshold is the configured one."""
    values_TSF = shelf()
    values_TSF[-1, 0, 0] = 0.0
    values_TSF[-1, 0, 9:] = 1.0, 0.4
    stats = new_carried(1, CONFIG)
    strict = dataclasses.replace(CONFIG, censored_share=0.3)
    for bucket in torch.from_numpy(values_TSF):
        carry_statistics(stats, bucket, strict)

    assert carried(values_TSF)[0, AGE] == 4 * WEEK
    assert stats[0, AGE] == 4 * WEEK - 1


def test_the_network_sees_the_usual_demand_and_that_nothing_was_to_be_had() -> None:
    """Demand inputs stay those of a usual hour; `availability` and `stock_known` tell."""
    stats = new_carried(1, CONFIG)
    seen = [
        observe(stats, bucket, START_MS + t * HOUR_MS, CONFIG)[0]
        for t, bucket in enumerate(torch.from_numpy(shelf(weeks=2, out=slice(WEEK, 2 * WEEK))))
    ]
    usual, sold_out = (dict(zip(INPUT_NAMES, seen[t].tolist(), strict=True)) for t in (100, 200))

    for name in ("demand", "demand_log", "sold", "scale_log", "week_ratio", "since_log"):
        assert sold_out[name] == pytest.approx(usual[name], abs=1e-5), name
    assert (usual["availability"], usual["stock_known"]) == (1.0, 1.0)
    assert (sold_out["availability"], sold_out["stock_known"]) == (0.0, 1.0)


def test_the_loss_does_not_ask_for_buckets_without_stock() -> None:
    """They are as unknown as what lies behind the end of the data."""
    history = history_of(shelf(out=slice(60, 70)))
    config = small_training().model
    picked = pick_series(history, config, end=400, every=24, limit=1, power=0.5)
    lanes_GB = torch.zeros(1, 1, dtype=torch.int64)
    chunk = picked.chunk(lanes_GB, new_carried(1, config), np.array([48]), length=24, end=400)

    told = chunk.known_NX[0].bool().numpy()
    # ahead_NX begins with the bucket after the chunk's first
    assert np.flatnonzero(~told).tolist() == list(range(60 - 49, 70 - 49))


def test_a_network_trained_on_stockouts_forecasts_demand_not_sales() -> None:
    """Half of the hours are sold out at random: the loss over the rest is as of a full shelf."""
    rng = np.random.default_rng(1)
    values_TSF = np.concatenate([shelf(), shelf()], axis=1)
    for slot in range(2):
        out_T = rng.random(len(values_TSF)) < 0.5
        values_TSF[out_T, slot, :9] = 0.0
        stock_up(values_TSF, slot, out_T)
    blind_TSF = values_TSF.copy()
    blind_TSF[:, :, 9:] = 0.0
    config = dataclasses.replace(small_training(updates=40), learning_rate=1e-2)

    seeing = train(history_of(values_TSF), config).metrics["validation_loss"]
    blind = train(history_of(blind_TSF), config).metrics["validation_loss"]
    assert seeing < 0.25 * blind


def test_the_naive_forecast_of_next_week_is_not_that_of_an_empty_shelf() -> None:
    """A week without stock leaves what the week before it brought."""
    naive = SeasonalNaiveForecaster(horizon=24, bucket_ms=HOUR_MS)
    states = naive.new_states(1)
    values_TSF = shelf(weeks=3, out=slice(2 * WEEK, 3 * WEEK))
    naive.warm_up(states, values_TSF[:-1], START_MS)
    forecast = naive.step(states, values_TSF[-1], START_MS + (3 * WEEK - 1) * HOUR_MS)

    assert forecast.units_SHQ[0, :, 4].tolist() == [6.0] * 24
