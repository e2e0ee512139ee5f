"""A challenger is promoted if it is better beyond noise, worth a swap, and worse in no class."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.promotion.run import GAIN, RULES, life, promoted
from benchmarks.promotion.shops import Shop
from model.evaluation.backtest import Backtest
from model.evaluation.promotion import LEAST_ORIGINS, Verdict, decide

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


def verdict_of(result: Backtest, **given: object) -> Verdict:
    return decide(result, champion="champion", challenger="challenger", **given)  # type: ignore[arg-type]


# -- the bar: simulated verdicts -----------------------------------------------------------------


@pytest.mark.parametrize(
    "shop", [Shop(), Shop(lag=0.4), Shop(own=0.05), Shop(shock=0.012), Shop(series=20)],
    ids=["as measured", "lasting shocks", "habits of series", "large shocks", "few series"],
)  # fmt: skip
def test_equal_networks_are_promoted_in_at_most_one_of_twenty_verdicts(shop: Shop) -> None:
    shares = promoted(shop, {"rule": RULES["promotion"]}, gain=0.0, verdicts=200, seed=3)

    assert shares["rule"] <= 0.05


def test_a_network_two_percent_better_is_promoted_in_four_of_five_verdicts() -> None:
    shares = promoted(Shop(), {"rule": RULES["promotion"]}, gain=GAIN, verdicts=200, seed=3)

    assert shares["rule"] >= 0.80


def test_series_alone_do_not_show_the_noise() -> None:
    """Why origins count: the interval of a bootstrap over series is too narrow."""
    shares = promoted(Shop(), {"rule": RULES["series"]}, gain=0.0, verdicts=100, seed=3)

    assert shares["rule"] > 0.08


def test_repeated_looks_at_the_same_origins_do_not_let_luck_win() -> None:
    """A challenger a day for a year; every day alone at 2.5 % would promote more often."""
    verdicts = [life(Shop(), days=73, seed=seed) for seed in range(5)]
    loose = [life(Shop(), days=73, seed=seed, controlled=False) for seed in range(5)]

    # at most one promotion in twenty weeks of new origins, with one in five to spare
    assert np.sum(verdicts) <= 365 / 7 * 0.05 + 1
    assert np.sum(loose) > np.sum(verdicts)


def test_a_better_network_is_promoted_although_every_day_is_looked_at() -> None:
    verdicts = life(Shop(), days=20, seed=1, gain=GAIN)

    assert np.mean(verdicts) >= 0.8


# -- verdicts on forecasts -----------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), error=st.floats(-2, 2), series=st.integers(1, 60))
def test_identical_models_are_never_promoted(seed: int, error: float, series: int) -> None:
    result = outcome(seed=seed, series=series, champion=error, challenger=error)
    verdict = verdict_of(result)

    assert not verdict.promoted
    assert verdict.change == verdict.low == verdict.high == 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), error=st.floats(1.0, 3.0), series=st.integers(10, 60))
def test_a_clearly_better_model_is_promoted_and_never_the_other_way_round(
    seed: int, error: float, series: int
) -> None:
    result = outcome(seed=seed, series=series, off=error, right=0.0)

    assert decide(result, champion="off", challenger="right").promoted
    assert not decide(result, champion="right", challenger="off").promoted


def test_an_overall_gain_at_the_cost_of_one_class_is_refused() -> None:
    """Better on the large series, worse on the long tail: refused, and the class is named."""
    result = outcome(champion=1.5)
    units_S = result.actual_OSH.sum(axis=(0, 2))
    tail_S = units_S < np.quantile(units_S, 0.4)
    mixed = outcome(champion=1.5, challenger=np.where(tail_S, 2.0, 0.0))
    verdict = verdict_of(mixed)

    assert verdict.high < 0
    assert not verdict.promoted
    assert "class C loses" in verdict.reason
    assert verdict_of(mixed, tolerance=5.0).promoted


def test_roll_ups_are_not_part_of_the_figure_but_must_not_get_worse() -> None:
    """A total counts every unit twice, but its forecasts must not get worse."""
    error_S = np.zeros(41)
    error_S[40] = 3.0
    result = outcome(series=41, champion=np.append(np.full(40, 1.0), 0.0), challenger=error_S)
    verdict = verdict_of(result, rollups=np.array([40]))

    assert verdict.high < 0
    assert not verdict.promoted
    assert "roll-ups" in verdict.reason
    assert set(verdict.class_changes) == {"A", "B", "C", "roll-ups"}


def test_a_class_that_only_looks_worse_by_noise_does_not_stop_a_gain() -> None:
    """Roll-ups are few: their loss at one bad origin is no evidence against the challenger."""
    result = outcome(series=41, champion=1.0, challenger=np.append(np.zeros(40), 1.0))
    result.forecast["challenger"][0, 40] *= 3
    verdict = verdict_of(result, rollups=np.array([40]))

    assert verdict.class_changes["roll-ups"] > 0.02
    assert verdict.promoted, verdict.reason


def test_sold_out_buckets_do_not_count() -> None:
    """A challenger right about demand must not lose to one right about empty shelves."""
    result = outcome(champion=1.0, challenger=0.0)
    sold_out = np.zeros(result.actual_OSH.shape, bool)
    sold_out[:, ::2] = True
    result.actual_OSH[sold_out] = 0
    result.forecast["champion"][:, ::2] = 0

    assert not verdict_of(result).promoted
    verdict = verdict_of(result, known_OSH=~sold_out)
    assert verdict.promoted, verdict.reason
    assert verdict.champion_wql == pytest.approx(verdict_of(_half(result)).champion_wql)


def _half(result: Backtest) -> Backtest:
    """The series that were never sold out."""
    return replace(
        result,
        series=result.series[1::2],
        actual_OSH=result.actual_OSH[:, 1::2],
        forecast={name: block[:, 1::2] for name, block in result.forecast.items()},
        naive_error_OS=result.naive_error_OS[:, 1::2],
    )


def test_the_reason_is_one_sentence_with_figures_and_interval() -> None:
    result = outcome(champion=2.0, challenger=0.0)
    verdict = verdict_of(result)

    assert verdict.reason.startswith("better beyond noise: WQL ")
    assert f"{100 * verdict.low:+.1f} … {100 * verdict.high:+.1f} %" in verdict.reason
    assert "95 % interval" in verdict.reason
    assert "\n" not in verdict.reason
    assert verdict.origins_ms == (0, 1, 2, 3, 4)


def test_a_gain_too_small_for_a_swap_is_refused() -> None:
    result = outcome(champion=0.0)
    result.forecast["challenger"] = result.forecast["champion"].copy()
    actual_OSH1 = result.actual_OSH[..., None]
    result.forecast["challenger"] += 0.003 * (actual_OSH1 - result.forecast["champion"])
    verdict = verdict_of(result)

    assert verdict.high < 0
    assert not verdict.promoted
    assert "not worth a swap" in verdict.reason


def test_the_less_error_is_left_the_stronger_the_evidence_must_be() -> None:
    result = outcome(champion=0.35, challenger=0.0, series=20)
    first, tenth = verdict_of(result), verdict_of(result, tail=0.025 / 2**9)

    assert first.promoted, first.reason
    assert not tenth.promoted
    assert tenth.low < first.low


def test_without_demand_with_nan_or_with_few_origins_no_model_is_promoted() -> None:
    result = outcome(champion=1.0, challenger=0.0)
    result.forecast["challenger"][0, 0] = np.nan
    nan = verdict_of(result)
    silent = outcome(champion=1.0, challenger=0.0)
    silent.actual_OSH[:] = 0
    nothing = verdict_of(silent)
    few = verdict_of(outcome(champion=2.0, challenger=0.0, origins=LEAST_ORIGINS - 1))

    assert (nan.promoted, nothing.promoted, few.promoted) == (False, False, False)
    assert "finite" in nan.reason
    assert "nothing was sold" in nothing.reason
    assert "fewer than 3 origins" in few.reason
