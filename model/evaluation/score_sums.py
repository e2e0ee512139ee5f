"""Sums of live scores, and the metrics derived from them.

A closed bucket adds one row of sums to each volume class and horizon step; rows are summed over
buckets, partitions and days, and metrics are computed from the sums at the end. So every metric is
pooled, never a mean of means.

Axes: N = labels, V = volume classes, H = horizon steps, Q = quantiles, K = sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.evaluation.metrics import pinball_loss
from model.evaluation.pit import covered
from model.quantiles.bands import main_band, main_levels

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Sums = NDArray[np.float64]

#: Volume classes of scores: those of `calibration.volume_class`, and the roll-ups.
VOLUMES: Final = ("low", "medium", "high", "rollup")
ROLLUP: Final = VOLUMES.index("rollup")

#: Sums of each class and step. All but `labels` are weighted, so that a sample of the series
#: represents all of them.
SUMS: Final = (
    "labels",  # forecasts scored
    "weight",  # series they represent
    "actual",  # units sold
    "loss",  # pinball loss, mean over q, no factor 2
    "over",  # units by which the median was too high
    "under",  # units by which the median was too low
    "covered",  # share of the demand within the main band, by the PIT of counts
    "inside",  # demand within the main band, both ends included
    "outer",  # share of the demand within the outermost band, by the PIT of counts
    "pit",  # middle of the PIT under the model's own quantiles
    "naive_actual",  # units sold in buckets with a seasonal naive forecast
    "naive_loss",  # pinball loss of the seasonal naive there
    "beside_loss",  # loss of the model there
    "sum_weight",  # series whose sum up to this bucket is known
    "sum_covered",  # share of those sums within the main band, by the PIT of counts
)
N_SUMS: Final = len(SUMS)


def score_labels(
    *,
    actual_N: Floats,
    published_NQ: Floats,
    low_N: Floats,
    high_N: Floats,
    levels_NQ: Floats,
    quantiles: Sequence[float],
    volume_N: Ints,
    step_N: Ints,
    weight_N: Floats,
    naive_N: Floats,
    horizon: int,
) -> Sums:
    """Sums [V, H, K] of the labels of one closed bucket.

    `low_N` and `high_N` are `pit.pit_bounds` under the model's quantiles, `levels_NQ` the published
    levels. `naive_N` is the seasonal naive's point forecast, NaN if it had none. The pinball loss
    of a point is that of the point as every quantile. Losses are those of the levels of the main
    band (`model.quantiles.bands`). The sums of cumulative demand stay 0, see `add_sums`.

    >>> one = np.ones(1)
    >>> sums = score_labels(
    ...     actual_N=4 * one, published_NQ=np.array([[2.0, 5.0, 6.0]]), low_N=0.4 * one,
    ...     high_N=0.5 * one, levels_NQ=np.array([[0.1, 0.5, 0.9]]), quantiles=(0.1, 0.5, 0.9),
    ...     volume_N=np.zeros(1, int), step_N=np.zeros(1, int), weight_N=2 * one, naive_N=4 * one,
    ...     horizon=1)
    >>> dict(zip(SUMS, sums[0, 0].round(3).tolist(), strict=True))["loss"]
    0.6
    """
    columns = main_levels(quantiles)
    low, high = main_band(quantiles)
    share_N4 = covered(low_N, high_N, levels_NQ[:, [0, low, high, -1]])
    published_NQ, quantiles = published_NQ[:, columns], tuple(quantiles)[columns]
    middle = int(np.argmin(np.abs(np.asarray(quantiles) - 0.5)))
    loss_N = pinball_loss(actual_N, published_NQ, quantiles).mean(axis=1)
    error_N = published_NQ[:, middle] - actual_N
    inside_N = (actual_N >= published_NQ[:, 0]) & (actual_N <= published_NQ[:, -1])
    known_N = np.isfinite(naive_N)
    naive_N1 = np.where(known_N, naive_N, 0.0)[:, None]
    naive_loss_N = pinball_loss(actual_N, naive_N1, quantiles).mean(axis=1)
    terms = (
        np.ones_like(loss_N) / np.where(weight_N > 0, weight_N, 1.0),
        np.ones_like(loss_N),
        np.abs(actual_N),
        loss_N,
        np.maximum(error_N, 0),
        np.maximum(-error_N, 0),
        share_N4[:, 2] - share_N4[:, 1],
        inside_N,
        share_N4[:, 3] - share_N4[:, 0],
        (low_N + high_N) / 2,
        np.abs(actual_N) * known_N,
        naive_loss_N * known_N,
        loss_N * known_N,
    )
    sums_VHK = np.zeros((len(VOLUMES), horizon, N_SUMS))
    for column, term in enumerate(terms):
        sums_VHK[..., column] = _placed(term * weight_N, volume_N, step_N, horizon)
    return sums_VHK


def add_sums(
    sums_VHK: Sums,
    *,
    low_N: Floats,
    high_N: Floats,
    levels_NQ: Floats,
    quantiles: Sequence[float],
    volume_N: Ints,
    step_N: Ints,
    weight_N: Floats,
) -> None:
    """Add the scores of cumulative demand to those of a bucket, in place; as in `score_labels`."""
    share_N2 = covered(low_N, high_N, levels_NQ[:, main_band(quantiles)])
    horizon = sums_VHK.shape[1]
    inside_N = (share_N2[:, 1] - share_N2[:, 0]) * weight_N
    sums_VHK[..., SUMS.index("sum_weight")] += _placed(weight_N, volume_N, step_N, horizon)
    sums_VHK[..., SUMS.index("sum_covered")] += _placed(inside_N, volume_N, step_N, horizon)


def _placed(value_N: Floats, volume_N: Ints, step_N: Ints, horizon: int) -> Sums:
    """Values [V, H] summed by volume class and step."""
    place_N = np.asarray(volume_N, np.int64) * horizon + step_N
    placed_X = np.bincount(place_N, value_N, minlength=len(VOLUMES) * horizon)
    return placed_X.reshape(len(VOLUMES), horizon).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Score:
    """Metrics of pooled sums; None if the denominator is zero.

    `wql` and `naive_wql` have the factor 2 (`metrics.wql`); `wql_beside_naive` covers the same
    buckets as `naive_wql`. `coverage` is that of the main band by the PIT of counts: a perfect
    forecast of any demand has the nominal one; `outer_coverage` is that of the outermost band,
    `cumulative_coverage` that of the main band of cumulative demand. `interval_coverage` includes
    the ends, and with rare demand is near 1 for a perfect forecast.
    """

    labels: int
    wql: float | None
    naive_wql: float | None
    wql_beside_naive: float | None
    bias: float | None
    coverage: float | None
    interval_coverage: float | None
    outer_coverage: float | None
    cumulative_coverage: float | None


def score_of(sums_K: Sums) -> Score:
    """Metrics of sums [K], or of any array of them [..., K], pooled.

    >>> score_of(np.array([4, 4, 10, 1, 2, 1, 3.2, 4, 3.9, 2, 0, 0, 0, 4, 3]))
    Score(labels=4, wql=0.2, ..., interval_coverage=1.0, outer_coverage=0.975, ...=0.75)
    """
    pooled_K = np.asarray(sums_K).reshape(-1, N_SUMS).sum(axis=0)
    named = dict(zip(SUMS, pooled_K.tolist(), strict=True))

    def share(value: float, of: float) -> float | None:
        return value / of if of > 0 else None

    return Score(
        labels=round(named["labels"]),
        wql=share(2 * named["loss"], named["actual"]),
        naive_wql=share(2 * named["naive_loss"], named["naive_actual"]),
        wql_beside_naive=share(2 * named["beside_loss"], named["naive_actual"]),
        bias=share(named["over"] - named["under"], named["actual"]),
        coverage=share(named["covered"], named["weight"]),
        interval_coverage=share(named["inside"], named["weight"]),
        outer_coverage=share(named["outer"], named["weight"]),
        cumulative_coverage=share(named["sum_covered"], named["sum_weight"]),
    )
