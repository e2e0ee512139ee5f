"""Stock-outs are censored demand, not zeros."""

import dataclasses

import numpy as np
import pytest
import torch

from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.config import ModelConfig
from model.durations import HOUR_MS
from model.inputs.carried_statistics import AGE, SLOW, YEAR_UNITS
from model.inputs.seasons.season_layout import layout_of
from model.inputs.series_inputs import INPUT_NAMES, carry_statistics, new_carried, observe
from model.training.dataset import pick_series
from model.training.train import train
from tests.support.model_cases import (
    START_MS,
    Floats,
    history_of,
    phases_at,
    small_training,
    stock_up,
)

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


def carried(values_TSF: Floats, config: ModelConfig = CONFIG) -> torch.Tensor:
    """Statistics after all buckets."""
    stats = new_carried(values_TSF.shape[1], config)
    for t, bucket in enumerate(torch.from_numpy(values_TSF)):
        carry_statistics(stats, bucket, phases_at(START_MS + t * HOUR_MS), config)
    return stats


@pytest.mark.slow
def test_statistics_ignore_a_stockout() -> None:
    """Two weeks without stock change no statistic; without stock data they do.

    A phase of the year that they end learns from its part in stock.
    """
    layout = layout_of(HOUR_MS)
    kept = [*range(YEAR_UNITS), *range(layout.first_day, layout.first_year)]
    out = slice(2 * WEEK, 4 * WEEK)
    values_TSF = shelf(out=out)
    before = carried(values_TSF[: 2 * WEEK])

    assert torch.equal(carried(values_TSF)[:, kept], before[:, kept])
    unknown_TSF = values_TSF.copy()
    unknown_TSF[:, :, 9:] = 0.0
    assert carried(unknown_TSF)[0, SLOW] < 0.7 * before[0, SLOW]


def test_a_censored_bucket_counts_sales_beyond_the_mean() -> None:
    """Sales before the stock ran out are a lower bound of demand."""
    values_TSF = shelf()
    values_TSF[-1, 0, [0, 2]] = 60.0, 120.0
    plain, short = carried(values_TSF), values_TSF.copy()
    short[-1, 0, 9:] = 1.0, 0.6

    assert torch.equal(carried(short), plain)


@pytest.mark.slow
def test_a_share_below_the_threshold_is_not_censored() -> None:
    """A quarter of an hour without stock is not censored; the threshold is the configured one."""
    values_TSF = shelf()
    values_TSF[-1, 0, 0] = 0.0
    values_TSF[-1, 0, 9:] = 1.0, 0.4
    strict = dataclasses.replace(CONFIG, censored_share=0.3)

    assert carried(values_TSF)[0, AGE] == 4 * WEEK
    assert carried(values_TSF, strict)[0, AGE] == 4 * WEEK - 1


def test_the_network_reads_usual_demand_and_no_availability() -> None:
    """Demand inputs stay those of a usual hour; `availability` and `stock_known` differ."""
    stats = new_carried(1, CONFIG)
    seen = [
        observe(stats, bucket, phases_at(START_MS + t * HOUR_MS), CONFIG)[0]
        for t, bucket in enumerate(torch.from_numpy(shelf(weeks=2, out=slice(WEEK, 2 * WEEK))))
    ]
    usual, sold_out = (dict(zip(INPUT_NAMES, seen[t].tolist(), strict=True)) for t in (100, 200))

    for name in ("demand", "demand_log", "sold", "scale_log", "week_ratio", "since_log"):
        assert sold_out[name] == pytest.approx(usual[name], abs=1e-5), name
    assert (usual["availability"], usual["stock_known"]) == (1.0, 1.0)
    assert (sold_out["availability"], sold_out["stock_known"]) == (0.0, 1.0)


def test_the_loss_leaves_out_buckets_without_stock() -> None:
    """They are as unknown as buckets after the end of the data."""
    history = history_of(shelf(out=slice(60, 70)))
    config = small_training().model
    picked = pick_series(history, config, end=400, every=24, limit=1, power=0.5)
    lanes_GB = torch.zeros(1, 1, dtype=torch.int64)
    chunk = picked.chunk(lanes_GB, new_carried(1, config), np.array([48]), length=24, end=400)

    known = chunk.known_NX[0].bool().numpy()
    # ahead_NX starts with the bucket after the chunk's first
    assert np.flatnonzero(~known).tolist() == list(range(60 - 49, 70 - 49))


@pytest.mark.slow
def test_a_network_trained_on_stockouts_forecasts_demand_not_sales() -> None:
    """Half of the hours are sold out at random: the loss over the rest is that of full stock."""
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
    assert seeing < 0.4 * blind


def test_the_naive_forecast_of_next_week_is_not_that_of_an_empty_shelf() -> None:
    """A week without stock keeps the forecast of the week before."""
    naive = SeasonalNaiveForecaster(horizon=24, bucket_ms=HOUR_MS)
    states = naive.new_states(1)
    values_TSF = shelf(weeks=3, out=slice(2 * WEEK, 3 * WEEK))
    naive.warm_up(states, values_TSF[:-1], START_MS)
    forecast = naive.step(states, values_TSF[-1], START_MS + (3 * WEEK - 1) * HOUR_MS)

    assert forecast.units_SHQ[0, :, 4].tolist() == [6.0] * 24
