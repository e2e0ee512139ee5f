"""A foundation model as a forecaster: its history, its quantiles, one series like many."""

from pathlib import Path

import numpy as np
import pytest

from model.baselines.seasonal_naive import NaiveStates
from model.contract import FEATURE_NAMES, QuantileForecast
from model.durations import DAY_MS
from model.errors import InvalidValues
from model.foundation import forecaster as module
from model.foundation.forecaster import FoundationForecaster
from model.foundation.kinds import Kind
from model.foundation.weights import load_pretrained
from model.inference.forecaster import Forecaster
from tests.support.tiny_weights import CONTEXT, KINDS, save_tiny_weights

pytestmark = pytest.mark.slow  # importing the libraries takes seconds

LEVELS = (0.01, 0.1, 0.25, 0.5, 0.9, 0.99)
STOCK, STOCKOUT_SHARE = FEATURE_NAMES.index("stock"), FEATURE_NAMES.index("stockout_share")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each foundation model in turn."""
    chosen: Kind = request.param
    return chosen


def _tiny(kind: Kind, tmp_path: Path, *, horizon: int = 10, seed: int = 7) -> FoundationForecaster:
    folder = tmp_path / kind
    if not folder.exists():
        save_tiny_weights(kind, folder)
    return FoundationForecaster(
        load_pretrained(kind, folder), kind,
        horizon=horizon, bucket_ms=DAY_MS, quantiles=LEVELS, seed=seed,
    )  # fmt: skip


def _shop(series: int = 5, *, days: int = 100) -> np.ndarray:
    rng = np.random.default_rng(0)
    values_TSF = np.zeros((days, series, len(FEATURE_NAMES)), np.float32)
    week_T = 6 + 4 * np.sin(np.arange(days) * 2 * np.pi / 7)
    values_TSF[:, :, 0] = rng.poisson(week_T[:, None], (days, series))
    return values_TSF


def _forecast(model: FoundationForecaster, values_TSF: np.ndarray) -> QuantileForecast:
    states = model.new_states(0)
    model.warm_up(states, values_TSF[:-1], 0)
    return model.step(states, values_TSF[-1], (len(values_TSF) - 1) * DAY_MS)


@pytest.mark.parametrize("horizon", [10, 40])
def test_forecasts_keep_the_contract(kind: Kind, horizon: int, tmp_path: Path) -> None:
    """Within and beyond the horizon that the model was trained for."""
    model = _tiny(kind, tmp_path, horizon=horizon)
    made = _forecast(model, _shop())

    assert isinstance(model, Forecaster)
    assert made.model_id == kind
    assert made.origin_ms == 100 * DAY_MS
    for block_SHQ in (made.units_SHQ, made.cumulative_SHQ):
        assert block_SHQ.shape == (5, horizon, len(LEVELS))
        assert block_SHQ.dtype == np.float32
        assert np.isfinite(block_SHQ).all()
        assert block_SHQ.min() >= 0
        assert (np.diff(block_SHQ, axis=2) >= 0).all()
    assert made.units_SHQ[..., -1].min() > 0
    assert (np.diff(made.cumulative_SHQ, axis=1) >= 0).all()
    assert (made.cumulative_SHQ >= np.maximum.accumulate(made.units_SHQ, axis=1)).all()
    np.testing.assert_array_equal(made.cumulative_SHQ[:, 0], made.units_SHQ[:, 0])


def test_a_series_is_forecast_alike_alone_and_among_others(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of any size; no series reads another."""
    model, shop_TSF = _tiny(kind, tmp_path), _shop()
    together = _forecast(model, shop_TSF)
    monkeypatch.setattr(module, "BATCH", 2)
    in_twos = _forecast(model, shop_TSF)
    alone = _forecast(model, shop_TSF[:, 3:4])

    for name in ("units_SHQ", "cumulative_SHQ"):
        expected_SHQ = getattr(together, name)
        np.testing.assert_allclose(getattr(in_twos, name), expected_SHQ, rtol=0.02, atol=0.05)
        np.testing.assert_allclose(getattr(alone, name)[0], expected_SHQ[3], rtol=0.02, atol=0.05)


def test_stepping_on_equals_warming_up(kind: Kind, tmp_path: Path) -> None:
    model, shop_TSF = _tiny(kind, tmp_path), _shop(2)
    states = model.new_states(2)
    model.warm_up(states, shop_TSF[:90], 0)
    for day in range(90, 100):
        stepped = model.step(states, shop_TSF[day], day * DAY_MS)

    np.testing.assert_array_equal(stepped.units_SHQ, _forecast(model, shop_TSF).units_SHQ)


def test_only_the_context_is_kept(tmp_path: Path) -> None:
    model, shop_TSF = _tiny("tirex", tmp_path), _shop(2)
    states = model.new_states(2)
    model.warm_up(states, shop_TSF, 0)

    np.testing.assert_array_equal(states.units_TS, shop_TSF[-CONTEXT:, :, 0])


def test_before_its_first_sale_demand_is_unknown_and_then_silence_is_zero(tmp_path: Path) -> None:
    model = _tiny("tirex", tmp_path)
    states = model.new_states(1)
    values_TSF = np.zeros((4, 1, len(FEATURE_NAMES)), np.float32)
    values_TSF[2, 0, 0] = 5
    model.warm_up(states, values_TSF, 0)
    both_SF = np.zeros((2, len(FEATURE_NAMES)), np.float32)
    both_SF[1, 0] = 3
    model.step(states, both_SF, 6 * DAY_MS)

    np.testing.assert_array_equal(states.units_TS[:, 0], [np.nan, np.nan, 5, 0, 0, 0, 0])
    np.testing.assert_array_equal(states.units_TS[:, 1], [np.nan] * 6 + [3])


def test_sold_out_buckets_are_unknown(tmp_path: Path) -> None:
    model, shop_TSF = _tiny("tirex", tmp_path), _shop(2, days=20)
    shop_TSF[18, 1, STOCK], shop_TSF[18, 1, STOCKOUT_SHARE] = 1, 0.8
    states = model.new_states(2)
    model.warm_up(states, shop_TSF, 0)

    np.testing.assert_array_equal(np.argwhere(np.isnan(states.units_TS)), [[18, 1]])


def test_a_series_that_never_sold_is_forecast_as_zero(kind: Kind, tmp_path: Path) -> None:
    shop_TSF = _shop()
    shop_TSF[:, 1, 0] = 0
    made = _forecast(_tiny(kind, tmp_path), shop_TSF)

    assert made.units_SHQ[1].max() == made.cumulative_SHQ[1].max() == 0
    assert made.units_SHQ[2].max() > 0


def test_the_seed_draws_the_sums_alone(tmp_path: Path) -> None:
    shop_TSF = _shop()
    first, same, other = (
        _forecast(_tiny("tirex", tmp_path, seed=seed), shop_TSF) for seed in (1, 1, 2)
    )

    np.testing.assert_array_equal(first.cumulative_SHQ, same.cumulative_SHQ)
    np.testing.assert_array_equal(first.units_SHQ, other.units_SHQ)
    assert (first.cumulative_SHQ != other.cumulative_SHQ).any()


def test_foreign_states_and_invalid_demand_are_refused(tmp_path: Path) -> None:
    model, shop_TSF = _tiny("tirex", tmp_path), _shop(1)

    with pytest.raises(TypeError, match="NaiveStates"):
        model.step(NaiveStates(1, 7), shop_TSF[0], 0)
    with pytest.raises(InvalidValues, match="negative"):
        model.step(model.new_states(1), -shop_TSF[0], 0)
