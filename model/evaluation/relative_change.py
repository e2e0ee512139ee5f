"""The relative change between two models' losses, and how far noise alone would move it.

Losses of one origin share its shocks (weather, a campaign), those of one series its habits. The
variance of the change therefore counts both: clusters of origins plus clusters of series, less
single cells (Cameron, Gelbach & Miller 2011, two-way clusters; for a ratio by the delta method).
Student's t on the origins gives the interval; it stays valid if their variances differ (Ibragimov &
Müller 2010). docs/experiments/promotion.md compares it with bootstraps. Pure, without draws.

Axes: O = origins, S = series.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RelativeChange:
    """`value` is ``after / before − 1``, `error` its standard error, with `freedom` degrees.

    Without a degree of freedom every interval is infinite.
    """

    value: float
    error: float
    freedom: int

    def interval(self, tail: float) -> tuple[float, float]:
        """Interval that leaves out the probability `tail` on each side."""
        if not self.error:
            return self.value, self.value
        if self.freedom < 1 or not math.isfinite(self.error):
            return -math.inf, math.inf
        reach = student_t(tail, self.freedom) * self.error
        return self.value - reach, self.value + reach


def relative_change(before_OS: Doubles, after_OS: Doubles) -> RelativeChange:
    """Change of the summed loss from one model to another on the same origins and series.

    >>> before = np.array([[4.0, 2.0], [6.0, 3.0], [5.0, 1.0]])
    >>> relative_change(before, before / 2)
    RelativeChange(value=-0.5, error=0.0, freedom=2)
    >>> shocks = np.array([[0.1], [-0.1], [0.0]])
    >>> change = relative_change(before, before * (1 + shocks))
    >>> round(change.value, 3), round(change.error, 3)
    (-0.014, 0.060)
    """
    total = float(before_OS.sum())
    ratio = _ratio(float(after_OS.sum()), total)
    freedom = len(before_OS) - 1
    if not math.isfinite(ratio) or not total:
        return RelativeChange(ratio - 1, 0.0, freedom)
    share_OS = (after_OS - ratio * before_OS) / total
    origins = _clustered(share_OS.sum(axis=1))
    series = _clustered(share_OS.sum(axis=0))
    cells = float((share_OS**2).sum())
    variance = max(origins, series, origins + series - cells)
    return RelativeChange(ratio - 1, math.sqrt(variance), freedom)


def student_t(tail: float, freedom: int) -> float:
    """Value that Student's t exceeds with probability `tail` (0 < tail < 0.5).

    Bisection on the closed form for whole degrees (Abramowitz & Stegun 1972, 26.7.3–4).

    >>> round(student_t(0.025, 6), 3), round(student_t(0.005, 2), 3), round(student_t(0.05, 1), 3)
    (2.447, 9.925, 6.314)
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if 1 - _within(middle, freedom) > 2 * tail:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """Probability of ``|t| ≤ √freedom · tan(angle)``."""
    cosine = math.cos(angle)
    odd = freedom % 2
    term, total = cosine if odd else 1.0, 0.0
    for power in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine**2 * (power - 1) / power
    series = total * math.sin(angle)
    return 2 / math.pi * (angle + series) if odd else series


def _clustered(sums: Doubles) -> float:
    """Variance of a sum by its clusters' parts, which add up to zero; 0 for one cluster."""
    size = len(sums)
    return size / (size - 1) * float((sums**2).sum()) if size > 1 else 0.0


def _ratio(after: float, before: float) -> float:
    """``after / before``; 1 if both are equal, infinite if only `before` is 0."""
    if after == before:
        return 1.0
    return after / before if before else math.inf
