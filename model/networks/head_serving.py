"""Quantiles of a served forecast, computed in place with the series as the innermost axis.

The values of one level and bucket are then adjacent in memory: a running sum over levels or buckets
adds whole rows, which is several times faster than along short inner axes. Only the finished block
is transposed. `model/networks/quantile_heads.py` has the formulas.

The expected value is not among what is learned. Of rare demand it is what the statistics expect, a
mean by construction, where quantiles are all zero; of much demand the mean of that and of the mean
of the quantiles, which knows what the network has learned:

    mean = e + w · (q − e),     w = ½ · e / (1 + e)

with e in units sold. Plans move e as they move the median; of closed buckets nothing is left.

Axes: H = horizon, Q = quantiles, P = published quantiles, B = series, M = series with a plan.
"""

from typing import Final

import torch
from torch import Tensor

from model.networks.quantile_levels import PublishedLevels
from model.workspace import Workspace

#: Published levels from which the mean of the quantiles says something.
_LEAST_LEVELS: Final = 3


def deviations_of_logits(logits_HQB: Tensor, median: int, spread_H: Tensor | None) -> None:
    """Turn logits into deviations of the quantiles, in place: running sums of softplus steps.

    The median's is its logit. `spread_H` weights the steps of each bucket, None for 1.

    >>> logits = torch.tensor([[[0.5413], [2.0], [0.5413]]])
    >>> deviations_of_logits(logits, 1, None)
    >>> logits.flatten().tolist()
    [1.0, 2.0, 3.0]
    """
    below, above = logits_HQB[:, :median], logits_HQB[:, median + 1 :]
    for steps_HQB in (below, above):
        torch.ops.aten.softplus.out(steps_HQB, out=steps_HQB)
        if spread_H is not None:
            steps_HQB.mul_(spread_H[:, None, None])
    for level in range(median + 1, logits_HQB.shape[1]):
        logits_HQB[:, level].add_(logits_HQB[:, level - 1])
    for level in reversed(range(median)):
        own_HB = logits_HQB[:, level]
        torch.sub(logits_HQB[:, level + 1], own_HB, out=own_HB)


def publish(values_HQB: Tensor, levels: PublishedLevels, work: Workspace, name: str) -> Tensor:
    """The published levels [H, P, B] of a block; the block itself if they are the network's own."""
    if levels.are_own:
        return values_HQB
    horizon, _, size = values_HQB.shape
    out_HPB = work.take(name, horizon, len(levels.quantiles), size)
    weights_PQ = levels.weights.t().to(values_HQB)
    return torch.matmul(weights_PQ, values_HQB, out=out_HPB)


def sum_up(values_HPB: Tensor) -> None:
    """Running sums over the horizon, in place.

    >>> values = torch.ones(3, 1, 1)
    >>> sum_up(values)
    >>> values.flatten().tolist()
    [1.0, 2.0, 3.0]
    """
    for step in range(1, values_HPB.shape[0]):
        values_HPB[step].add_(values_HPB[step - 1])


def make_coherent(units_HPB: Tensor, sums_HPB: Tensor) -> None:
    """Raise sums, in place, to those of fewer buckets and to every bucket they contain.

    `model.quantiles.coherence.make_coherent` has the reason.

    >>> units, sums = torch.tensor([[[2.0]], [[5.0]]]), torch.tensor([[[3.0]], [[4.0]]])
    >>> make_coherent(units, sums)
    >>> sums.flatten().tolist()
    [2.0, 5.0]
    """
    sums_HPB[0] = units_HPB[0]
    torch.maximum(sums_HPB, units_HPB, out=sums_HPB)
    for step in range(1, sums_HPB.shape[0]):
        torch.maximum(sums_HPB[step], sums_HPB[step - 1], out=sums_HPB[step])


def blend_mean(mean_HB: Tensor, values_HPB: Tensor, levels: PublishedLevels) -> None:
    """Move what is expected towards the mean of the quantiles, in place, the more units it is."""
    if len(levels.quantiles) >= _LEAST_LEVELS:
        of_quantiles_HB = torch.matmul(levels.mean_P, values_HPB)
        mean_HB.lerp_(of_quantiles_HB, 0.5 * mean_HB / (1.0 + mean_HB))


def write_block(values_HPB: Tensor, out_BHP: Tensor) -> None:
    """Copy a block to its place, series first; `out_BHP` is contiguous."""
    size = out_BHP.shape[0]
    out_BHP.view(size, -1).copy_(values_HPB.view(-1, size).t())  # torch's fast transposition


def plan_mean(mean_HB: Tensor, rows_M: Tensor, moved_HM: Tensor, closed_MH: Tensor) -> None:
    """Move the mean of planned series, in place; of a closed share of a bucket nothing is left.

    >>> mean = torch.tensor([[1.0, 4.0]])
    >>> plan_mean(mean, torch.tensor([1]), torch.tensor([[2.0]]), torch.tensor([[0.5]]))
    >>> mean.tolist()
    [[1.0, 3.0]]
    """
    mean_HB[:, rows_M] = (mean_HB[:, rows_M] + moved_HM).clamp_(min=0.0) * (1.0 - closed_MH.t())


def close_buckets(values_HPB: Tensor, rows_M: Tensor, closed_MH: Tensor) -> None:
    """Set to zero, in place, what planned series sell in buckets that are closed throughout.

    >>> values = torch.ones(2, 1, 1)
    >>> close_buckets(values, torch.tensor([0]), torch.tensor([[1.0, 0.9]]))
    >>> values.flatten().tolist()
    [0.0, 1.0]
    """
    values_HPB[:, :, rows_M] *= (closed_MH < 1.0).t()[:, None]


def sum_spread(horizon: int, device: torch.device) -> Tensor:
    """Weights [H] of the steps of sums: √h − √(h−1).

    >>> sum_spread(2, torch.device("cpu")).tolist()
    [1.0, 0.41...]
    """
    root_H = torch.arange(horizon + 1, device=device, dtype=torch.float32).sqrt()
    return root_H[1:] - root_H[:-1]


def sum_weights(horizon: int, median_Q: Tensor, device: torch.device) -> Tensor:
    """Weights [H, Q] of the steps of sums, and 1 for the median's."""
    return torch.where(median_Q, 1.0, sum_spread(horizon, device)[:, None])
