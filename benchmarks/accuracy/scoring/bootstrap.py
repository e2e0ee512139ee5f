"""Is one model better than another beyond noise: an origin-block bootstrap of the ratio of WQL.

Origins are drawn with replacement, and series within each drawn origin; both models are scored on
the same draw, and all steps of a series at an origin stay together.

Axes: O = origins, S = series, D = draws.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
DRAWS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """WQL of a model divided by that of another: the ratio, its 95 % interval, and P(ratio < 1)."""

    ratio: float
    low: float
    high: float
    better: float

    @property
    def beyond_noise(self) -> bool:
        """True if the interval does not contain 1."""
        return not self.low <= 1 <= self.high

    @classmethod
    def of(cls, log_ratio: float, drawn_D: Doubles) -> "Comparison":
        """From the logarithm of the ratio, and those of the draws."""
        low, high = np.quantile(drawn_D, (0.025, 0.975))
        return cls(
            float(np.exp(log_ratio)),
            float(np.exp(low)),
            float(np.exp(high)),
            float((drawn_D < 0).mean()),
        )


def drawn_log_ratios(
    first_OS: Doubles, second_OS: Doubles, *, draws: int = DRAWS, seed: int = 0
) -> Doubles:
    """Logarithm [D] of Σ first / Σ second on each draw; demand cancels.

    >>> loss = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> drawn_log_ratios(0.5 * loss, loss, draws=2).round(3).tolist()
    [-0.693, -0.693]
    """
    rng = np.random.default_rng(seed)
    origins, series = first_OS.shape
    sums_D2 = np.zeros((draws, 2))
    share_S = np.full(series, 1 / series)
    origin_DO = rng.integers(0, origins, (draws, origins))
    for turn in range(origins):
        count_DS = rng.multinomial(series, share_S, draws)
        chosen_D = origin_DO[:, turn]
        sums_D2[:, 0] += (count_DS * first_OS[chosen_D]).sum(axis=1)
        sums_D2[:, 1] += (count_DS * second_OS[chosen_D]).sum(axis=1)
    ratio_D: Doubles = np.log(np.maximum(sums_D2[:, 0], 1e-12) / np.maximum(sums_D2[:, 1], 1e-12))
    return ratio_D


def compare(first_OS: Doubles, second_OS: Doubles, *, seed: int = 0) -> Comparison:
    """Compare the losses [O, S] of two models on the same truths."""
    log_ratio = float(np.log(first_OS.sum() / second_OS.sum()))
    return Comparison.of(log_ratio, drawn_log_ratios(first_OS, second_OS, seed=seed))


def compare_pooled(pairs: list[tuple[Doubles, Doubles]]) -> Comparison:
    """Compare two models by the geometric mean over panels of the ratio of their WQL.

    Panels are drawn from independently and count the same.
    """
    log_ratios = [float(np.log(first.sum() / second.sum())) for first, second in pairs]
    drawn_ND = [
        drawn_log_ratios(first, second, seed=number) for number, (first, second) in enumerate(pairs)
    ]
    return Comparison.of(float(np.mean(log_ratios)), np.mean(drawn_ND, axis=0))
