"""Quantiles from a foundation model's own: at other levels, and of the sums along the horizon.

A foundation model forecasts each bucket by itself. Between its levels, and beyond them, its
quantile function is continued piecewise linearly in the normal score of the level: straight lines
are normal tails. Sums need the dependence between buckets as well. It is that of the forecast
errors of an AR(1) process, joined to the bucket forecasts by a normal copula: the persistence of
each series is estimated from its history.

Axes: S = series, T = buckets, H = horizon, L = levels of the model, Q = quantiles, P = paths.
"""

from statistics import NormalDist
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.quasirandom import SobolEngine

from model.quantiles.coherence import make_coherent

Floats = NDArray[np.float32]

#: Paths drawn for each series; the same normal scores serve all series. A power of two.
PATHS: Final = 1024
#: Persistence of a series without history, and the number of buckets whose estimate counts half.
_USUAL_PERSISTENCE: Final = 0.3
_SHRINKAGE: Final = 10
_MOST_PERSISTENT: Final = 0.99


def normal_scores(levels: tuple[float, ...]) -> Floats:
    """Normal scores of rising levels.

    >>> normal_scores((0.1, 0.5)).round(2).tolist()
    [-1.28, 0.0]
    """
    normal = NormalDist()
    return np.array([normal.inv_cdf(level) for level in levels], np.float32)


def at_scores(values_SL: Floats, knots_L: Floats, scores_SX: Floats) -> Floats:
    """Values [S, X] of quantile functions at normal scores; never negative.

    `values_SL` rise along the knots, the normal scores of their levels. Beyond the outermost knots
    the lines through the last two go on.

    >>> knots = normal_scores((0.5, 0.9))
    >>> at_scores(np.array([[1, 3]], np.float32), knots, 2 * knots[None])
    array([[1., 5.]], dtype=float32)
    """
    if len(knots_L) == 1:
        return np.maximum(np.broadcast_to(values_SL, scores_SX.shape), 0)
    left_SX = np.clip(np.searchsorted(knots_L, scores_SX) - 1, 0, len(knots_L) - 2)
    slopes_SL = np.diff(values_SL, axis=1) / np.diff(knots_L)
    start_SX = np.take_along_axis(values_SL, left_SX, axis=1)
    slope_SX = np.take_along_axis(slopes_SL, left_SX, axis=1)
    return np.maximum(start_SX + slope_SX * (scores_SX - knots_L[left_SX]), 0)


def persistence(history_TS: Floats, *, season: int) -> Floats:
    """How much of a deviation lasts until the next bucket [S], in 0 … 0.99.

    Lag-1 autocorrelation around the mean of each phase of the season; of all buckets with less than
    two seasons, or a season of one bucket. Corrected for its bias (Kendall 1954), and in short
    histories close to a usual value. NaN is unknown.

    >>> persistence(np.array([[1.0], [5]] * 50, np.float32), season=1).tolist()
    [0.0]
    """
    deviation_TS = history_TS.astype(np.float64)
    phases = season if len(deviation_TS) >= 2 * season else 1
    for phase in range(phases):
        part_TS = deviation_TS[phase::phases]
        known_S = np.maximum(np.isfinite(part_TS).sum(axis=0), 1)
        part_TS -= np.nansum(part_TS, axis=0) / known_S
    before_TS, after_TS = deviation_TS[:-1], deviation_TS[1:]
    both_TS = np.isfinite(before_TS) & np.isfinite(after_TS)
    before_TS, after_TS = np.where(both_TS, before_TS, 0), np.where(both_TS, after_TS, 0)
    power_S = np.sqrt((before_TS**2).sum(axis=0) * (after_TS**2).sum(axis=0))
    pairs_S = both_TS.sum(axis=0)
    lasting_S = (before_TS * after_TS).sum(axis=0) / np.maximum(power_S, 1e-12)
    lasting_S += (1 + 3 * lasting_S) / np.maximum(pairs_S, 4)
    weight_S = pairs_S / (pairs_S + _SHRINKAGE)
    mixed_S = weight_S * lasting_S + (1 - weight_S) * _USUAL_PERSISTENCE
    limited_S: Floats = np.clip(mixed_S, 0, _MOST_PERSISTENT).astype(np.float32)
    return limited_S


def sum_quantiles(
    own_SHL: Floats, units_SHQ: Floats, persistence_S: Floats, *,
    levels: tuple[float, ...], quantiles: tuple[float, ...], seed: int,
) -> Floats:  # fmt: skip
    """Quantiles [S, H, Q] of the running sums of non-negative demand, by `PATHS` drawn paths.

    `own_SHL` are the bucket forecasts at the model's own levels, rising; `units_SHQ` the same at
    `quantiles`. A path takes from each bucket the quantile of its normal score; scores follow the
    errors of an AR(1) process that starts at the origin, with the persistence of the series. Step 0
    equals the bucket forecast. A sum is at least each of its parts, so no quantile is below that of
    a bucket before it, nor below that of a shorter sum. The same seed gives the same sums.
    """
    series, horizon = own_SHL.shape[:2]
    knots_L = normal_scores(levels)
    scores_HP = _drawn_scores(horizon, seed)
    below_Q, share_Q = np.divmod(np.array(quantiles, np.float32) * (PATHS - 1), 1)
    below_Q = below_Q.astype(np.int64)
    rho_S1 = persistence_S[:, None]
    error_SP, variance_S1 = np.zeros((series, PATHS), np.float32), np.zeros((series, 1), np.float32)
    total_SP = np.zeros((series, PATHS), np.float32)
    sums_SHQ = np.empty_like(units_SHQ)
    for step in range(horizon):
        error_SP = rho_S1 * error_SP + scores_HP[step]
        variance_S1 = rho_S1**2 * variance_S1 + 1
        total_SP += at_scores(own_SHL[:, step], knots_L, error_SP / np.sqrt(variance_S1))
        sorted_SP = np.sort(total_SP, axis=1)
        sums_SHQ[:, step] = sorted_SP[:, below_Q] * (1 - share_Q)
        sums_SHQ[:, step] += sorted_SP[:, below_Q + 1] * share_Q
    make_coherent(units_SHQ, sums_SHQ)
    np.maximum.accumulate(sums_SHQ, axis=2, out=sums_SHQ)
    return sums_SHQ


def _drawn_scores(horizon: int, seed: int) -> Floats:
    """Independent normal scores [H, P], of a scrambled Sobol sequence.

    Its shares of a sum have a third of the error of as many independent draws.
    """
    engine = SobolEngine(horizon, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    uniform_PH: Tensor = engine.draw(PATHS, dtype=torch.float64)
    scores_HP: Floats = torch.special.ndtri(uniform_PH.clamp(1e-6, 1 - 1e-6)).T.float().numpy()
    return scores_HP
