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

The expected value is not among what is learned. Of rare demand it is what the statistics expect,
the factor, a mean by construction, where quantiles are all zero; of much demand the mean of that
and of the mean of the quantiles, which knows what the network has learned:

    mean = e + w · (q − e),     w = ½ · e / (1 + e)

with e in units sold. Plans move e as they move the median.

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
from model.networks.quantile_levels import PublishedLevels
from model.workspace import Workspace

ZERO_SHIFT: Final = 0.01
#: Initial gates, before the sigmoid: the weight of each factor, and the power of their product in
#: the unit.
_WEIGHTS: Final = {"week": 4.0, "year": 4.0, "year_rest": 4.0, "special": 4.0, "recent": 0.0}
_POWER: Final = 0.5
_GATES: Final = (*(_WEIGHTS[name] for name in FACTORS), _POWER)
_LEAST_STEP: Final = 0.02
#: Published levels from which the mean of the quantiles says something.
_LEAST_LEVELS: Final = 3


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
        [R + 1, Y, H * Q]; `levels` are the published quantiles; `planned` are the rows [M] of
        series with a plan and their plan inputs, [M, H, E]. Sums are coherent: never below those of
        fewer buckets or of any bucket.
        """
        code_BR = self.code(encoded_BD, inputs_BI)
        added_MYHQ = None
        if planned is not None:
            added_MYHQ = self.plan_effects(code_BR[planned[0]], planned[1])
        factor_BH, unit_BH = self.expected(code_BR, anchors)
        shape = (*out[0].shape[:2], self.n_quantiles)
        logits_BHQ, steps_BHQ = work.take("logits", *shape), work.take("steps", *shape)
        spread_QP = self.spread_QQ @ levels.weights.to(self.spread_QQ)
        middle = slice(self.median, self.median + 1)
        own_Q = torch.arange(self.n_quantiles, device=code_BR.device) == self.median
        for part, (out_BHP, scale_B) in enumerate(zip(out, scales, strict=True)):
            flat_BX = logits_BHQ.view(shape[0], -1)
            torch.addmm(weights[-1, part], code_BR, weights[:-1, part], out=flat_BX)
            if planned is not None and added_MYHQ is not None:
                logits_BHQ.index_add_(0, planned[0], added_MYHQ[:, part])
            torch.ops.aten.softplus.out(logits_BHQ, out=steps_BHQ)
            steps_BHQ[..., middle] = logits_BHQ[..., middle]
            if part == 1:
                steps_BHQ.mul_(sum_weights(shape[1], own_Q, code_BR.device))
            flat_XP = out_BHP.view(-1, out_BHP.shape[-1])
            torch.mm(steps_BHQ.view(-1, self.n_quantiles), spread_QP, out=flat_XP)
            out_BHP.mul_((unit_BH * scale_B[:, None])[..., None])
            out_BHP.add_((factor_BH * scale_B[:, None])[..., None])
            if part == 1:
                torch.cumsum(out_BHP, dim=1, out=out_BHP)
            out_BHP.sub_(ZERO_SHIFT * scale_B[:, None, None]).clamp_(min=0.0)
            if part == 0:
                mean_scale_B = scale_B if level_B is None else level_B
                torch.mul(factor_BH, mean_scale_B[:, None], out=mean_BH)
                if planned is not None and added_MYHQ is not None:
                    moved_MH = unit_BH[planned[0]] * added_MYHQ[:, 0, :, self.median]
                    mean_BH.index_add_(0, planned[0], moved_MH * mean_scale_B[planned[0], None])
                    mean_BH.clamp_(min=0.0)
                _blend(mean_BH, torch.mv(flat_XP, levels.mean_P).view_as(mean_BH), levels)
        make_coherent(out[0], out[1])


def _blend(mean_BH: Tensor, of_quantiles_BH: Tensor, levels: PublishedLevels) -> None:
    """Move what is expected towards the mean of the quantiles, in place, the more units it is."""
    if len(levels.quantiles) >= _LEAST_LEVELS:
        mean_BH.lerp_(of_quantiles_BH, 0.5 * mean_BH / (1.0 + mean_BH))


def sum_weights(horizon: int, median_Q: Tensor, device: torch.device) -> Tensor:
    """Weights [H, Q] of the steps of sums: √h − √(h−1), and 1 for the median's."""
    root_H = torch.arange(horizon + 1, device=device, dtype=torch.float32).sqrt()
    return torch.where(median_Q, 1.0, (root_H[1:] - root_H[:-1])[:, None])


def make_coherent(units_SHQ: Tensor, sums_SHQ: Tensor) -> None:
    """Raise sums, in place, to those of fewer buckets and to every bucket they contain.

    At one level, the quantile of a sum of demands that are never negative is at least that of any
    of its parts. The sum of one bucket is that bucket.

    >>> units, sums = torch.tensor([[[2.0], [5.0]]]), torch.tensor([[[3.0], [4.0]]])
    >>> make_coherent(units, sums)
    >>> sums.flatten().tolist()
    [2.0, 5.0]
    """
    sums_SHQ[:, 0] = units_SHQ[:, 0]
    torch.maximum(sums_SHQ, units_SHQ, out=sums_SHQ)
    reach = 1
    while reach < sums_SHQ.shape[1]:  # each sum is then the largest of the 2 · reach up to it
        sums_SHQ[:, reach:] = torch.maximum(sums_SHQ[:, reach:], sums_SHQ[:, :-reach])
        reach *= 2
