"""Online calibration: published quantiles hold what they promise, whatever the model thinks.

Adaptive conformal inference (Gibbs & Candès 2021, arXiv:2106.00170) on the levels of a quantile
forecast. Each group of series, horizon step and quantile q has one float, the **level** at which
the model's own quantile function is read when q is published. When a bucket has closed, the level
of each step that was forecast for it moves by ``rate · (q − share of demand at or below)``. So the
long-run share is q even where the model is wrong in the same way for ever, or comes to be.

Shares are those of the probability integral transform of counts (`model/evaluation/pit.py`). A
model that is right about zeros is left alone; zeros stay zeros, because a level only picks among
the model's own quantiles.

A group is a volume class of series, and within it the busy and the quiet buckets: a shop that is
closed at night would otherwise teach the levels nothing but nights. Both are told from the forecast
alone, before the demand is known.

Axes: S = series, H = horizon steps, Q = quantiles, G = groups, N = labels, X = any.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.contract import QuantileForecast
from model.evaluation.pit import LEAST_LEVEL, covered, reading_weights

Floats = NDArray[np.floating]
Float32s = NDArray[np.float32]
Ints = NDArray[np.integer]
Mask = NDArray[np.bool_]

#: Volume classes: mean units a bucket that are forecast; what lies at or above the last is high.
VOLUME_BOUNDS = (0.1, 1.0)
#: A bucket is busy from this share of the mean bucket of its horizon on.
BUSY_SHARE = 0.5
#: The rate starts at ``_EARLY_RATE / √_EARLY``, whatever it will be in the end.
_EARLY_RATE, _EARLY = 0.6, 36
#: What a new model takes over of the levels of the one before: at most so far from the nominal
#: ones, and as if from so many closes.
_INHERITED, _INHERITED_CLOSES = 0.1, 48
#: A close counts at most as many times as the mean close.
_MOST_WEIGHT = 3.0
#: Levels all within this of the nominal ones are published as those: not worth the work.
_DEAD_ZONE = 0.005
_UNMOVED = 1e-6
#: Series corrected at once: their quantiles fit the processor's cache.
_BLOCK = 4_096


def volume_class(forecast: QuantileForecast) -> NDArray[np.uint8]:
    """Volume class [S] of each series by the forecast mean units a bucket: 0 = low … 2 = high.

    >>> sums = np.array([[[1.0]], [[0.5]], [[0.01]]], np.float32)
    >>> volume_class(QuantileForecast(0, 60_000, (0.5,), sums, sums, "m")).tolist()
    [2, 1, 0]
    """
    horizon = forecast.units_SHQ.shape[1]
    mean_S = forecast.cumulative_SHQ[:, -1].mean(axis=1) / horizon
    volume_S: NDArray[np.uint8] = np.digitize(mean_S, VOLUME_BOUNDS).astype(np.uint8)
    return volume_S


def busy(units_SHQ: Float32s) -> Mask:
    """Which buckets [S, H] of a forecast are busy ones, by their highest quantile.

    Not those whose highest quantile rounds to nothing, nor those below half of the series' mean.

    >>> busy(np.array([[[0.3], [8.0], [1.0]], [[0.1], [0.0], [0.0]]])).tolist()
    [[False, True, False], [False, False, False]]
    """
    high_SH = units_SHQ[:, :, -1]
    least_S1 = np.maximum(0.5, BUSY_SHARE * high_SH.mean(axis=1, keepdims=True))
    mask: Mask = high_SH >= least_S1
    return mask


def read_at(
    values_SHQ: Float32s, group_SH: Ints, levels_GHQ: Floats, quantiles: Sequence[float]
) -> Float32s:
    """The model's quantiles read at the levels of each series' group: rising with q, not negative.

    Rows at nominal levels are left as they are, bit for bit.

    >>> read_at(np.array([[[0.0, 2.0]]]), np.array([[0]]), np.array([[[0.5, 0.6]]]), (0.4, 0.6))
    array([[[1., 2.]]], dtype=float32)
    """
    out_SHQ = np.array(values_SHQ, np.float32)
    _, horizon, n = levels_GHQ.shape
    levels_XQ = levels_GHQ.reshape(-1, n)
    nominal_Q = np.asarray(quantiles, np.float32)
    moved_X: Mask = (np.abs(levels_XQ - nominal_Q) > _UNMOVED).any(axis=1)
    if not moved_X.any():
        return out_SHQ
    # in terms of the gaps between quantiles, of which none is negative, coefficients rise with the
    # level: what comes out rises whatever is rounded
    share_XQK = reading_weights(levels_XQ, quantiles)[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]
    share_XKQ = np.ascontiguousarray(share_XQK.transpose(0, 2, 1))
    place_SH = (group_SH * horizon + np.arange(horizon)).astype(np.uint16)
    # made once: fresh memory costs more than what is done in it
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
    """Replace the rows whose place has moved; those of a place are one product."""
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
    """Levels of every group, horizon step and quantile, moved by what came.

    `levels_GHQ` starts at the nominal quantiles; `closes_GH` counts the closed buckets each has
    learned from. The rate falls as closes add up, ``0.6 / √(36 + closes)``, down to `rate`
    (decaying steps settle where demand does not change: Angelopoulos, Barber & Bates 2024,
    arXiv:2402.01139). A label of step h comes h buckets late, and a loop with a delay swings when
    rate times delay passes π/2; so the rate of step h is ``rate / (1 + rate · h)``. A close with
    more labels than the mean close of its group (`labels_GH` counts them) moves its levels further,
    by up to three times: what comes to hold is the share of all labels.

    >>> calibrator = Calibrator(groups=1, horizon=1, quantiles=(0.1, 0.5, 0.9), rate=0.01)
    >>> none, sent = np.zeros(8, int), calibrator.published_GHQ
    >>> calibrator.learn(np.zeros(8), np.zeros(8), group_N=none, step_N=none, sent_NQ=sent[none, 0])
    >>> calibrator.levels_GHQ[0, 0].round(3).tolist()
    [0.01, 0.45, 0.89]
    """

    def __init__(
        self, *, groups: int, horizon: int, quantiles: Sequence[float], rate: float
    ) -> None:
        self.quantiles = tuple(quantiles)
        self.rate = rate
        self.levels_GHQ: Float32s = np.tile(np.asarray(quantiles, np.float32), (groups, horizon, 1))
        self.closes_GH = np.zeros((groups, horizon), np.int64)
        self.labels_GH = np.zeros((groups, horizon), np.int64)

    def learn(
        self, low_N: Floats, high_N: Floats, *, group_N: Ints, step_N: Ints, sent_NQ: Floats
    ) -> None:
        """Move the levels by the labels of one closed bucket.

        `low_N` and `high_N` are `pit_bounds` under the *model's* quantiles, `step_N` how many
        buckets before the forecast was made (0: right before), `sent_NQ` the levels that were
        published. Labels of buckets that were out of stock must be left out by the caller.
        """
        groups, horizon, n = self.levels_GHQ.shape
        place_N = np.asarray(group_N, np.int64) * horizon + step_N
        count_X = np.bincount(place_N, minlength=groups * horizon)
        seen_X = np.flatnonzero(count_X)
        share_NQ = covered(low_N, high_N, sent_NQ)
        sums_XQ = np.stack(
            [np.bincount(place_N, share_NQ[:, q], minlength=groups * horizon) for q in range(n)],
            axis=1,
        )
        levels_XQ = self.levels_GHQ.reshape(-1, n)
        closes_X, labels_X = self.closes_GH.reshape(-1), self.labels_GH.reshape(-1)
        closes_X[seen_X] += 1
        labels_X[seen_X] += count_X[seen_X]
        rate_X = np.maximum(self.rate, _EARLY_RATE / np.sqrt(_EARLY + closes_X[seen_X]))
        rate_X = rate_X / (1 + rate_X * (seen_X % horizon))
        mean_X = labels_X[seen_X] / closes_X[seen_X]
        rate_X = rate_X * np.minimum(count_X[seen_X] / mean_X, _MOST_WEIGHT)
        error_XQ = np.asarray(self.quantiles) - sums_XQ[seen_X] / count_X[seen_X, None]
        moved_XQ = levels_XQ[seen_X] + rate_X[:, None] * error_XQ
        levels_XQ[seen_X] = np.clip(moved_XQ, LEAST_LEVEL, 1 - LEAST_LEVEL)

    def inherit(self) -> None:
        """Begin a new model of the same kind with the levels of the one before.

        Only what is usual is handed on: levels that a drift has driven far off say that the one
        before had become wrong. And they may move faster again.

        >>> calibrator = Calibrator(groups=1, horizon=1, quantiles=(0.5,), rate=0.01)
        >>> calibrator.levels_GHQ += 0.3
        >>> calibrator.inherit()
        >>> calibrator.levels_GHQ.ravel().round(3).tolist()
        [0.6]
        """
        nominal_Q = np.asarray(self.quantiles, np.float32)
        moved_GHQ = np.clip(self.levels_GHQ - nominal_Q, -_INHERITED, _INHERITED)
        self.levels_GHQ[:] = np.clip(nominal_Q + moved_GHQ, LEAST_LEVEL, 1 - LEAST_LEVEL)
        counted_GH = np.minimum(self.closes_GH, _INHERITED_CLOSES)
        self.labels_GH[:] = self.labels_GH * counted_GH // np.maximum(self.closes_GH, 1)
        self.closes_GH[:] = counted_GH

    @property
    def published_GHQ(self) -> Float32s:
        """The levels in force: rising with the quantile; nominal where hardly any has moved."""
        nominal_Q = np.asarray(self.quantiles, np.float32)
        near_GH1 = (np.abs(self.levels_GHQ - nominal_Q) < _DEAD_ZONE).all(axis=2, keepdims=True)
        rising: Float32s = np.maximum.accumulate(self.levels_GHQ, axis=2)
        return np.where(near_GH1, nominal_Q, rising)

    def learned(self, least: int) -> bool:
        """Whether every step has learned from at least `least` closed buckets."""
        return bool((self.closes_GH.max(axis=0) >= least).all())
