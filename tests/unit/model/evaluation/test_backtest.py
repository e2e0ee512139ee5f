"""A backtest sees no future, scores every model on the same buckets, and finds the better one."""

import numpy as np
import pytest
import torch

from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.config import TARGETS
from model.durations import HOUR_MS
from model.errors import HistoryTooShort
from model.evaluation.backtest import backtest, backtest_target, last_origins, score, volume_classes
from tests.support.model_cases import START_MS, history_of, real_hours, untrained

ORIGINS = [START_MS + day * 24 * HOUR_MS for day in (8, 9, 10)]


def _naive(horizon: int = 24) -> SeasonalNaiveForecaster:
    return SeasonalNaiveForecaster(horizon=horizon, bucket_ms=HOUR_MS)


@pytest.mark.slow
def test_demand_after_an_origin_does_not_change_its_forecast() -> None:
    values_TSF = real_hours(days=12, series=6)
    changed_TSF = values_TSF.copy()
    changed_TSF[10 * 24 :, :, 0] *= 50
    results = [
        backtest(history_of(v), {"net": untrained(), "naive": _naive()}, ORIGINS)
        for v in (values_TSF, changed_TSF)
    ]

    for name in ("net", "naive"):
        one, other = (result.forecast[name] for result in results)
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(results[0].actual_OSH, results[1].actual_OSH)


def test_a_short_warm_up_costs_the_network_its_state_but_not_its_statistics() -> None:
    """As in a worker after a swap."""
    values_TSF = real_hours(days=12, series=6)
    network = untrained()
    history = history_of(values_TSF)
    made, same = (
        backtest(history, {"net": network}, ORIGINS, warm_up=buckets).forecast["net"][0]
        for buckets in (24, 8 * 24)
    )
    states = network.new_states(6)
    network.warm_up(states, values_TSF[: 7 * 24], START_MS)
    with torch.inference_mode():
        for part in states.state:
            part.zero_()
    network.warm_up(states, values_TSF[7 * 24 : 8 * 24 - 1], START_MS + 7 * 24 * HOUR_MS)
    last_ms = START_MS + (8 * 24 - 1) * HOUR_MS
    expected = network.step(states, values_TSF[8 * 24 - 1], last_ms).units_SHQ

    np.testing.assert_array_equal(made, np.floor(expected + np.float32(0.5)))
    np.testing.assert_array_equal(
        same, backtest(history, {"net": network}, ORIGINS).forecast["net"][0]
    )
    assert not np.array_equal(made, same)


def test_actuals_are_the_buckets_from_the_origin_on() -> None:
    values_TSF = real_hours(days=12, series=4)
    result = backtest(history_of(values_TSF), {"naive": _naive()}, ORIGINS)

    for number, day in enumerate((8, 9, 10)):
        expected = values_TSF[day * 24 : (day + 1) * 24, :, 0].T
        np.testing.assert_array_equal(result.actual_OSH[number], expected)


def test_a_perfect_forecast_scores_zero_and_a_worse_one_more() -> None:
    history = history_of(real_hours(days=12, series=4))
    result = backtest(history, {"naive": _naive()}, ORIGINS)
    truth = np.repeat(result.actual_OSH[..., None], 9, axis=-1)
    result.forecast["oracle"] = truth
    result.forecast["double"] = 2 * truth

    assert score(result, "oracle").wql == 0
    assert score(result, "oracle").coverage == 1
    assert score(result, "double").bias == pytest.approx(1.0)
    assert (score(result, "double").mase or 0) > 0


def test_the_seasonal_naive_scores_a_mase_near_one_on_stationary_noise() -> None:
    """Its out-of-sample error equals its in-sample error."""
    values_TSF = np.zeros((24 * 40, 20, 11), np.float32)
    values_TSF[:, :, 0] = np.random.default_rng(2).poisson(30, values_TSF.shape[:2])
    origins = [START_MS + day * 24 * HOUR_MS for day in range(20, 35)]
    result = backtest(history_of(values_TSF), {"naive": _naive()}, origins)

    assert score(result, "naive").mase == pytest.approx(1.0, abs=0.05)


def test_volume_classes_split_the_series_by_demand() -> None:
    result = backtest(history_of(real_hours(days=12, series=30)), {"n": _naive()}, ORIGINS)
    classes = volume_classes(result)
    units_S = result.actual_OSH.sum(axis=(0, 2))

    assert sorted(np.concatenate(list(classes.values())).tolist()) == list(range(30))
    assert units_S[classes["A"]].min() >= units_S[classes["C"]].max()
    assert units_S[classes["A"]].sum() >= 0.5 * units_S.sum()


def test_the_last_origins_are_one_horizon_apart_and_end_with_the_history() -> None:
    history = history_of(real_hours(days=12, series=2))
    origins = last_origins(history, horizon=24, count=3)

    assert origins == [history.end_ms - back * 24 * HOUR_MS for back in (3, 2, 1)]
    assert len(last_origins(history, horizon=24, count=99)) == 11


@pytest.mark.parametrize("origin_ms", [START_MS, START_MS + 12 * 24 * HOUR_MS])
def test_an_origin_without_past_or_future_is_refused(origin_ms: int) -> None:
    history = history_of(real_hours(days=12, series=2))

    with pytest.raises(HistoryTooShort):
        backtest(history, {"naive": _naive()}, [origin_ms])


def test_a_further_target_is_scored_on_its_own_buckets() -> None:
    """Revenue next to a seasonal naive of revenue; returns make no bucket negative."""
    values_TSF = real_hours(days=12, series=4)
    values_TSF[::7, :, 2] = -3
    history = history_of(values_TSF)
    net = untrained(targets=TARGETS)
    result = backtest(history, {"net": net, "naive": _naive()}, ORIGINS)

    scored = backtest_target(history, result, "revenue", {"naive": _naive()})

    expected = values_TSF[10 * 24 : 11 * 24, :, 2].clip(0).T
    np.testing.assert_array_equal(scored.actual_OSH[2], expected)
    assert list(scored.forecast) == ["net", "naive"]
    np.testing.assert_array_equal(scored.forecast["net"], result.extras["net"]["revenue"])
    last_week = values_TSF[3 * 24 : 4 * 24, :, 2].clip(0).T
    np.testing.assert_allclose(scored.forecast["naive"][2, ..., 4], last_week, atol=1e-4)
    assert set(result.extras) == {"net"}
