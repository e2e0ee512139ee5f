"""Quantile heads: all horizon steps and quantiles at once, monotone by construction.

A small network turns the calendar of each horizon bucket into a weight matrix, which is multiplied
by the series' encoding. All series share these matrices, so serving is one matrix product for any
horizon. A series' plans are added to its logits: the encoding gives a sensitivity to each kind of
plan, and in the buckets of the plan, sensitivity times plan is added. Series without plans are
unaffected.

A quantile is the one below plus a softplus increment, so quantiles never cross. Cumulative demand
is a sum over the horizon of such rising, non-negative steps, so it rises with the quantile and with
the horizon. The lowest quantile is lowered by `ZERO_SHIFT` of the scale and cut at zero for
serving, so that a forecast close to zero is exactly zero.

Further targets (`model/inputs/targets.py`) are blocks like units after these two, each in its own
scale.

Direct forecasts of every horizon from every bucket: MQ-RNN, arXiv:1711.11053 ("forking sequences").

Axes: B = series, O = origins, R = rank (+1 for the bias), C = calendar, H = horizon, Q = quantiles,
E = plan inputs, M = series with a plan, Y = blocks: units, their sum, further targets.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.workspace import Workspace

ZERO_SHIFT: Final = 0.01


def rising(logits: Tensor) -> Tensor:
    """Quantiles in multiples of the scale from logits [..., Q], at least `-ZERO_SHIFT`.

    >>> rising(torch.zeros(2)).tolist()
    [0.683..., 1.376...]
    """
    steps = functional.softplus(logits)
    return steps.cumsum(dim=-1) - ZERO_SHIFT


def rising_sums(logits: Tensor) -> Tensor:
    """Quantiles of the sum over buckets 0…h, in multiples of the scale, from logits [..., H, Q].

    >>> rising_sums(torch.zeros(2, 1)).flatten().tolist()
    [0.683..., 1.376...]
    """
    steps = functional.softplus(logits)
    return steps.cumsum(dim=-1).cumsum(dim=-2) - ZERO_SHIFT


class QuantileHeads(nn.Module):
    """Units of each horizon bucket, their running sum, and `n_targets` further targets."""

    def __init__(
        self,
        width: int,
        n_inputs: int,
        n_calendar: int,
        *,
        horizon: int,
        n_quantiles: int,
        rank: int,
        dropout: float = 0.0,
        n_plans: int = 0,
        n_targets: int = 0,
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.n_quantiles = n_quantiles
        self.rank = rank
        self.blocks = 2 + n_targets
        self.dropout = dropout
        self.project = nn.Linear(width + n_inputs, rank)
        self.place = nn.Parameter(torch.randn(horizon, 8) * 0.3)
        self.read = nn.Linear(n_calendar + 8, 48)
        self.write = nn.Linear(48, (rank + 1) * self.blocks * n_quantiles)
        with torch.no_grad():
            self.write.weight.mul_(0.3)
            self.write.bias.mul_(0.3)
            bias_RYQ = self.write.bias.view(rank + 1, self.blocks, n_quantiles)
            bias_RYQ[-1].fill_(-2.0)  # small steps at the start of training
        self.answer: nn.Linear | None = None
        if n_plans:
            self.answer = nn.Linear(rank, n_plans * self.blocks * n_quantiles)
            nn.init.zeros_(self.answer.weight)  # plans start without effect
            nn.init.zeros_(self.answer.bias)

    def code(self, encoded: Tensor, inputs: Tensor) -> Tensor:
        """Code [..., R] from the encoding [..., D] and the newest inputs [..., I]."""
        projected = functional.silu(self.project(torch.cat((encoded, inputs), dim=-1)))
        return functional.dropout(projected, self.dropout, self.training)

    def horizon_weights(self, horizon_OHC: Tensor) -> Tensor:
        """Weights [O, R + 1, Y, H, Q] from the calendar of the horizon buckets of O origins."""
        origins, horizon = horizon_OHC.shape[0], self.horizon
        place = self.place.expand(origins, horizon, -1)
        read_OHX = functional.silu(self.read(torch.cat((horizon_OHC, place), dim=2)))
        flat: Tensor = self.write(read_OHX)
        shape = (origins, horizon, self.rank + 1, self.blocks, self.n_quantiles)
        return flat.view(shape).permute(0, 2, 3, 1, 4)

    def plan_effects(self, code_XR: Tensor, plans_XHE: Tensor) -> Tensor:
        """Effects of plans on the logits, [..., Y, H, Q]. Raises ValueError if plans are off."""
        if self.answer is None:
            raise ValueError("heads without plans cannot apply plans")
        shape = (*code_XR.shape[:-1], plans_XHE.shape[-1], self.blocks * self.n_quantiles)
        answer_XEV = self.answer(code_XR).view(shape)
        added_XHV: Tensor = plans_XHE @ answer_XEV
        added_XHYQ = added_XHV.view(*added_XHV.shape[:-1], self.blocks, self.n_quantiles)
        return added_XHYQ.transpose(-2, -3)

    def forward(
        self,
        encoded_OBD: Tensor,
        inputs_OBI: Tensor,
        horizon_OHC: Tensor,
        plans_OBHE: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Quantiles [O, B, H, Q] of each block, in multiples of its scale.

        `plans_OBHE` are the plan inputs of the horizon buckets, None for none. Not cut at zero, so
        that a forecast of zero has a gradient.
        """
        code_OBR = self.code(encoded_OBD, inputs_OBI)
        weights = self.horizon_weights(horizon_OHC).flatten(2)
        logits_OBX = torch.baddbmm(weights[:, -1:, :], code_OBR, weights[:, :-1, :])
        shape = (*logits_OBX.shape[:2], self.blocks, self.horizon, self.n_quantiles)
        logits = logits_OBX.view(shape)
        if plans_OBHE is not None:
            logits = logits + self.plan_effects(code_OBR, plans_OBHE)
        units, sums, *targets = logits.unbind(2)
        return rising(units), rising_sums(sums), *(rising(target) for target in targets)

    def serve(
        self,
        encoded_BD: Tensor,
        inputs_BI: Tensor,
        weights: Tensor,
        scales: tuple[Tensor, ...],
        out: tuple[Tensor, ...],
        *,
        work: Workspace,
        planned: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Write each block into `out` (each [B, H, Q], contiguous), multiplied by its scale [B].

        `weights` are `horizon_weights` of this one origin, [R + 1, Y, H * Q]; `planned` are the
        rows [M] of series with a plan and their plan inputs, [M, H, E].
        """
        code_BR = self.code(encoded_BD, inputs_BI)
        added_MYHQ = None
        if planned is not None:
            added_MYHQ = self.plan_effects(code_BR[planned[0]], planned[1])
        steps_BHQ = work.take("steps", *out[0].shape)
        for part, (out_BHQ, scale_B) in enumerate(zip(out, scales, strict=True)):
            flat_BX = out_BHQ.view(out_BHQ.shape[0], -1)
            torch.addmm(weights[-1, part], code_BR, weights[:-1, part], out=flat_BX)
            if planned is not None and added_MYHQ is not None:
                out_BHQ.index_add_(0, planned[0], added_MYHQ[:, part])
            torch.ops.aten.softplus.out(out_BHQ, out=steps_BHQ)
            torch.cumsum(steps_BHQ, dim=2, out=out_BHQ)
            if part == 1:
                torch.cumsum(out_BHQ, dim=1, out=out_BHQ)
            out_BHQ.sub_(ZERO_SHIFT).clamp_(min=0.0).mul_(scale_B[:, None, None])
