"""Quantiles of the demand of any set of series, from the forecasts of each and of the total.

Errors of series are partly their own and partly those of the whole shop. With mean m and variance v
of each series, the demand of a set has

    mean Σ m,     variance Σ v + c · (Σ m)²,

where c is the variance that all share, relative to the mean: what is left of the variance of the
total once the series' own are taken off it. The set is forecast as a gamma distribution with these
two, whose quantiles are those of Wilson & Hilferty (1931).

Axes: S = series, H = horizon, Q = quantiles.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.quantiles.bands import main_band

Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]

_TINY: Final = 1e-9
#: Least shape of the gamma distribution: the approximation fails below.
_LEAST_SHAPE: Final = 1e-2


def variance_of(values_SHQ: Floats, mean_SH: Floats, quantiles: Sequence[float]) -> Floats:
    """Variance [S, H] of each forecast, as if normal between the ends of the main band.

    At least that of a Poisson count; where the band is zero, by the outermost quantile.

    >>> row = np.array([[[10.0, 20.0, 30.0]], [[0.0, 0.0, 0.0]]])
    >>> variance_of(row, np.array([[20.0], [0.5]]), (0.1, 0.5, 0.9)).round(1).ravel().tolist()
    [60.9, 0.5]
    """
    low, high = main_band(quantiles)
    width, outermost = _width(quantiles), NormalDist().inv_cdf(quantiles[-1])
    variance_SH: Floats
    if width > 0:
        variance_SH = values_SHQ[..., high] - values_SHQ[..., low]
        variance_SH *= 1 / width
        variance_SH *= variance_SH
        np.maximum(variance_SH, mean_SH, out=variance_SH)
    else:
        variance_SH = mean_SH.copy()
    if outermost > 0:
        tail_SH = values_SHQ[..., -1] - mean_SH
        tail_SH *= (values_SHQ[..., high] <= 0) / outermost
        np.maximum(variance_SH, tail_SH * np.abs(tail_SH), out=variance_SH)
    return variance_SH


def _width(quantiles: Sequence[float]) -> float:
    """Width of the main band in standard deviations."""
    low, high = main_band(quantiles)
    return NormalDist().inv_cdf(quantiles[high]) - NormalDist().inv_cdf(quantiles[low])


def common_variance(
    total_HQ: Floats, mean_H: Floats, variance_H: Floats, quantiles: Sequence[float]
) -> Doubles:
    """Relative variance [H] that all series share.

    `total_HQ` is the forecast of the total; `mean_H` and `variance_H` are the sums of means and of
    variances over all series.

    >>> total = np.array([[80.0, 100.0, 120.0]])
    >>> common_variance(total, np.array([100.0]), np.array([100.0]), (0.1, 0.5, 0.9)).round(3)
    array([0.014])
    """
    low, high = main_band(quantiles)
    width = _width(quantiles)
    if width <= 0:
        return np.zeros(len(total_HQ))
    middle = min(range(len(quantiles)), key=lambda q: abs(quantiles[q] - 0.5))
    spread_H = (total_HQ[:, high] - total_HQ[:, low]) / width
    relative_H = (spread_H / np.maximum(total_HQ[:, middle], _TINY)) ** 2
    shared_H: Doubles = relative_H - variance_H / np.maximum(mean_H, _TINY) ** 2
    known_H = (total_HQ[:, middle] > 0) & (mean_H > 0)
    return np.where(known_H, np.maximum(shared_H, 0.0), 0.0)


def quantiles_of_sum(
    mean_H: Floats, variance_H: Floats, common_H: Floats, quantiles: Sequence[float]
) -> Doubles:
    """Quantiles [H, Q] of the demand of a set, rising, never negative.

    `mean_H` and `variance_H` are the sums over the set, `common_H` is `common_variance`.

    >>> given = np.array([100.0]), np.array([200.0]), np.array([0.01])
    >>> of_set = quantiles_of_sum(*given, (0.1, 0.9))
    >>> of_set.round().tolist()
    [[79.0, 123.0]]
    """
    mean_H1 = np.maximum(np.asarray(mean_H, np.float64), 0.0)[:, None]
    total_H1 = (np.asarray(variance_H, np.float64) + common_H * mean_H1[:, 0] ** 2)[:, None]
    shape_H1 = np.maximum(mean_H1**2 / np.maximum(total_H1, _TINY), _LEAST_SHAPE)
    score_Q = np.array([NormalDist().inv_cdf(level) for level in quantiles])
    root_HQ = 1 - 1 / (9 * shape_H1) + score_Q / (3 * np.sqrt(shape_H1))
    made_HQ: Doubles = mean_H1 * np.maximum(root_HQ, 0.0) ** 3
    return made_HQ
