"""Probability integral transform (PIT) of counts under a quantile forecast.

Demand is counted in whole units, and is mostly zero. ``demand ≤ quantile`` is then true for every
zero and any quantile, and not informative. So a bucket is spread uniformly over P(X < demand) to
P(X ≤ demand) (Czado, Gneiting & Held 2009).

A forecast is read as a continuous distribution, linear between its quantiles and exponential beyond
them, and back again.

Axes: Q = quantiles, N = labels, X = any.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Float32s = NDArray[np.float32]

#: Levels stay within this and one minus this; few quantiles carry no information beyond.
MIN_LEVEL = 0.002
#: Below this width a label's probabilities count as one point.
_NO_WIDTH = 1e-6


def pit_bounds(
    actual_N: Floats, forecast_NQ: Floats, quantiles: Sequence[float]
) -> tuple[Floats, Floats]:
    """Probabilities of less than the demand, and of the demand at most.

    The forecast is read as a continuous distribution, linear between its quantiles and exponential
    beyond them, whose draws are rounded to whole units. For a demand of 0 the first is 0.

    >>> quantiles = (0.1, 0.3, 0.5, 0.7, 0.9)
    >>> row = np.array([[0.0, 0.0, 0.0, 1.0, 2.0]])
    >>> [round(float(bound[0]), 3) for bound in pit_bounds(np.array([1.0]), row, quantiles)]
    [0.6, 0.8]
    >>> pit_bounds(np.array([0.0]), row, quantiles)[0].item()
    0.0
    """
    values_NQ = np.asarray(forecast_NQ, np.float32)
    actual = np.asarray(actual_N, np.float32)
    low = np.where(actual > 0, probability_below(actual - 0.5, values_NQ, quantiles), 0.0)
    high = probability_below(actual + 0.5, values_NQ, quantiles)
    return low, np.maximum(low, high)


def probability_below(units_N: Floats, values_NQ: Floats, quantiles: Sequence[float]) -> Floats:
    """Probability [N] of fewer than `units_N` units under a forecast.

    >>> probability_below(np.array([1.5, 9.0]), np.array([[1.0, 2.0]] * 2), (0.4, 0.6)).round(3)
    array([0.5  , 0.977], dtype=float32)
    """
    q_Q = np.asarray(quantiles, np.float32)
    n = q_Q.size
    reached_N = (values_NQ <= units_N[:, None]).sum(axis=1)
    if n == 1:
        return np.where(reached_N > 0, 1.0, 0.0).astype(np.float32)
    row_N = np.arange(len(values_NQ))
    left_N = np.clip(reached_N - 1, 0, n - 2)
    below, above = values_NQ[row_N, left_N], values_NQ[row_N, left_N + 1]
    width_N = above - below
    safe_N = np.where(width_N > 0, width_N, 1.0)
    inner_N = q_Q[left_N] + (q_Q[left_N + 1] - q_Q[left_N]) * (units_N - below) / safe_N
    # beyond the outermost quantiles the tail is exponential, fitted to the two nearest ones
    upper, lower = np.log((1 - q_Q[-2]) / (1 - q_Q[-1])), np.log(q_Q[1] / q_Q[0])
    flat_N = width_N <= 0
    with np.errstate(over="ignore", under="ignore"):
        past_N = 1 - (1 - q_Q[-1]) * np.exp(-np.maximum(units_N - above, 0) * upper / safe_N)
        short_N = q_Q[0] * np.exp(-np.maximum(below - units_N, 0) * lower / safe_N)
    past_N = np.where(flat_N, 1.0, past_N)
    short_N = np.where(flat_N, 0.0, short_N)
    outside_N = np.where(reached_N == 0, short_N, past_N)
    inside = (reached_N > 0) & (reached_N < n)
    return np.where(inside, inner_N, outside_N).astype(np.float32)


def reading_weights(levels_XQ: Floats, quantiles: Sequence[float]) -> Float32s:
    """Matrices W [X, Q, Q] such that ``W @ quantiles of the model`` are its values at the levels.

    The inverse of `probability_below`: linear between the model's quantiles, exponential beyond.

    >>> reading_weights(np.array([[0.5, 0.6]]), (0.4, 0.6))[0].tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    q_Q = np.asarray(quantiles, np.float64)
    n = q_Q.size
    level_XQ = np.clip(np.asarray(levels_XQ, np.float64), MIN_LEVEL, 1 - MIN_LEVEL)
    shape = level_XQ.shape
    if n == 1:
        return np.ones((*shape, 1), np.float32)
    left = np.clip(np.searchsorted(q_Q, level_XQ, side="right") - 1, 0, n - 2)
    share = (level_XQ - q_Q[left]) / (q_Q[left + 1] - q_Q[left])
    upper, lower = np.log((1 - q_Q[-2]) / (1 - q_Q[-1])), np.log(q_Q[1] / q_Q[0])
    past = 1 + np.log((1 - q_Q[-1]) / (1 - level_XQ)) / upper
    short = -np.log(q_Q[0] / level_XQ) / lower
    share = np.where(level_XQ > q_Q[-1], past, np.where(level_XQ < q_Q[0], short, share))
    weights = np.zeros((*shape, n), np.float32)
    np.put_along_axis(weights, left[..., None], (1 - share)[..., None], axis=-1)
    np.put_along_axis(weights, left[..., None] + 1, share[..., None], axis=-1)
    return weights


def covered(low_N: Floats, high_N: Floats, level_NQ: Floats) -> Floats:
    """Share [N, Q] of each label's probabilities at or below a level.

    >>> covered(np.array([0.0, 0.5]), np.array([0.8, 0.5]), np.array([[0.2, 0.6]] * 2)).tolist()
    [[0.25, 0.75], [0.0, 1.0]]
    """
    width_N1 = (high_N - low_N)[:, None]
    above_NQ = level_NQ - low_N[:, None]
    wide_N1 = width_N1 > _NO_WIDTH
    share_NQ = np.clip(above_NQ / np.where(wide_N1, width_N1, 1.0), 0.0, 1.0)
    return np.where(wide_N1, share_NQ, above_NQ >= 0)
