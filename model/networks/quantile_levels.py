"""Published quantile levels from those of a network, as constant weights.

A network forecasts fixed levels; any others are linear in the standard normal score of the level:
between two levels an interpolation, beyond the outermost ones an extrapolation from the last two.

Axes: Q = levels of the network, P = published levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import torch
from torch import Tensor

from model.quantiles.mean import mean_weights


@dataclass(frozen=True, slots=True)
class PublishedLevels:
    """Published levels, their weights [Q, P] of the network's levels, and the mean's [P] of them.

    >>> PublishedLevels.of((0.1, 0.5, 0.9), (0.3,)).weights.round(decimals=2).flatten().tolist()
    [0.41..., 0.59..., 0.0]
    """

    quantiles: tuple[float, ...]
    weights: Tensor
    mean_P: Tensor
    #: True if they are the network's own levels.
    are_own: bool

    def to(self, device: torch.device) -> "PublishedLevels":
        """The same with the weights on another device."""
        weights, mean_P = self.weights.to(device), self.mean_P.to(device)
        return replace(self, weights=weights, mean_P=mean_P)

    @classmethod
    def of(cls, levels: Sequence[float], published: Sequence[float]) -> "PublishedLevels":
        """Derive `published` from `levels`; both rise."""
        levels, published = tuple(levels), tuple(published)
        mean_P = torch.from_numpy(mean_weights(published))
        return cls(published, _weights(levels, published), mean_P, levels == published)


def _weights(levels: tuple[float, ...], published: tuple[float, ...]) -> Tensor:
    normal = NormalDist()
    score_Q = [normal.inv_cdf(level) for level in levels]
    weights = torch.zeros(len(levels), len(published))
    for column, level in enumerate(published):
        if level in levels or len(levels) == 1:
            weights[min(range(len(levels)), key=lambda q: abs(levels[q] - level)), column] = 1.0
            continue
        score = normal.inv_cdf(level)
        above = next((q for q, own in enumerate(score_Q) if own > score), len(levels) - 1)
        above = max(above, 1)
        share = (score - score_Q[above - 1]) / (score_Q[above] - score_Q[above - 1])
        weights[above - 1, column], weights[above, column] = 1.0 - share, share
    return weights
