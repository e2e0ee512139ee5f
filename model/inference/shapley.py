"""Shapley values: what each player contributes to a game, on average over all orders of joining.

They sum to the value of all players less that of none, and a player that never changes anything
gets nothing (Shapley 1953; for the inputs of a model: Štrumbelj & Kononenko 2014).

Axes: P = players, N = 2^P coalitions, X = any shape.
"""

from math import factorial

import torch
from torch import Tensor


def coalitions(players: int) -> Tensor:
    """Membership [N, P] of all coalitions, 0 or 1; bit p of n says if player p is in coalition n.

    >>> coalitions(2).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    bits = torch.arange(2**players)[:, None] >> torch.arange(players)
    return (bits & 1).to(torch.float64)


def shapley_values(values_NX: Tensor, players: int) -> Tensor:
    """Shapley values [P, X] of a game; `values_NX` are those of `coalitions(players)`.

    >>> shapley_values(torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64), 2).tolist()
    [2.0, 3.0]
    """
    member_NP = coalitions(players)
    size_N1 = member_NP.sum(dim=1, keepdim=True).long()
    # the weight of joining a coalition of k others
    weight_K = torch.tensor(
        [factorial(k) * factorial(players - k - 1) / factorial(players) for k in range(players)],
        dtype=torch.float64,
    )
    with_NP = member_NP * weight_K[(size_N1 - 1).clamp(min=0)]
    without_NP = (1.0 - member_NP) * weight_K[size_N1.clamp(max=players - 1)]
    weight_PN = (with_NP - without_NP).T.to(values_NX.device)
    values_PX: Tensor = torch.tensordot(weight_PN, values_NX, dims=1)
    return values_PX
