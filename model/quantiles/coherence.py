"""Coherence of the two blocks of a forecast: quantiles of buckets, and of the sums over them.

At one level, the quantile of a sum of demands that are never negative is at least that of any of
its parts and of any shorter sum; the sum of one bucket is that bucket.

Axes: … = any leading axes, H = horizon, Q = quantiles.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def make_coherent(units_XHQ: Floats, sums_XHQ: Floats) -> None:
    """Raise sums [..., H, Q], in place, to those of fewer buckets and to every bucket they contain.

    >>> units, sums = np.array([[2.0], [5.0], [1.0]]), np.array([[3.0], [4.0], [4.5]])
    >>> make_coherent(units, sums)
    >>> sums.ravel().tolist()
    [2.0, 5.0, 5.0]
    """
    sums_XHQ[..., 0, :] = units_XHQ[..., 0, :]
    np.maximum(sums_XHQ, units_XHQ, out=sums_XHQ)
    np.maximum.accumulate(sums_XHQ, axis=-2, out=sums_XHQ)
