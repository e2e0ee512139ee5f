"""Permutation importance finds the inputs a network depends on, without changing it."""

import numpy as np
import pytest
import torch

from model.config import ModelConfig, TrainConfig
from model.contract import FEATURE_NAMES
from model.durations import HOUR_MS
from model.errors import HistoryTooShort, InvalidValues
from model.evaluation.backtest import backtest, score
from model.evaluation.importance import CALENDAR, SEASON, permutation_importance
from model.inference.forecaster import NetworkForecaster
from model.inputs.series_inputs import input_names, new_carried, observe
from model.training.train import train
from tests.support.model_cases import START_MS, history_of, phases_at, real_hours, untrained

CONFIG = ModelConfig(horizon=24, bucket_ms=HOUR_MS, hidden=16, layers=1, rank=8)
ORIGINS = [START_MS + day * 24 * HOUR_MS for day in (8, 9, 10)]


@pytest.mark.slow
@pytest.mark.parametrize("year_terms", [False, True])
def test_its_wql_is_that_of_the_backtest(year_terms: bool) -> None:
    """Forecasts are the same, read as a sequence or carried bucket by bucket."""
    values_TSF = real_hours(days=12, series=30)
    values_TSF[: 24 * 8 - 1] = 0  # all series start in the hour before the first origin
    values_TSF[24 * 8 - 1, :, 0] = 3
    history = history_of(values_TSF)
    network = untrained(year_terms=year_terms).network
    for part in network.parameters():
        part.mul_(3.0)  # so that the state matters
    result = backtest(history, {"net": NetworkForecaster(network, "net")}, ORIGINS)
    found = permutation_importance(history, network, ORIGINS, repeats=1)

    assert found.wql == pytest.approx(score(result, "net").wql, rel=1e-6)


@pytest.mark.slow
def test_demand_is_important_and_absent_clicks_are_not() -> None:
    history = history_of(real_hours(days=21, series=30))
    config = TrainConfig(model=CONFIG, updates=60, chunk=48, lanes=32, validate_every=60)
    network = train(history, config).network
    origins = [START_MS + day * 24 * HOUR_MS for day in range(14, 20)]
    rises = {
        one.name: one.wql_rise
        for one in permutation_importance(history, network, origins, repeats=2).inputs
    }

    assert set(rises) == {*input_names(CONFIG), CALENDAR, SEASON}
    for name in ("views", "carts", "visitors", "has_clicks"):
        assert rises[name] == 0.0
    assert any(rise for name, rise in rises.items() if name not in {CALENDAR, SEASON})
    assert rises[CALENDAR] != 0  # most of it is in the season as well
    assert rises[SEASON] > 0.002


def test_a_single_series_is_shifted_in_time() -> None:
    history = history_of(real_hours(days=12, series=1))
    found = permutation_importance(history, untrained().network, ORIGINS, repeats=1)

    moved = {one.name for one in found.inputs if one.wql_rise != 0}
    assert {CALENDAR, SEASON} < moved


def test_an_origin_without_a_future_is_refused() -> None:
    history = history_of(real_hours(days=12, series=2))

    with pytest.raises(HistoryTooShort):
        permutation_importance(history, untrained().network, [history.end_ms])


def test_an_input_that_is_off_is_zero_and_the_others_are_unchanged() -> None:
    values_SF = real_hours(days=1, series=5)[12]
    off = ModelConfig(horizon=24, bucket_ms=HOUR_MS, inputs_off=("rate", "demand"))
    seen = []
    for config in (CONFIG, off):
        stats = new_carried(5, config)
        seen.append(
            observe(stats, torch.from_numpy(values_SF), phases_at(START_MS), config).numpy()
        )
    columns = [input_names(off).index(name) for name in ("rate", "demand")]

    assert (seen[1][:, columns] == 0).all()
    np.testing.assert_array_equal(
        np.delete(seen[0], columns, axis=1), np.delete(seen[1], columns, axis=1)
    )


def test_an_unknown_input_cannot_be_switched_off() -> None:

    config = ModelConfig(horizon=24, bucket_ms=HOUR_MS, inputs_off=("colour",))

    nothing = torch.zeros(1, len(FEATURE_NAMES))

    with pytest.raises(InvalidValues, match="colour"):
        observe(new_carried(1, config), nothing, phases_at(START_MS), config)
