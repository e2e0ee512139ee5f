"""Quantiles of sums: coverage on a known process, and never below what their parts imply."""

from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from model.foundation.sums import Floats, at_scores, normal_scores, persistence, sum_quantiles

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LEVELS = (0.01, 0.1, 0.5, 0.9, 0.99)
HORIZON = 14


def _rising(values_SHL: NDArray[np.float64]) -> Floats:
    rising_SHL: Floats = np.sort(values_SHL, axis=2).astype(np.float32)
    return rising_SHL


def _autoregressive(series: int, *, buckets: int, share: float, seed: int) -> Floats:
    """AR(1) demand [T, S] around 100, with innovations of standard deviation 5."""
    rng = np.random.default_rng(seed)
    values_TS = np.zeros((buckets, series))
    values_TS[0] = rng.normal(scale=5 / np.sqrt(1 - share**2), size=series)
    for t in range(1, buckets):
        values_TS[t] = share * values_TS[t - 1] + rng.normal(scale=5, size=series)
    demand_TS: Floats = (values_TS + 100).astype(np.float32)
    return demand_TS


def test_beyond_the_outermost_levels_tails_are_normal() -> None:
    normal = NormalDist(10, 2)
    own_SL = np.array([[normal.inv_cdf(q) for q in DECILES]], np.float32)
    made_SQ = at_scores(own_SL, normal_scores(DECILES), normal_scores(LEVELS)[None])

    np.testing.assert_allclose(made_SQ[0], [normal.inv_cdf(q) for q in LEVELS], rtol=1e-5)


def test_between_levels_values_rise_and_own_levels_are_kept() -> None:
    own_SL = np.array([[0, 0, 0, 1, 1, 2, 4, 5, 9]], np.float32)
    levels = (0.05, *DECILES, 0.95)
    made_SQ = at_scores(own_SL, normal_scores(DECILES), normal_scores(levels)[None])

    np.testing.assert_allclose(made_SQ[0, 1:-1], own_SL[0], atol=1e-6)
    assert made_SQ[0, 0] == 0
    assert made_SQ[0, -1] > 9


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_persistence_is_that_of_the_process(share: float) -> None:
    """Around a weekly profile, with a tenth of the buckets unknown."""
    values_TS = _autoregressive(40, buckets=600, share=share, seed=1)
    values_TS += 30 * (np.arange(600) % 7 == 5)[:, None]
    values_TS[np.random.default_rng(2).random(values_TS.shape) < 0.1] = np.nan
    found_S = persistence(values_TS, season=7)

    assert np.median(found_S) == pytest.approx(share, abs=0.06)
    assert found_S.max() <= 0.99


@pytest.mark.parametrize("share", [0.0, 0.6, 0.9])
def test_bands_of_sums_have_nominal_coverage(share: float) -> None:
    """From true bucket forecasts of an AR(1) process, with the persistence of its past."""
    series, past = 1_500, 300
    values_TS = _autoregressive(series, buckets=past + HORIZON, share=share, seed=3)
    steps_H = np.arange(1, HORIZON + 1)
    mean_SH = 100 + (values_TS[past - 1] - 100)[:, None] * share**steps_H
    spread_H = 5 * np.sqrt(np.cumsum(share ** (2 * (steps_H - 1))))
    own_SHL = mean_SH[:, :, None] + spread_H[:, None] * normal_scores(DECILES)
    sums_SHQ = sum_quantiles(
        own_SHL.astype(np.float32),
        own_SHL.astype(np.float32),
        persistence(values_TS[:past], season=7),
        levels=DECILES, quantiles=DECILES, seed=7,
    )  # fmt: skip
    actual_SH = np.cumsum(values_TS[past:], axis=0).T
    covered_H = ((sums_SHQ[:, :, 0] <= actual_SH) & (actual_SH <= sums_SHQ[:, :, -1])).mean(axis=0)

    assert covered_H[-1] == pytest.approx(0.8, abs=0.035)
    assert covered_H.mean() == pytest.approx(0.8, abs=0.025)


def test_sums_contradict_no_bucket() -> None:
    """Equal at the first step, never below a bucket or a shorter sum, rising with the level."""
    rng = np.random.default_rng(4)
    own_SHL = _rising(rng.gamma(0.2, 20, size=(30, HORIZON, len(DECILES))))
    own_SHL[rng.random((30, HORIZON)) < 0.9] = 0  # the sum is often that of one bucket
    scores_NQ = np.tile(normal_scores(LEVELS), (30 * HORIZON, 1))
    units_NQ = at_scores(own_SHL.reshape(len(scores_NQ), -1), normal_scores(DECILES), scores_NQ)
    units_SHQ = units_NQ.reshape(30, HORIZON, len(LEVELS))
    sums_SHQ = sum_quantiles(
        own_SHL, units_SHQ, rng.random(30).astype(np.float32),
        levels=DECILES, quantiles=LEVELS, seed=1,
    )  # fmt: skip

    np.testing.assert_array_equal(sums_SHQ[:, 0], units_SHQ[:, 0])
    assert (sums_SHQ >= np.maximum.accumulate(units_SHQ, axis=1)).all()
    assert (np.diff(sums_SHQ, axis=1) >= 0).all()
    assert (np.diff(sums_SHQ, axis=2) >= 0).all()


def test_the_seed_alone_decides_the_paths() -> None:
    own_SHL = _rising(np.random.default_rng(5).gamma(2, 5, size=(3, HORIZON, len(DECILES))))
    half_S = np.full(3, 0.5, np.float32)

    def drawn(seed: int) -> Floats:
        return sum_quantiles(own_SHL, own_SHL, half_S, levels=DECILES, quantiles=DECILES, seed=seed)

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert (drawn(1) != drawn(2)).any()
