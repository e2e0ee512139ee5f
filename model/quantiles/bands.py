"""The band of a forecast that is shown and scored: 80 %, whatever further levels there are."""

from collections.abc import Sequence
from typing import Final

import numpy as np

_LOW: Final = 0.1
_HIGH: Final = 0.9


def main_band(quantiles: Sequence[float]) -> tuple[int, int]:
    """Columns of the levels nearest to 0.1 and 0.9.

    >>> main_band((0.01, 0.1, 0.5, 0.9, 0.99)), main_band((0.25, 0.75)), main_band((0.5,))
    ((1, 3), (0, 1), (0, 0))
    """
    level_Q = np.asarray(quantiles)
    return int(np.argmin(np.abs(level_Q - _LOW))), int(np.argmin(np.abs(level_Q - _HIGH)))


def main_levels(quantiles: Sequence[float]) -> slice:
    """Columns from one end of the main band to the other: those that WQL and SQL average over.

    So accuracy does not change with levels that are published further out.

    >>> (0.01, 0.1, 0.5, 0.9, 0.99)[main_levels((0.01, 0.1, 0.5, 0.9, 0.99))]
    (0.1, 0.5, 0.9)
    """
    low, high = main_band(quantiles)
    return slice(low, high + 1)
