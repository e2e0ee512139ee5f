"""Quantiles of demand that is counted in whole units.

A forecast is read as a continuous distribution whose draws are rounded to whole units
(`model/evaluation/pit.py`), so its quantiles are those of the distribution, rounded. For rare
demand that is the better forecast as well: 0.3 units is never what will be sold.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", bound=np.floating)


def in_units(values_SHQ: NDArray[Real], whole_S: NDArray[np.bool_]) -> NDArray[Real]:
    """Quantiles in whole units for the series [S] whose demand is whole; a copy.

    >>> in_units(np.array([[[0.4]], [[0.4]]]), np.array([True, False])).ravel().tolist()
    [0.0, 0.4]
    """
    rounded = values_SHQ.copy()
    rounded[whole_S] = round_to_units(values_SHQ[whole_S])
    return rounded


def round_to_units(values_X: NDArray[Real]) -> NDArray[Real]:
    """Round quantiles to whole units, halves up, in place; returns them.

    Their order is kept, in every direction.

    >>> round_to_units(np.array([0.0, 0.4, 0.5, 1.5])).tolist()
    [0.0, 0.0, 1.0, 2.0]
    """
    values_X += 0.5
    np.floor(values_X, out=values_X)
    return values_X
