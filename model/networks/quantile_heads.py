"""Quantile heads: all horizon steps and quantiles at once, monotone by construction.

A small network turns the calendar of each horizon bucket into a weight matrix, which is multiplied
by the series' encoding. All series share these matrices, so serving is one matrix product for any
horizon. A series' plans are added to its logits: the encoding gives a sensitivity to each kind of
plan, and in the buckets of the plan, sensitivity times plan is added. Series without plans are
unaffected.

The logits are deviations from what the carried statistics let expect (`Anchors`), in units of the
series' own error, so a network starts as a seasonal forecast with normal errors, and learns noisy
and steady series alike:

    median   = factor + unit · logit,       unit = error · factor ^ power
    quantile = median ± unit · Σ softplus(logit) over the levels between

in multiples of the scale. Powers and the weights of the seasonal factors are gates of the encoding.
Quantiles never cross. Cumulative demand is the sum over the horizon of such steps, the spread of
step h weighted by √h − √(h−1), as if errors were independent. What is negative is cut to zero for
serving; everything is lowered by `ZERO_SHIFT` of the scale, so that a forecast close to zero is
exactly zero.

Further targets (`model/inputs/targets.py`) are blocks like units after these two, each in its own
scale.

The expected value is made beside the quantiles (`model/networks/head_serving.py`), not learned.

Direct forecasts of every horizon from every bucket: MQ-RNN, arXiv:1711.11053 ("forking sequences").

Axes: B = series, O = origins, R = rank (+1 for the bias), C = calendar, H = horizon, Q = quantiles,
P = published quantiles, E = plan inputs, M = series with a plan, Y = blocks: units, their sum,
further targets.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.inputs.anchors import FACTORS, Anchors
from model.inputs.plans import CLOSURE_INPUT
from model.networks.head_serving import (
    blend_mean,
    close_buckets,
    deviations_of_logits,
    make_coherent,
    plan_mean,
    publish,
    sum_spread,
    sum_up,
    sum_weights,
    write_block,
)
from model.networks.products import products_into
from model.networks.quantile_levels import PublishedLevels
from model.workspace import Workspace

ZERO_SHIFT: Final = 0.01
#: Initial gates, before the sigmoid: the weight of each factor, and the power of their product in
#: the unit.
_WEIGHTS: Final = {"week": 4.0, "year": 4.0, "year_rest": 4.0, "special": 4.0, "recent": 0.0}
_POWER: Final = 0.5
_GATES: Final = (*(_WEIGHTS[name] for name in FACTORS), _POWER)
_LEAST_STEP: Final = 0.02


def spread_matrix(quantiles: Sequence[float]) -> Tensor:
    """Matrix [Q, Q] from steps (the median's logit, the others' softplus) to quantiles.

    >>> spread_matrix((0.1, 0.5, 0.9)).tolist()
    [[-1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
    """
    count, middle = len(quantiles), median_of(quantiles)
    matrix = torch.zeros(count, count)
    matrix[middle] = 1.0
    for step in range(middle):
        matrix[step, : step + 1] = -1.0
    for step in range(middle + 1, count):
        matrix[step, step:] = 1.0
    return matrix


def median_of(quantiles: Sequence[float]) -> int:
    """Place of the level closest to the median.

    >>> median_of((0.1, 0.5, 0.9))
    1
    """
    return min(range(len(quantiles)), key=lambda q: abs(quantiles[q] - 0.5))


def _normal_logits(quantiles: Sequence[float]) -> Tensor:
    """Logits [Q] whose steps are those of normal errors with a mean absolute error of 1."""
    middle, normal = median_of(quantiles), NormalDist(0.0, math.sqrt(math.pi / 2))
    scores = [normal.inv_cdf(level) for level in quantiles]
    logits = torch.zeros(len(quantiles))
    for place in range(len(quantiles)):
        if place != middle:
            inner = scores[place + 1] if place < middle else scores[place - 1]
            step = max(abs(scores[place] - inner), _LEAST_STEP)
            logits[place] = math.log(math.expm1(step))
    return logits


class QuantileHeads(nn.Module):
    """Units of each horizon bucket, their running sum, and `n_targets` further targets."""

    def __init__(
        self,
        width: int,
        n_inputs: int,
        n_calendar: int,
        *,
        quantiles: Sequence[float],
        rank: int,
        dropout: float = 0.0,
        n_plans: int = 0,
        n_targets: int = 0,
    ) -> None:
        super().__init__()
        self.n_quantiles = len(quantiles)
        self.median = median_of(quantiles)
        self.rank = rank
        self.blocks = 2 + n_targets
        self.dropout = dropout
        self.spread_QQ: Tensor
        self.register_buffer("spread_QQ", spread_matrix(quantiles), persistent=False)
        self.project = nn.Linear(width + n_inputs, rank)
        self.read = nn.Linear(n_calendar, 48)
        self.write = nn.Linear(48, (rank + 1) * self.blocks * self.n_quantiles)
        self.gates = nn.Linear(rank, len(_GATES))
        with torch.no_grad():
            self.write.weight.mul_(0.1)
            self.write.bias.mul_(0.1)
            bias_RYQ = self.write.bias.view(rank + 1, self.blocks, self.n_quantiles)
            bias_RYQ[-1] = _normal_logits(quantiles)
            self.gates.weight.zero_()
            self.gates.bias.copy_(torch.tensor(_GATES))
        self.answer: nn.Linear | None = None
        if n_plans:
            self.answer = nn.Linear(rank, n_plans * self.blocks * self.n_quantiles)
            nn.init.zeros_(self.answer.weight)  # plans start without effect
            nn.init.zeros_(self.answer.bias)

    def code(self, encoded: Tensor, inputs: Tensor) -> Tensor:
        """Code [..., R] from the encoding [..., D] and the newest inputs [..., I]."""
        projected = functional.silu(self.project(torch.cat((encoded, inputs), dim=-1)))
        return functional.dropout(projected, self.dropout, self.training)

    def horizon_weights(self, horizon_OHC: Tensor) -> Tensor:
        """Weights [O, R + 1, Y, H, Q] from the calendar of the horizon buckets of O origins."""
        flat: Tensor = self.write(functional.silu(self.read(horizon_OHC)))
        shape = (*horizon_OHC.shape[:2], self.rank + 1, self.blocks, self.n_quantiles)
        return flat.view(shape).permute(0, 2, 3, 1, 4)

    def expected(self, code_XR: Tensor, anchors: Anchors) -> tuple[Tensor, Tensor]:
        """Factor and unit [..., H] of the horizon buckets, in multiples of the scale."""
        parts, power = self.gated(code_XR, anchors)
        log_XH = sum(parts, start=torch.zeros((), device=code_XR.device))
        unit_XH = (0.5 * (1.0 + power) * log_XH).exp() * anchors.error.unsqueeze(-1)
        return log_XH.exp(), unit_XH

    def gated(self, code_XR: Tensor, anchors: Anchors) -> tuple[tuple[Tensor, ...], Tensor]:
        """Log factors [..., H] as weighted by the gates, like `anchors.logs`; power [..., 1]."""
        *weights, power = torch.sigmoid(self.gates(code_XR)).unsqueeze(-2).unbind(-1)
        logs = (weight * log for weight, log in zip(weights, anchors.logs, strict=True))
        return tuple(logs), power

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
        anchors: Anchors,
        plans_OBHE: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Quantiles [O, B, H, Q] of each block, in multiples of its scale.

        `anchors` are [O, B, H] and [O, B]. `plans_OBHE` are the plan inputs of the horizon buckets,
        None for none. Neither cut at zero, so that a forecast of zero has a gradient, nor made
        coherent.
        """
        code_OBR = self.code(encoded_OBD, inputs_OBI)
        weights = self.horizon_weights(horizon_OHC).flatten(2)
        logits_OBX = torch.baddbmm(weights[:, -1:, :], code_OBR, weights[:, :-1, :])
        horizon = horizon_OHC.shape[1]
        shape = (*logits_OBX.shape[:2], self.blocks, horizon, self.n_quantiles)
        logits = logits_OBX.view(shape)
        if plans_OBHE is not None:
            logits = logits + self.plan_effects(code_OBR, plans_OBHE)
        factor, unit = self.expected(code_OBR, anchors)
        quantiles = []
        for part, logits_OBHQ in enumerate(logits.unbind(2)):
            steps = functional.softplus(logits_OBHQ)
            own = torch.arange(self.n_quantiles, device=steps.device) == self.median
            steps = torch.where(own, logits_OBHQ, steps)
            if part == 1:
                steps = steps * sum_weights(horizon, own, steps.device)
            deviation = steps @ self.spread_QQ
            block = factor.unsqueeze(-1) + unit.unsqueeze(-1) * deviation
            quantiles.append((block.cumsum(dim=-2) if part == 1 else block) - ZERO_SHIFT)
        return tuple(quantiles)

    def serve(
        self,
        encoded_BD: Tensor,
        inputs_BI: Tensor,
        weights: Tensor,
        scales: tuple[Tensor, ...],
        out: tuple[Tensor, ...],
        *,
        mean_BH: Tensor,
        level_B: Tensor | None = None,
        anchors: Anchors,
        work: Workspace,
        levels: PublishedLevels,
        planned: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Write each block into `out` (each [B, H, P], contiguous), multiplied by its scale [B].

        And the mean of units into `mean_BH`: a multiple of `level_B`, which has no floor (default:
        the scale of units). `weights` are `horizon_weights` of this one origin,
        [R + 1, Y, H * Q], in the precision of the product; `levels` are the published quantiles;
        `planned` are the rows [M] of series with a plan and their plan inputs, [M, H, E]. In a
        bucket that is closed throughout, units and their mean are zero. Sums are coherent: never
        below those of fewer buckets or of any bucket.
        """
        code_BR = self._served_code(encoded_BD, inputs_BI)
        added_MYHQ = None
        if planned is not None:
            added_MYHQ = self.plan_effects(code_BR[planned[0]], planned[1])
            closed_MH = planned[1][..., CLOSURE_INPUT]
        factor_HB, unit_HB = (part.t().contiguous() for part in self.expected(code_BR, anchors))
        size, horizon = out[0].shape[:2]
        units_HPB = None
        for part, (out_BHP, scale_B) in enumerate(zip(out, scales, strict=True)):
            sums = part == 1
            values_HQB = work.take("sums" if sums else "units", horizon, self.n_quantiles, size)
            products_into(
                values_HQB.view(-1, size), weights[-1, part][:, None],
                (weights[:-1, part].t(), code_BR.t()), work=work, dtype=weights.dtype,
            )  # fmt: skip
            if planned is not None and added_MYHQ is not None:
                values_HQB.index_add_(2, planned[0], added_MYHQ[:, part].permute(1, 2, 0))
            spread_H = sum_spread(horizon, code_BR.device) if sums else None
            deviations_of_logits(values_HQB, self.median, spread_H)
            middle_HB = factor_HB * scale_B
            if part == 0:
                mean_HB = factor_HB * (scale_B if level_B is None else level_B)
                if planned is not None:
                    moved_MH = self._open_effects(code_BR, planned)
                    moved_HM = unit_HB[:, planned[0]] * moved_MH.t() * scale_B[planned[0]]
                    plan_mean(mean_HB, planned[0], moved_HM, closed_MH)
            lowered_HB = middle_HB[:1] if sums else middle_HB  # a sum is lowered once
            lowered_HB.sub_(ZERO_SHIFT * scale_B)
            unit_H1B = (unit_HB * scale_B)[:, None]
            torch.addcmul(middle_HB[:, None], unit_H1B, values_HQB, out=values_HQB)
            values_HPB = publish(values_HQB, levels, work, "all_sums" if sums else "all_units")
            if planned is not None and part < 2:
                close_buckets(values_HPB, planned[0], closed_MH)
            if sums:
                sum_up(values_HPB)
            values_HPB.clamp_(min=0.0)
            if part == 0:
                units_HPB = values_HPB
                blend_mean(mean_HB, values_HPB, levels)
                mean_BH.copy_(mean_HB.t())
            elif sums and units_HPB is not None:
                make_coherent(units_HPB, values_HPB)
            write_block(values_HPB, out_BHP)

    def _open_effects(self, code_BR: Tensor, planned: tuple[Tensor, Tensor]) -> Tensor:
        """Effects [M, H] of plans other than closures on the median's logit of units."""
        rows_M, plans_MHE = planned
        open_MHE = plans_MHE.clone()
        open_MHE[..., CLOSURE_INPUT] = 0.0
        effects: Tensor = self.plan_effects(code_BR[rows_M], open_MHE)[:, 0, :, self.median]
        return effects

    def _served_code(self, encoded_BD: Tensor, inputs_BI: Tensor) -> Tensor:
        """The code [B, R] as `code` makes it, without joining its inputs, or a gradient."""
        weight_RX, width = self.project.weight, encoded_BD.shape[1]
        code_BR = torch.addmm(self.project.bias, encoded_BD, weight_RX[:, :width].t())
        code_BR.addmm_(inputs_BI, weight_RX[:, width:].t())
        return functional.silu(code_BR, inplace=True)
