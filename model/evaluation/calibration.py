"""Online calibration: published quantiles keep their nominal coverage even if the model is wrong.

Adaptive conformal inference (Gibbs & Candès 2021, arXiv:2106.00170) on the levels of a quantile
forecast. Each group of series, horizon step and quantile q has one float, the **level** at which
the model's own quantile function is evaluated to publish q. When a bucket closes, the level of each
step forecast for it moves by ``rate · (q − share of demand at or below)``. So the long-run share is
q even under a constant or a changing bias of the model.

Shares are those of the probability integral transform of counts (`model/evaluation/pit.py`). A
model that is right about zeros stays uncorrected; zeros stay zeros, because a level only selects
among the model's own quantiles.

A group is a volume class of series, and within it the busy and the quiet buckets: otherwise the
nights of a closed shop would dominate the levels. Both are derived from the forecast alone, before
the demand is known.

Axes: S = series, H = horizon steps, Q = quantiles, G = groups, N = labels, X = any.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.contract import QuantileForecast
from model.evaluation.pit import MIN_LEVEL, covered, reading_weights
from model.quantiles.bands import main_band

Floats = NDArray[np.floating]
Float32s = NDArray[np.float32]
Ints = NDArray[np.integer]
Mask = NDArray[np.bool_]

#: Volume classes by forecast mean units per bucket; at or above the last bound is high.
VOLUME_BOUNDS = (0.1, 1.0)
#: A bucket is busy from this share of the mean bucket of its horizon.
BUSY_SHARE = 0.5
#: The rate starts at ``_EARLY_RATE / √_EARLY``, whatever its final value.
_EARLY_RATE, _EARLY = 0.2, 36
#: Rates of cumulative demand relative to those of buckets. Its labels come late and overlap, so
#: that faster levels only follow the time of day.
SUMS_PACE = 1 / 3
#: Levels a new model inherits from the previous one: maximum distance from nominal, and the
#: number of closes they count for.
_INHERITED, _INHERITED_CLOSES = 0.1, 48
#: Maximum weight of a close relative to the mean close.
_MAX_WEIGHT = 3.0
#: Levels this close to the nominal ones are published as nominal: not worth the computation.
_DEAD_ZONE = 0.005
_UNMOVED = 1e-6
#: Series corrected at once: their quantiles fit the CPU cache.
_BLOCK = 4_096


def volume_class(forecast: QuantileForecast) -> NDArray[np.uint8]:
    """Volume class [S] of each series by the forecast mean units per bucket: 0 = low … 2 = high.

    >>> mean_SH = np.array([[1.0], [0.5], [0.01]], np.float32)
    >>> units_SHQ = mean_SH[..., None]
    >>> made = QuantileForecast(0, 60_000, (0.5,), units_SHQ, units_SHQ, mean_SH, "m")
    >>> volume_class(made).tolist()
    [2, 1, 0]
    """
    mean_S = forecast.mean_SH.mean(axis=1)
    volume_S: NDArray[np.uint8] = np.digitize(mean_S, VOLUME_BOUNDS).astype(np.uint8)
    return volume_S


def busy(units_SHQ: Float32s, quantiles: Sequence[float]) -> Mask:
    """True for busy buckets [S, H] of a forecast, by the upper end of the main band.

    Not busy: an upper end that rounds to zero, or below half of the series' mean.

    >>> busy(np.array([[[0.3], [8.0], [1.0]], [[0.1], [0.0], [0.0]]]), (0.9,)).tolist()
    [[False, True, False], [False, False, False]]
    """
    high_SH = units_SHQ[:, :, main_band(quantiles)[1]]
    least_S1 = np.maximum(0.5, BUSY_SHARE * high_SH.mean(axis=1, keepdims=True))
    mask: Mask = high_SH >= least_S1
    return mask


def quantiles_at(
    values_SHQ: Float32s, group_SH: Ints, levels_GHQ: Floats, quantiles: Sequence[float]
) -> Float32s:
    """The model's quantiles at the levels of each series' group: rising with q, not negative.

    Rows at nominal levels are unchanged, bit for bit.

    >>> units = np.array([[[0.0, 2.0]]])
    >>> quantiles_at(units, np.array([[0]]), np.array([[[0.5, 0.6]]]), (0.4, 0.6))
    array([[[1., 2.]]], dtype=float32)
    """
    out_SHQ = np.array(values_SHQ, np.float32)
    _, horizon, n = levels_GHQ.shape
    levels_XQ = levels_GHQ.reshape(-1, n)
    nominal_Q = np.asarray(quantiles, np.float32)
    moved_X: Mask = (np.abs(levels_XQ - nominal_Q) > _UNMOVED).any(axis=1)
    if not moved_X.any():
        return out_SHQ
    # applied to the gaps between quantiles, none negative, coefficients rise with the level, so the
    # result rises despite rounding
    share_XQK = reading_weights(levels_XQ, quantiles)[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]
    share_XKQ = np.ascontiguousarray(share_XQK.transpose(0, 2, 1))
    place_SH = (group_SH * horizon + np.arange(horizon)).astype(np.uint16)
    # allocated once: fresh memory costs more than the computation
    work = np.empty((2, min(_BLOCK, len(out_SHQ)) * horizon, n), np.float32)
    for first in range(0, len(out_SHQ), _BLOCK):
        block = slice(first, first + _BLOCK)
        rows_RQ, place_R = out_SHQ[block].reshape(-1, n), place_SH[block].ravel()
        _read_rows(rows_RQ, place_R, moved_X, share_XKQ, work)
    return out_SHQ


def _read_rows(
    rows_RQ: Float32s,
    place_R: NDArray[np.uint16],
    moved_X: Mask,
    share_XKQ: Float32s,
    work: Float32s,
) -> None:
    """Replace the rows at changed places; the rows of a place are one product."""
    row_R = np.flatnonzero(moved_X[place_R])
    row_R = row_R[np.argsort(place_R[row_R], kind="stable")]
    end_X = np.cumsum(np.bincount(place_R[row_R], minlength=len(moved_X))).tolist()
    gap_RQ, read_RQ = work[0, : row_R.size], work[1, : row_R.size]
    np.take(rows_RQ, row_R, axis=0, out=read_RQ, mode="clip")
    gap_RQ[:, 0] = read_RQ[:, 0]
    np.subtract(read_RQ[:, 1:], read_RQ[:, :-1], out=gap_RQ[:, 1:])
    begin = 0
    for place in np.flatnonzero(moved_X).tolist():
        end = end_X[place]
        if end > begin:
            np.matmul(gap_RQ[begin:end], share_XKQ[place], out=read_RQ[begin:end])
        begin = end
    np.maximum(read_RQ, 0.0, out=read_RQ)
    if (read_RQ[:, 1:] < read_RQ[:, :-1]).any():
        np.maximum.accumulate(read_RQ, axis=1, out=read_RQ)
    rows_RQ[row_R] = read_RQ


class Calibrator:
    """Levels of every group, horizon step and quantile, updated by the actuals.

    `levels_GHQ` starts at the nominal quantiles; `closes_GH` counts the closed buckets each has
    learned from. The rate falls with the number of closes, ``0.2 / √(36 + closes)``, down to `rate`
    (decaying steps converge under stationary demand: Angelopoulos, Barber & Bates 2024,
    arXiv:2402.01139), both multiplied by `pace`. A label of step h arrives h buckets late, and a
    delayed loop oscillates if rate times delay exceeds π/2; so the rate of step h is
    ``rate / (1 + rate · h)``. A close with more labels than the mean close of its group
    (`labels_GH` counts them) moves its levels up to three times further, so that the coverage
    applies to all labels.

    >>> calibrator = Calibrator(groups=1, horizon=1, quantiles=(0.1, 0.5, 0.9), rate=0.01)
    >>> group, levels = np.zeros(8, int), calibrator.published_GHQ
    >>> places = {"group_N": group, "step_N": group}
    >>> calibrator.learn(np.zeros(8), np.zeros(8), **places, levels_NQ=levels[group, 0])
    >>> calibrator.levels_GHQ[0, 0].round(3).tolist()
    [0.07, 0.484, 0.897]
    """

    def __init__(
        self,
        *,
        groups: int,
        horizon: int,
        quantiles: Sequence[float],
        rate: float,
        pace: float = 1.0,
    ) -> None:
        self.pace = pace
        self.quantiles = tuple(quantiles)
        self.rate = rate
        self.levels_GHQ: Float32s = np.tile(np.asarray(quantiles, np.float32), (groups, horizon, 1))
        self.closes_GH = np.zeros((groups, horizon), np.int64)
        self.labels_GH = np.zeros((groups, horizon), np.int64)

    def learn(
        self, low_N: Floats, high_N: Floats, *, group_N: Ints, step_N: Ints, levels_NQ: Floats
    ) -> None:
        """Update the levels by the labels of one closed bucket.

        `low_N` and `high_N` are `pit_bounds` under the *model's* quantiles, `step_N` the number of
        buckets between forecast and label (0: the next bucket), `levels_NQ` the published levels.
        The caller must leave out labels of buckets that were out of stock.
        """
        groups, horizon, n = self.levels_GHQ.shape
        place_N = np.asarray(group_N, np.int64) * horizon + step_N
        count_X = np.bincount(place_N, minlength=groups * horizon)
        seen_X = np.flatnonzero(count_X)
        share_NQ = covered(low_N, high_N, levels_NQ)
        sums_XQ = np.stack(
            [np.bincount(place_N, share_NQ[:, q], minlength=groups * horizon) for q in range(n)],
            axis=1,
        )
        levels_XQ = self.levels_GHQ.reshape(-1, n)
        closes_X, labels_X = self.closes_GH.reshape(-1), self.labels_GH.reshape(-1)
        closes_X[seen_X] += 1
        labels_X[seen_X] += count_X[seen_X]
        early_X = _EARLY_RATE / np.sqrt(_EARLY + closes_X[seen_X])
        rate_X = self.pace * np.maximum(self.rate, early_X)
        rate_X = rate_X / (1 + rate_X * (seen_X % horizon))
        mean_X = labels_X[seen_X] / closes_X[seen_X]
        rate_X = rate_X * np.minimum(count_X[seen_X] / mean_X, _MAX_WEIGHT)
        error_XQ = np.asarray(self.quantiles) - sums_XQ[seen_X] / count_X[seen_X, None]
        moved_XQ = levels_XQ[seen_X] + rate_X[:, None] * error_XQ
        levels_XQ[seen_X] = np.clip(moved_XQ, MIN_LEVEL, 1 - MIN_LEVEL)

    def inherit(self) -> None:
        """Start a new model with the levels of the previous one of the same kind.

        Only usual corrections are inherited: levels far from nominal mean that drift had made the
        previous model wrong. The rate rises again as well.

        >>> calibrator = Calibrator(groups=1, horizon=1, quantiles=(0.5,), rate=0.01)
        >>> calibrator.levels_GHQ += 0.3
        >>> calibrator.inherit()
        >>> calibrator.levels_GHQ.ravel().round(3).tolist()
        [0.6]
        """
        nominal_Q = np.asarray(self.quantiles, np.float32)
        moved_GHQ = np.clip(self.levels_GHQ - nominal_Q, -_INHERITED, _INHERITED)
        self.levels_GHQ[:] = np.clip(nominal_Q + moved_GHQ, MIN_LEVEL, 1 - MIN_LEVEL)
        counted_GH = np.minimum(self.closes_GH, _INHERITED_CLOSES)
        self.labels_GH[:] = self.labels_GH * counted_GH // np.maximum(self.closes_GH, 1)
        self.closes_GH[:] = counted_GH

    @property
    def published_GHQ(self) -> Float32s:
        """Levels to publish at: rising with the quantile; nominal if all are close to nominal."""
        nominal_Q = np.asarray(self.quantiles, np.float32)
        near_GH1 = (np.abs(self.levels_GHQ - nominal_Q) < _DEAD_ZONE).all(axis=2, keepdims=True)
        rising: Float32s = np.maximum.accumulate(self.levels_GHQ, axis=2)
        return np.where(near_GH1, nominal_Q, rising)

    def warmed_up(self, min_closes: int) -> bool:
        """True if every step has learned from at least `min_closes` closed buckets."""
        return bool((self.closes_GH.max(axis=0) >= min_closes).all())
