"""The mean of a quantile forecast.

Axes: … = any leading axes, Q = quantiles.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Float32s = NDArray[np.float32]


def mean_weights(quantiles: Sequence[float]) -> Float32s:
    """Weights [Q] of quantiles in the mean of their quantile function.

    It is linear between the levels. Beyond the outermost ones it has the mean excess of an
    exponential through the two nearest. A single quantile is its own mean.

    >>> mean_weights((0.1, 0.5, 0.9)).round(3).tolist()
    [0.362, 0.276, 0.362]
    """
    q_Q = np.asarray(quantiles, np.float64)
    if q_Q.size == 1:
        return np.ones(1, np.float32)
    weight_Q = np.zeros(q_Q.size)
    weight_Q[1:] += np.diff(q_Q) / 2
    weight_Q[:-1] += np.diff(q_Q) / 2
    upper = (1 - q_Q[-1]) / np.log((1 - q_Q[-2]) / (1 - q_Q[-1]))
    lower = q_Q[0] / np.log(q_Q[1] / q_Q[0])
    weight_Q[-2:] += -upper, 1 - q_Q[-1] + upper
    weight_Q[:2] += q_Q[0] + lower, -lower
    return weight_Q.astype(np.float32)


def mean_of_quantiles(values_XQ: Float32s, quantiles: Sequence[float]) -> Float32s:
    """Mean [...] of quantiles [..., Q] of demand, for forecasters without one of their own.

    >>> mean_of_quantiles(np.array([[0.0, 2.0, 4.0]], np.float32), (0.1, 0.5, 0.9)).tolist()
    [2.0]
    """
    mean_X: Float32s = np.maximum(values_XQ @ mean_weights(quantiles), 0).astype(np.float32)
    return mean_X
