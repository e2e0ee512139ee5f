"""Control over repeated looks: the same held-out origins must not decide again and again.

A trainer compares a new challenger every day, mostly on origins that have decided before. Of enough
equal challengers one wins by luck. So each origin brings a share of a fixed probability of error;
a comparison spends half of what its origins have left. All comparisons on one set of origins
together then promote an equal network with a probability of at most `ERROR`, whatever their number
(Bonferroni's bound; alpha spending: Lan & DeMets 1983). New origins restore the power.
"""

from collections.abc import Iterable, Sequence
from typing import Final

#: Probability that any of all comparisons on one set of origins promotes an equal network.
ERROR: Final = 0.05

#: Start and end (ms) of the buckets on which a comparison was made.
Look = tuple[int, int]


def error_to_spend(origins_ms: Sequence[int], *, horizon_ms: int, looks: Iterable[Look]) -> float:
    """One-sided probability of error of a comparison on these origins, after earlier `looks`.

    >>> day = 24
    >>> error_to_spend([0, day], horizon_ms=day, looks=[])
    0.025
    >>> error_to_spend([0, day], horizon_ms=day, looks=[(0, 2 * day)])
    0.0125
    >>> error_to_spend([day, 2 * day], horizon_ms=day, looks=[(0, 2 * day)])
    0.01875
    """
    left = dict.fromkeys(origins_ms, 1.0)
    for start_ms, end_ms in looks:
        for origin in left:
            seen_ms = min(end_ms, origin + horizon_ms) - max(start_ms, origin)
            left[origin] *= 1 - max(0, seen_ms) / horizon_ms / 2
    return ERROR / 2 * sum(left.values()) / len(left)
