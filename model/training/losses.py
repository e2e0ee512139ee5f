"""Training losses in torch: pinball losses scaled by the series, **without** the factor 2 of WQL.

Axes: … = any leading axes, H = horizon, Q = quantiles.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

#: Weight of the loss of a further target relative to that of units.
TARGET_WEIGHT: Final = 0.03

Total = Callable[[Tensor], Tensor]


def _as_it_is(weight: Tensor) -> Tensor:
    return weight


def pinball(target: Tensor, forecast: Tensor, quantiles_Q: Tensor) -> Tensor:
    """Pinball loss ``max(q·e, (q − 1)·e)``, e = target − forecast, no factor 2.

    Koenker & Bassett 1978.

    `target` is [...], `forecast` [..., Q]; the result is [..., Q].

    >>> q = torch.tensor([0.5, 0.9])
    >>> pinball(torch.tensor(10.0), torch.tensor([8.0, 8.0]), q).tolist()
    [1.0, 1.8]
    """
    error = target.unsqueeze(-1) - forecast
    return torch.maximum(quantiles_Q * error, (quantiles_Q - 1) * error)


def masked_mean(loss: Tensor, weight: Tensor, total: Total = _as_it_is) -> Tensor:
    """Mean of `loss` under `weight` (broadcast); zero without any weight.

    If the batch is spread over processes, `total` sums a weight over all of them, so that their
    means add up to the mean of the batch.

    >>> masked_mean(torch.tensor([1.0, 5.0]), torch.tensor([1.0, 0.0])).item()
    1.0
    """
    weight = weight.expand_as(loss)
    return (loss * weight).sum() / total(weight.sum()).clamp(min=1e-9)


def target_loss(
    *,
    forecast: Tensor,
    target: Tensor,
    known: Tensor,
    weight: Tensor,
    quantiles_Q: Tensor,
    total: Total = _as_it_is,
) -> Tensor:
    """Pinball loss of one block in multiples of its scale; arguments as in `forecast_loss`."""
    counted = (known * weight.unsqueeze(-1)).unsqueeze(-1)
    return masked_mean(pinball(target, forecast, quantiles_Q), counted, total)


def forecast_loss(
    *,
    units: Tensor,
    sums: Tensor,
    target: Tensor,
    known: Tensor,
    weight: Tensor,
    quantiles_Q: Tensor,
    cumulative_weight: float,
    total: Total = _as_it_is,
) -> Tensor:
    """Pinball loss of both heads in multiples of the scale.

    `units` and `sums` are [..., H, Q], `target` and `known` [..., H] (`known` = the actual is
    known), `weight` [...] of each origin. The loss of cumulative demand is divided by the number of
    buckets summed, so that far steps do not dominate near ones. `total`: see `masked_mean`.
    """
    loss = target_loss(
        forecast=units, target=target, known=known, weight=weight,
        quantiles_Q=quantiles_Q, total=total,
    )  # fmt: skip
    if cumulative_weight:
        span_H = torch.arange(1, target.shape[-1] + 1, device=target.device, dtype=target.dtype)
        all_known = known.cumprod(dim=-1) * weight.unsqueeze(-1)
        sum_loss = pinball(target.cumsum(dim=-1), sums, quantiles_Q) / span_H.unsqueeze(-1)
        loss = loss + cumulative_weight * masked_mean(sum_loss, all_known.unsqueeze(-1), total)
    return loss
