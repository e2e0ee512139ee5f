"""Online calibration: published quantiles reach their coverage and stay a valid forecast."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.evaluation.calibration import Calibrator, quantiles_at
from model.evaluation.pit import covered, pit_bounds, probability_below, reading_weights

QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
NOMINAL = np.array(QUANTILES, np.float32)


def replay(
    model_Q: NDArray[np.float64], actual_TN: NDArray[np.float64], *, rate: float = 0.01
) -> tuple[NDArray[np.float64], Calibrator]:
    """Shares [T, Q] of demand at or below the published quantiles, by bucket, one step ahead."""
    calibrator = Calibrator(groups=1, horizon=1, quantiles=QUANTILES, rate=rate)
    n = actual_TN.shape[1]
    zero_N = np.zeros(n, np.int64)
    model_NQ = np.tile(model_Q.astype(np.float32), (n, 1))
    shares = []
    for actual_N in actual_TN:
        levels_NQ = np.tile(calibrator.published_GHQ[0, 0], (n, 1))
        low_N, high_N = pit_bounds(actual_N, model_NQ, QUANTILES)
        shares.append(covered(low_N, high_N, levels_NQ).mean(axis=0))
        calibrator.learn(low_N, high_N, group_N=zero_N, step_N=zero_N, levels_NQ=levels_NQ)
    return np.array(shares), calibrator


def quantiles_of(sample: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.quantile(sample, QUANTILES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shift", "stretch"), [(0, 1), (15, 1), (-20, 1), (0, 2.0), (0, 0.5), (10, 1.5)]
)
def test_every_level_reaches_its_coverage_on_a_shifted_stream(shift: float, stretch: float) -> None:
    """Identically distributed demand with a constant error of the model."""
    rng = np.random.default_rng(3)
    model_Q = quantiles_of(rng.normal(100, 20, 10_000))
    actual_TN = np.rint(rng.normal(100 + shift, 20 * stretch, (1_500, 20))).clip(0)

    shares_TQ, _ = replay(model_Q, actual_TN)

    np.testing.assert_allclose(shares_TQ[300:].mean(axis=0), NOMINAL, atol=0.015)


def test_without_calibration_the_coverage_is_missed() -> None:
    """The same stream at constant levels: the baseline of the test above."""
    rng = np.random.default_rng(3)
    model_Q = quantiles_of(rng.normal(100, 20, 10_000))
    actual_N = np.rint(rng.normal(115, 20, 5_000))
    model_NQ = np.tile(model_Q.astype(np.float32), (5_000, 1))

    share_NQ = covered(*pit_bounds(actual_N, model_NQ, QUANTILES), np.tile(NOMINAL, (5_000, 1)))

    assert share_NQ[:, 4].mean() < 0.35


@pytest.mark.parametrize("mean", [0.02, 0.2, 1.0])
def test_levels_stay_where_the_model_is_right_about_zeros(mean: float) -> None:
    """Most demand is zero, at or below every quantile; that moves no level."""
    rng = np.random.default_rng(5)
    counts = rng.poisson(mean, 200_000)
    model_Q = np.quantile(counts + rng.uniform(-0.5, 0.5, counts.size), QUANTILES)

    shares_TQ, calibrator = replay(model_Q, rng.poisson(mean, (1_000, 50)).astype(float))

    np.testing.assert_allclose(calibrator.levels_GHQ[0, 0], NOMINAL, atol=0.05)
    assert shares_TQ[100:, 8].mean() - shares_TQ[100:, 0].mean() == pytest.approx(0.8, abs=0.02)


def test_levels_follow_a_change_of_the_stream() -> None:
    """Demand rises by a quarter; the levels reach their coverage again."""
    rng = np.random.default_rng(9)
    model_Q = quantiles_of(rng.normal(100, 20, 10_000))
    before = rng.normal(100, 20, (400, 50))
    after = rng.normal(125, 20, (600, 50))

    shares_TQ, _ = replay(model_Q, np.rint(np.concatenate([before, after])), rate=0.02)

    np.testing.assert_allclose(shares_TQ[650:].mean(axis=0), NOMINAL, atol=0.02)


@given(
    rows=st.lists(
        st.lists(st.floats(0, 1e4, width=32), min_size=9, max_size=9), min_size=1, max_size=4
    ),
    levels=st.lists(st.floats(0, 1, width=32), min_size=9, max_size=9),
)
@settings(max_examples=60, deadline=None)
def test_published_quantiles_are_a_valid_forecast(
    rows: list[list[float]], levels: list[float]
) -> None:
    """At any levels: rising with q, not negative, and a certain zero stays zero."""
    values_SHQ = np.sort(np.array(rows, np.float32), axis=1)[:, None]
    values_SHQ = np.concatenate([values_SHQ, np.zeros_like(values_SHQ[:1])])
    group_SH = np.zeros((len(values_SHQ), 1), np.int64)
    levels_GHQ = np.sort(np.array(levels, np.float32))[None, None]

    out_SHQ = quantiles_at(values_SHQ, group_SH, levels_GHQ, QUANTILES)

    assert (np.diff(out_SHQ, axis=2) >= 0).all()
    assert (out_SHQ >= 0).all()
    assert np.isfinite(out_SHQ).all()
    assert not out_SHQ[-1].any()


def test_nominal_levels_change_nothing() -> None:
    """A new calibrator publishes the model's forecast, bit for bit."""
    values_SHQ = np.sort(np.random.default_rng(1).gamma(1, 5, (6, 2, 9)).astype(np.float32))
    levels_GHQ = Calibrator(groups=1, horizon=2, quantiles=QUANTILES, rate=0.1).published_GHQ

    out_SHQ = quantiles_at(values_SHQ, np.zeros((6, 2), np.int64), levels_GHQ, QUANTILES)

    np.testing.assert_array_equal(out_SHQ, values_SHQ)


@given(level=st.floats(0.01, 0.99), seed=st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_reading_at_a_level_is_the_inverse_of_the_probability(level: float, seed: int) -> None:
    """Also in the tails, beyond the outermost quantiles."""
    row_Q = np.cumsum(np.random.default_rng(seed).uniform(0.1, 3, 9)) + 50
    value = reading_weights(np.array([[level]]), QUANTILES)[0] @ row_Q.astype(np.float32)

    probability = probability_below(value, row_Q[None].astype(np.float32), QUANTILES)

    assert probability[0] == pytest.approx(level, abs=2e-3)


def test_groups_and_steps_without_labels_do_not_move() -> None:
    """Each group and step has its own levels and its own count of closes."""
    calibrator = Calibrator(groups=2, horizon=3, quantiles=QUANTILES, rate=0.1)
    zeros = np.zeros(4)
    group_N, step_N = np.ones(4, np.int64), np.full(4, 2)

    calibrator.learn(
        zeros, zeros, group_N=group_N, step_N=step_N, levels_NQ=calibrator.published_GHQ[group_N, 2]
    )

    moved_GH = (calibrator.levels_GHQ != NOMINAL).any(axis=2)
    assert np.argwhere(moved_GH).tolist() == [[1, 2]]
    assert calibrator.closes_GH.tolist() == [[0, 0, 0], [0, 0, 1]]
    assert not calibrator.warmed_up(1)


@pytest.mark.slow
def test_delayed_labels_do_not_make_the_levels_oscillate() -> None:
    """A step whose labels are delayed by 100 buckets converges."""
    steps = 101
    calibrator = Calibrator(groups=1, horizon=steps, quantiles=QUANTILES, rate=0.1)
    rng = np.random.default_rng(2)
    published: list[NDArray[np.float32]] = []
    zero_N, last_N = np.zeros(50, np.int64), np.full(50, steps - 1)
    medians = []
    for t in range(4_000):
        published.append(calibrator.published_GHQ[0, -1])
        if t >= steps - 1:
            pit_N = rng.uniform(0, 1, 50) ** 1.5
            calibrator.learn(
                pit_N,
                pit_N,
                group_N=zero_N,
                step_N=last_N,
                levels_NQ=np.tile(published.pop(0), (50, 1)),
            )
        medians.append(calibrator.levels_GHQ[0, -1, 4])
    expected = 0.5**1.5
    assert abs(np.mean(medians[-1_500:]) - expected) < 0.02
    assert np.ptp(medians[-1_500:]) < 0.1
