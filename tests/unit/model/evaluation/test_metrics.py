"""Metrics have their defined values on demand with a known distribution."""

import numpy as np
import pytest

from model.config import DECILES
from model.evaluation.metrics import (
    UndefinedMetric,
    bias,
    interval_coverage,
    mase,
    pinball_loss,
    pit_coverage,
    sql,
    wql,
)


def _counts(mean: float) -> tuple[np.ndarray, np.ndarray]:
    """Poisson demand and its own true quantiles."""
    actual_N = np.random.default_rng(1).poisson(mean, 200_000)
    true_Q = np.quantile(actual_N, DECILES, method="inverted_cdf")
    return actual_N, np.broadcast_to(true_Q, (actual_N.size, 9))


@pytest.mark.parametrize("mean", [0.05, 0.4, 2.0, 60.0])
def test_a_perfect_forecast_of_counts_has_the_nominal_coverage(mean: float) -> None:
    actual_N, forecast_NQ = _counts(mean)

    assert pit_coverage(actual_N, forecast_NQ, DECILES) == pytest.approx(0.8, abs=0.06)


def test_plain_coverage_of_zeros_is_misleading() -> None:
    """Why `pit_coverage` exists: a perfect forecast of rare sales seems far too wide."""
    actual_N, forecast_NQ = _counts(0.05)

    assert interval_coverage(actual_N, forecast_NQ[:, 0], forecast_NQ[:, -1]) > 0.9


def test_no_constant_forecast_scores_better_than_the_true_quantiles() -> None:
    actual_N, forecast_NQ = _counts(2.0)
    best = wql(actual_N, forecast_NQ, DECILES)

    for factor in (0.0, 0.5, 1.5):
        assert wql(actual_N, forecast_NQ * factor, DECILES) > best


def test_with_the_factor_two_the_loss_of_the_median_is_the_absolute_error() -> None:
    actual_N = np.array([3.0, 0.0, 8.0])
    median_N1 = np.array([[1.0], [2.0], [8.0]])

    assert wql(actual_N, median_N1, (0.5,)) == pytest.approx(np.abs([2, 2, 0]).sum() / 11)
    assert pinball_loss(actual_N, median_N1, (0.5,)).sum() == pytest.approx(2.0)


def test_undefined_metrics_raise_instead_of_returning_zero() -> None:
    nothing = np.zeros(3)
    with pytest.raises(UndefinedMetric, match="zero"):
        wql(nothing, np.zeros((3, 1)), (0.5,))
    with pytest.raises(UndefinedMetric, match="zero"):
        bias(nothing, nothing)
    with pytest.raises(UndefinedMetric, match="naive"):
        sql(np.ones(3), np.ones((3, 1)), (0.5,), nothing)
    with pytest.raises(UndefinedMetric, match="naive"):
        mase(np.ones(3), np.ones(3), nothing)
