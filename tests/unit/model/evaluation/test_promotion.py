"""A challenger is promoted if it is better beyond noise and worse in no class."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.evaluation.backtest import Backtest
from model.evaluation.promotion import bootstrap_change, decide, decide_first

QUANTILES = (0.1, 0.5, 0.9)
Z_Q = np.array([-1.28, 0.0, 1.28])
NO_ROLLUPS = np.zeros(0, np.int64)


def outcome(
    *, series: int = 40, origins: int = 5, seed: int = 0, **errors: NDArray[np.float64] | float
) -> Backtest:
    """Poisson demand of series small and large; each model's forecasts are off by its error.

    An error is in multiples of the spread of the demand, one for all series or one each.
    """
    rng = np.random.default_rng(seed)
    mean_S = np.exp(rng.normal(1.5, 1.0, series))
    actual_OSH = rng.poisson(np.broadcast_to(mean_S[:, None], (origins, series, 6)))
    forecast = {}
    for name, error in errors.items():
        middle_S = mean_S + np.broadcast_to(error, series) * np.sqrt(mean_S)
        band_SQ = middle_S[:, None] + np.sqrt(mean_S)[:, None] * Z_Q
        block = np.broadcast_to(band_SQ[None, :, None], (origins, series, 6, 3))
        forecast[name] = np.maximum(block, 0).astype(np.float32)
    return Backtest(
        series=[f"s{slot}" for slot in range(series)],
        origins_ms=list(range(origins)),
        bucket_ms=60_000,
        quantiles=QUANTILES,
        actual_OSH=actual_OSH.astype(np.float32),
        forecast=forecast,
        naive_error_OS=np.ones((origins, series)),
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), error=st.floats(-2, 2), series=st.integers(1, 60))
def test_identical_models_are_never_promoted(seed: int, error: float, series: int) -> None:
    result = outcome(seed=seed, series=series, champion=error, challenger=error)
    verdict = decide(result, champion="champion", challenger="challenger", seed=seed)

    assert not verdict.promoted
    assert verdict.change == verdict.low == verdict.high == 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), error=st.floats(1.0, 3.0), series=st.integers(10, 60))
def test_a_clearly_better_model_is_promoted_and_never_the_other_way_round(
    seed: int, error: float, series: int
) -> None:
    result = outcome(seed=seed, series=series, off=error, right=0.0)

    assert decide(result, champion="off", challenger="right", seed=seed).promoted
    assert not decide(result, champion="right", challenger="off", seed=seed).promoted


def test_noise_alone_rarely_promotes() -> None:
    """Of models that differ by chance only, at most one in ten passes (2.5 % expected)."""
    rng = np.random.default_rng(5)
    promoted = 0
    for seed in range(60):
        one, other = rng.normal(0, 0.3, (2, 40))
        result = outcome(seed=seed, one=one, other=other)
        promoted += decide(result, champion="one", challenger="other").promoted

    assert promoted <= 6


def test_an_overall_gain_at_the_cost_of_one_class_is_refused() -> None:
    """Better on the large series, worse on the long tail: refused, and the class is named."""
    result = outcome(champion=1.5)
    units_S = result.actual_OSH.sum(axis=(0, 2))
    tail_S = units_S < np.quantile(units_S, 0.4)
    mixed = outcome(champion=1.5, challenger=np.where(tail_S, 2.0, 0.0))
    verdict = decide(mixed, champion="champion", challenger="challenger")

    assert verdict.high < 0
    assert not verdict.promoted
    assert "class C loses" in verdict.reason
    assert decide(mixed, champion="champion", challenger="challenger", tolerance=5.0).promoted


def test_roll_ups_are_not_part_of_the_figure_but_must_not_get_worse() -> None:
    """A total counts every unit twice, but its forecasts must not get worse."""
    error_S = np.zeros(41)
    error_S[40] = 3.0
    result = outcome(series=41, champion=np.append(np.full(40, 1.0), 0.0), challenger=error_S)
    last = np.array([40])
    verdict = decide(result, champion="champion", challenger="challenger", rollups=last)

    assert verdict.high < 0
    assert not verdict.promoted
    assert "roll-ups" in verdict.reason
    assert set(verdict.class_changes) == {"A", "B", "C", "roll-ups"}


def test_the_reason_is_one_sentence_with_figures_and_interval() -> None:
    result = outcome(champion=2.0, challenger=0.0)
    verdict = decide(result, champion="champion", challenger="challenger")

    assert verdict.reason.startswith("better beyond noise: WQL ")
    assert f"{100 * verdict.low:+.1f} … {100 * verdict.high:+.1f} %" in verdict.reason
    assert "\n" not in verdict.reason
    assert verdict == decide(result, champion="champion", challenger="challenger"), "seeded"


def test_without_demand_or_with_nan_no_model_is_promoted() -> None:
    result = outcome(champion=1.0, challenger=0.0)
    result.forecast["challenger"][0, 0] = np.nan
    nan = decide(result, champion="champion", challenger="challenger")
    silent = outcome(champion=1.0, challenger=0.0)
    silent.actual_OSH[:] = 0
    nothing = decide(silent, champion="champion", challenger="challenger")

    assert (nan.promoted, nothing.promoted) == (False, False)
    assert "finite" in nan.reason
    assert "nothing was sold" in nothing.reason


@pytest.mark.parametrize(("error", "promoted"), [(0.9, True), (1.0, False), (1.2, False)])
def test_a_first_model_need_only_beat_the_yardstick(error: float, promoted: bool) -> None:
    result = outcome(seasonal_naive=1.0, challenger=error)
    verdict = decide_first(result, yardstick="seasonal_naive", challenger="challenger")

    assert verdict.promoted is promoted
    assert "seasonal_naive" in verdict.reason


def test_the_interval_narrows_with_more_series() -> None:
    rng = np.random.default_rng(0)
    before_S = rng.gamma(2.0, 1.0, 400)
    after_S = before_S * rng.normal(0.95, 0.3, 400)
    few = bootstrap_change(before_S[:20], after_S[:20], seed=1)
    many = bootstrap_change(before_S, after_S, seed=1)

    assert many[1] - many[0] < (few[1] - few[0]) / 2
