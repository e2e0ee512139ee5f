"""Forecast metrics in numpy, each with its definition, stating whether it includes WQL's factor 2.

Axes: N = any number of forecast buckets, flattened, Q = quantiles.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


class UndefinedMetric(ValueError):
    """The metric is undefined for this input; the text gives the reason."""


def pinball_loss(actual_N: Floats, forecast_NQ: Floats, quantiles: tuple[float, ...]) -> Floats:
    """Pinball loss [N, Q] in units, **without** the factor 2 (Koenker & Bassett 1978).

    ``max(q·e, (q − 1)·e)`` with ``e = actual − forecast``.

    >>> pinball_loss(np.array([10.0]), np.array([[8.0, 8.0]]), (0.5, 0.9)).round(6).tolist()
    [[1.0, 1.8]]
    """
    q_Q = np.asarray(quantiles)
    error_NQ = np.asarray(actual_N, np.float64)[:, None] - forecast_NQ
    return np.maximum(q_Q * error_NQ, (q_Q - 1) * error_NQ)


def wql(actual_N: Floats, forecast_NQ: Floats, quantiles: tuple[float, ...]) -> float:
    """Weighted quantile loss: ``2 · Σ pinball / Σ |actual|``, mean over q (**factor 2**).

    Pooled over all arguments. Raises UndefinedMetric if Σ |actual| is 0.

    >>> round(wql(np.array([10.0, 0.0]), np.array([[8.0], [1.0]]), (0.5,)), 6)
    0.3
    """
    total = float(np.abs(actual_N).sum())
    if total == 0:
        raise UndefinedMetric("WQL is undefined: all actual values are zero")
    loss_Q = pinball_loss(actual_N, forecast_NQ, quantiles).sum(axis=0)
    return float(2 * loss_Q.mean() / total)


def sql(
    actual_N: Floats, forecast_NQ: Floats, quantiles: tuple[float, ...], naive_error_N: Floats
) -> float:
    """Scaled quantile loss: ``2 · pinball / naive error``, mean (**factor 2**).

    `naive_error_N` is the in-sample mean absolute error of the seasonal naive for the series of
    each bucket; buckets with 0 are left out. Raises UndefinedMetric if none is left.

    >>> round(sql(np.array([10.0]), np.array([[8.0]]), (0.5,), np.array([4.0])), 6)
    0.5
    """
    loss_N = 2 * pinball_loss(actual_N, forecast_NQ, quantiles).mean(axis=1)
    return _scaled_mean(loss_N, naive_error_N, "SQL")


def mase(actual_N: Floats, median_N: Floats, naive_error_N: Floats) -> float:
    """Mean absolute scaled error (Hyndman & Koehler 2006): mean ``|actual − median| / naive``.

    >>> mase(np.array([10.0]), np.array([8.0]), np.array([4.0]))
    0.5
    """
    error_N = np.abs(np.asarray(actual_N, np.float64) - median_N)
    return _scaled_mean(error_N, naive_error_N, "MASE")


def _scaled_mean(loss_N: Floats, naive_error_N: Floats, name: str) -> float:
    usable_N = np.asarray(naive_error_N) > 0
    if not usable_N.any():
        raise UndefinedMetric(f"{name} is undefined: the seasonal naive made no error in the past")
    return float((loss_N[usable_N] / np.asarray(naive_error_N)[usable_N]).mean())


def interval_coverage(actual_N: Floats, low_N: Floats, high_N: Floats) -> float:
    """Share of actual values inside ``[low, high]``, both ends included.

    >>> interval_coverage(np.array([1.0, 9.0]), np.array([0.0, 0.0]), np.array([2.0, 2.0]))
    0.5
    """
    actual_N = np.asarray(actual_N)
    return float(((actual_N >= low_N) & (actual_N <= high_N)).mean())


def pit_coverage(actual_N: Floats, forecast_NQ: Floats, quantiles: tuple[float, ...]) -> float:
    """Share of the demand inside the outermost band if bounds and demand are often equal.

    Counts are often zero, and so are their low quantiles: ``low <= 0`` is then true for every zero,
    and `interval_coverage` is near 1 - (1 - q) for a perfect forecast. Here a value equal to
    several quantiles is spread evenly over their probabilities (the non-randomised probability
    integral transform, Czado, Gneiting & Held 2009): a perfect forecast of any demand has the
    nominal coverage. A run of equal quantiles ends halfway to the next level. If all demand is
    whole, forecasts are first rounded to whole units.

    >>> zeros = np.zeros((1, 5))
    >>> pit_coverage(np.array([0.0]), zeros, (0.1, 0.3, 0.5, 0.7, 0.9))
    0.842...
    >>> pit_coverage(np.array([2.0, 5.0]), np.array([[1.0, 3.0, 4.0]] * 2), (0.1, 0.5, 0.9))
    0.5
    """
    level_Q = np.asarray(quantiles, np.float64)
    actual_N1 = np.asarray(actual_N)[:, None]
    if (actual_N1 == np.rint(actual_N1)).all():
        forecast_NQ = np.rint(forecast_NQ)  # a quantile of a count is a count
    below_N = (forecast_NQ < actual_N1).sum(axis=1)
    reached_N = (forecast_NQ <= actual_N1).sum(axis=1)
    edges = np.concatenate(([0.0], level_Q, [1.0]))
    halfway = (edges[:-1] + edges[1:]) / 2
    first_N = np.where(below_N > 0, halfway[below_N], 0.0)
    last_N = halfway[reached_N]
    width_N = last_N - first_N
    low, high = level_Q[0], level_Q[-1]
    overlap_N = np.minimum(last_N, high) - np.maximum(first_N, low)
    between_N = (below_N > 0) & (below_N < level_Q.size)
    share_N = np.where(
        width_N > 0, np.maximum(overlap_N, 0) / np.where(width_N > 0, width_N, 1), between_N
    )
    return float(share_N.mean())


def bias(actual_N: Floats, median_N: Floats) -> float:
    """``Σ (median − actual) / Σ |actual|``: positive = forecast too high.

    Raises UndefinedMetric if Σ |actual| is 0.

    >>> bias(np.array([10.0]), np.array([12.0]))
    0.2
    """
    total = float(np.abs(actual_N).sum())
    if total == 0:
        raise UndefinedMetric("bias is undefined: all actual values are zero")
    return float((np.asarray(median_N, np.float64) - actual_N).sum() / total)
