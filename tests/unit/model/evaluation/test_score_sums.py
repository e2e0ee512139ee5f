"""Scores equal the metrics of `model.evaluation.metrics`, in whatever parts they were summed."""

from typing import Any

import numpy as np
import pytest

from model.evaluation.metrics import bias, interval_coverage, wql
from model.evaluation.pit import pit_bounds
from model.evaluation.score_sums import N_SUMS, SUMS, VOLUMES, score_labels, score_of

QUANTILES = (0.1, 0.5, 0.9)
HORIZON = 3


def labels(n: int = 300, *, seed: int = 4) -> dict[str, Any]:
    """Arguments of `score_labels` for counts around one."""
    rng = np.random.default_rng(seed)
    forecast_NQ = np.sort(rng.gamma(1, 1.5, (n, 3)), axis=1).astype(np.float32)
    actual_N = rng.poisson(1.0, n).astype(np.float32)
    low_N, high_N = pit_bounds(actual_N, forecast_NQ, QUANTILES)
    return {
        "actual_N": actual_N,
        "published_NQ": forecast_NQ,
        "low_N": low_N,
        "high_N": high_N,
        "levels_NQ": np.tile(np.array(QUANTILES), (n, 1)),
        "volume_N": rng.integers(0, len(VOLUMES), n),
        "step_N": rng.integers(0, HORIZON, n),
        "weight_N": np.ones(n),
        "naive_N": np.where(rng.random(n) < 0.2, np.nan, rng.poisson(1.0, n)),
    }


def scored(given: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return score_labels(**given, quantiles=QUANTILES, horizon=HORIZON)


def test_pooled_sums_give_the_metrics_of_the_library() -> None:
    given = labels()
    actual_N, forecast_NQ = given["actual_N"], given["published_NQ"]

    score = score_of(scored(given))

    assert score.labels == 300
    assert score.wql == pytest.approx(wql(actual_N, forecast_NQ, QUANTILES))
    assert score.bias == pytest.approx(bias(actual_N, forecast_NQ[:, 1]))
    inside = interval_coverage(actual_N, forecast_NQ[:, 0], forecast_NQ[:, 2])
    assert score.interval_coverage == pytest.approx(inside)
    known_N = np.isfinite(given["naive_N"])
    naive_NQ = np.tile(given["naive_N"][known_N, None], (1, 3))
    assert score.naive_wql == pytest.approx(wql(actual_N[known_N], naive_NQ, QUANTILES))
    beside = wql(actual_N[known_N], forecast_NQ[known_N], QUANTILES)
    assert score.wql_beside_naive == pytest.approx(beside)


def test_partial_sums_add_up() -> None:
    given = labels()

    parts = [
        scored({name: column[part] for name, column in given.items()})
        for part in (slice(0, 90), slice(90, 300))
    ]

    np.testing.assert_allclose(parts[0] + parts[1], scored(given))


def test_a_label_represents_as_many_series_as_its_weight() -> None:
    given = labels(40)
    twice = {name: np.concatenate([column, column]) for name, column in given.items()}

    heavy, two = scored(given | {"weight_N": np.full(40, 2.0)}), scored(twice)

    at = SUMS.index("labels")
    np.testing.assert_allclose(np.delete(heavy, at, 2), np.delete(two, at, 2))
    assert heavy[..., at].sum() == 40


def test_nothing_sold_is_no_score() -> None:
    score = score_of(np.zeros(N_SUMS))

    assert (score.labels, score.wql, score.coverage, score.bias) == (0, None, None, None)
