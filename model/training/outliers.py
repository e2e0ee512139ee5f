"""Outliers in training data: demand is winsorised by a robust scale, series by series.

Serving never caps demand. Only the history a network learns from is capped, so that a typing error
of 80,000 units does not dominate the training of a series.

Axes: T = buckets, S = series.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_MIN_SALES: Final = 20
_SPREADS: Final = 12.0


def outlier_caps(units_TS: Floats, *, spreads: float = _SPREADS) -> Floats:
    """Largest plausible demand [S] of each series; infinite with too few sales.

    On the log scale of the buckets with demand: median + `spreads` · 1.4826 · MAD (median absolute
    deviation), at least half a log unit a spread, so that a level shift by a factor of 100 is kept.

    >>> units = np.array([[2.0]] * 30 + [[80_000.0]], np.float32)
    >>> outlier_caps(units).round().tolist()
    [1209.0]
    """
    caps_S = np.full(units_TS.shape[1], np.inf, np.float32)
    for slot in range(units_TS.shape[1]):
        sold_N = units_TS[:, slot][units_TS[:, slot] > 0]
        if sold_N.size < _MIN_SALES:
            continue
        log_N = np.log1p(sold_N.astype(np.float64))
        middle = float(np.median(log_N))
        spread = 1.4826 * float(np.median(np.abs(log_N - middle)))
        caps_S[slot] = np.expm1(middle + spreads * max(spread, 0.5))
    return caps_S


def winsorise(units_TS: Floats, *, spreads: float = _SPREADS) -> tuple[Floats, int]:
    """Demand with outliers cut to their cap, and the number of buckets cut.

    >>> calm = np.full((40, 1), 3.0, np.float32)
    >>> winsorise(calm)[1]
    0
    """
    caps_S = outlier_caps(units_TS, spreads=spreads)
    above = units_TS > caps_S
    return np.minimum(units_TS, caps_S), int(above.sum())
