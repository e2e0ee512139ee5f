"""Explains medians: what level, season, plans and each group of inputs contribute, in units sold.

The heads forecast `scale · (factor + unit · logit)` (`model/networks/quantile_heads.py`), so a
median is a sum. The **level** is the scale. A seasonal **factor** contributes its share of
level · (factors − 1), divided by their logs (the logarithmic mean Divisia index, Ang 2004), which
is exact and does not depend on an order. The rest, `scale · unit · logit`, is what the network
adds: the Shapley values of the groups of inputs, with the gates as they are. A group that is out of
a coalition has its neutral value (`model/inputs/input_groups.py`); **history**, the encoding of all
earlier buckets, and **category**, the embedding of the ids, are groups as well. What the network
adds with all of them neutral is **network**.

Only the newest inputs are made neutral: what clicks or prices of earlier buckets still do is part
of `history`. Contributions sum to the median before it is calibrated and cut at zero.

Axes: S = series, K = carried statistics, F = stored features, T = the newest bucket and those
ahead, H = horizon, I = inputs, D = encoded width, R = rank, E = plan inputs, N = coalitions, P =
players of a game, else plan columns, C = contributions, G = factors, Y = units and their running
sum.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from model.contributions import CONTRIBUTIONS, FACTOR_NAMES, Explanations
from model.inference.shapley import coalitions, shapley_values
from model.inputs.anchors import FACTORS, anchors_of
from model.inputs.carried_statistics import PRICE
from model.inputs.input_groups import GROUPS, columns_of, neutral_inputs
from model.inputs.newcomer_prior import scale_of
from model.inputs.plans import CLOSURE_INPUT, PLAN_INPUT_NAMES, plan_features
from model.inputs.seasons.season_layout import layout_of
from model.inputs.seasons.special_days import day_names
from model.inputs.series_inputs import input_names, series_inputs
from model.inputs.static_features import ids_of
from model.networks.base import State
from model.networks.quantile_heads import ZERO_SHIFT
from model.networks.quantile_network import QuantileNetwork
from model.wall_clock import calendar_ms
from model.workspace import Workspace

#: Contribution of each log factor; the two parts of the year are one.
_OF_FACTOR: Final = {
    "week": "week", "year": "year", "year_rest": "year", "special": "special_day",
    "recent": "recent",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NewestStep:
    """The step that made a forecast, for some series, all of which have begun.

    `stats_SK` and `state` are those after the step over the bucket `values_SF` that starts at
    `start_ms`. `calendar_C` is of that bucket, `horizon_HC` of those ahead; `plans_STP` are the
    plans of both, None for none.
    """

    stats_SK: Tensor
    state: State
    values_SF: Tensor
    start_ms: int
    calendar_C: Tensor
    horizon_HC: Tensor
    plans_STP: Tensor | None


def explain(network: QuantileNetwork, newest: NewestStep) -> Explanations:
    """Explain the medians of the series of a step. Reads the network alone, changes nothing."""
    config, stats_SK = network.config, newest.stats_SK
    origin_ms = newest.start_ms + config.bucket_ms
    encoded_SD, inputs_SI, neutral_SI = _inputs(network, newest)
    logs, unit_SH = _season(network, stats_SK, network.heads.code(encoded_SD, inputs_SI), origin_ms)
    scale_S1 = scale_of(stats_SK, config)[:, None].double()
    units_SCH = unit_SH.new_zeros(len(stats_SK), len(CONTRIBUTIONS), config.horizon)
    units_SCH[:, _place("level")] = scale_S1
    mean_SH = scale_S1 * _mean_factor(sum(logs.values(), start=torch.zeros_like(unit_SH)))
    for name, log_SH in logs.items():
        units_SCH[:, _place(name)] = mean_SH * log_SH
    sums_SCH = units_SCH.cumsum(dim=2)
    plans_SHE = _plans_ahead(newest)
    game = _Game(network, newest.horizon_HC)
    for row, unit_H in enumerate(scale_S1 * unit_SH):
        plans_HE = None if plans_SHE is None else plans_SHE[row]
        added = game.contributions(encoded_SD[row], inputs_SI[row], neutral_SI[row], plans_HE)
        for name, logit_YH in added.items():
            units_SCH[row, _place(name)] += unit_H * logit_YH[0]
            sums_SCH[row, _place(name)] += (unit_H * logit_YH[1]).cumsum(dim=0)
    for block_SCH in (units_SCH, sums_SCH):
        block_SCH[:, _place("network")] -= ZERO_SHIFT * scale_S1
    if plans_SHE is not None:
        _close(units_SCH, sums_SCH, plans_SHE[..., CLOSURE_INPUT] >= 1.0)
    bucket_ms, country = config.bucket_ms, config.holidays_country
    starts = origin_ms + bucket_ms * np.arange(config.horizon)
    local = calendar_ms(starts, bucket_ms=bucket_ms, timezone=config.timezone)
    return Explanations(
        units_SCH=units_SCH.cpu().numpy(),
        cumulative_SCH=sums_SCH.cpu().numpy(),
        factors_SGH=torch.stack([logs[name] for name in FACTOR_NAMES], dim=1).exp().cpu().numpy(),
        special_days=day_names(local, bucket_ms=bucket_ms, country=country),
    )


def _close(units_SCH: Tensor, sums_SCH: Tensor, closed_SH: Tensor) -> None:
    """Let the closure take away all of a bucket that is closed throughout, in place."""
    closure = _place("closure")
    units_SCH[:, closure] -= torch.where(closed_SH, units_SCH.sum(dim=1), 0.0)
    sums_SH = sums_SCH.sum(dim=1)
    grown_SH = sums_SH.diff(dim=1, prepend=torch.zeros_like(sums_SH[:, :1]))
    sums_SCH[:, closure] -= torch.where(closed_SH, grown_SH, 0.0).cumsum(dim=1)


def _inputs(network: QuantileNetwork, newest: NewestStep) -> tuple[Tensor, Tensor, Tensor]:
    """Encoding [S, D], inputs of the heads [S, I], and these with all groups neutral."""
    config, stats_SK = network.config, newest.stats_SK
    plans_SP = None if newest.plans_STP is None else newest.plans_STP[:, 0]
    inputs_SI = series_inputs(stats_SK, newest.values_SF, config, plans_SP)
    neutral_SI = neutral_inputs(inputs_SI, stats_SK, newest.values_SF, config)
    ids_S3 = ids_of(stats_SK, config)
    unknown_S3 = None if ids_S3 is None else torch.zeros_like(ids_S3)
    inputs_SI = network.with_embedding(inputs_SI, ids_S3)
    encoded_SD = network.encoder.newest(
        inputs_SI, newest.calendar_C, newest.state, Workspace(stats_SK.device)
    )
    return encoded_SD, inputs_SI, network.with_embedding(neutral_SI, unknown_S3)


def _season(
    network: QuantileNetwork, stats_SK: Tensor, code_SR: Tensor, origin_ms: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Weighted log factors [S, H] by contribution, and the unit [S, H] in multiples of the scale.

    Like `QuantileHeads.expected`.
    """
    config, device = network.config, stats_SK.device
    layout = layout_of(config.bucket_ms)
    country, zone = config.holidays_country, config.timezone
    ahead = layout.horizon(origin_ms, config.horizon, country, device, timezone=zone)
    anchors = anchors_of(stats_SK, ahead, config)
    gated, power_S1 = network.heads.gated(code_SR, anchors)
    shape = (len(stats_SK), config.horizon)
    logs = {name: torch.zeros(shape, dtype=torch.float64, device=device) for name in FACTOR_NAMES}
    for name, log_SH in zip(FACTORS, gated, strict=True):
        logs[_OF_FACTOR[name]] += log_SH
    total_SH = torch.stack(list(logs.values())).sum(dim=0)
    return logs, (0.5 * (1.0 + power_S1) * total_SH).exp() * anchors.error[:, None]


def _plans_ahead(newest: NewestStep) -> Tensor | None:
    """Plan inputs [S, H, E] of the buckets ahead; None without plans."""
    if newest.plans_STP is None:
        return None
    return plan_features(newest.plans_STP[:, 1:], newest.stats_SK[:, PRICE, None])


def _place(name: str) -> int:
    return CONTRIBUTIONS.index(name)


def _mean_factor(log_X: Tensor) -> Tensor:
    """Logarithmic mean of 1 and a factor whose log is given: (f − 1) / log f.

    >>> _mean_factor(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    [1.0, 1.718...]
    """
    flat = log_X.abs() < 1e-9
    return torch.where(flat, 1.0, torch.expm1(log_X) / torch.where(flat, 1.0, log_X))


class _Game:
    """The median's logits of one series, as a game between the groups of inputs."""

    def __init__(self, network: QuantileNetwork, horizon_HC: Tensor) -> None:
        self._network, heads = network, network.heads
        self._weight_RX = heads.project.weight.double()
        self._bias_R = heads.project.bias.double()
        weights = heads.horizon_weights(horizon_HC[None])[0, :, :2, :, heads.median]
        self._weights_RYH = weights.double()
        config = network.config
        self._columns = {name: columns_of(name, config) for name in GROUPS}
        if network.embedding is not None:
            named = len(input_names(config))
            self._columns["category"] = list(range(named, named + config.static))

    def contributions(
        self, encoded_D: Tensor, inputs_I: Tensor, neutral_I: Tensor, plans_HE: Tensor | None
    ) -> dict[str, Tensor]:
        """Logits [Y, H] that each group adds, and those of `network`, with all of them neutral."""
        split = len(encoded_D)
        changes = {"history": self._weight_RX[:, :split] @ encoded_D.double()}
        for name, columns in self._columns.items():
            change_I = (inputs_I[columns] - neutral_I[columns]).double()
            planned = plans_HE is not None and self._plans_of(name, plans_HE).any()
            if planned or change_I.any():  # a group that is neutral plays no part
                at = [split + column for column in columns]
                changes[name] = self._weight_RX[:, at] @ change_I
        neutral_R = self._bias_R + self._weight_RX[:, split:] @ neutral_I.double()
        member_NP = coalitions(len(changes)).to(neutral_R.device)
        projected_NR = neutral_R + member_NP @ torch.stack(list(changes.values()))
        code_NR = torch.nn.functional.silu(projected_NR)
        logits_NYH = self._weights_RYH[-1] + torch.tensordot(
            code_NR, self._weights_RYH[:-1], dims=1
        )
        if plans_HE is not None:
            logits_NYH = logits_NYH + self._planned(list(changes), member_NP, code_NR, plans_HE)
        added_PYH = shapley_values(logits_NYH, len(changes))
        return dict(zip(changes, added_PYH, strict=True)) | {"network": logits_NYH[0]}

    def _planned(
        self, names: list[str], member_NP: Tensor, code_NR: Tensor, plans_HE: Tensor
    ) -> Tensor:
        """Logits [N, Y, H] that the plans of the coalitions' members add."""
        plans_NHE = sum(
            member_NP[:, place, None, None] * self._plans_of(name, plans_HE)
            for place, name in enumerate(names)
        )
        assert isinstance(plans_NHE, Tensor)
        heads = self._network.heads
        effects = heads.plan_effects(code_NR.float(), plans_NHE.float())
        return effects[:, :2, :, heads.median].double()

    def _plans_of(self, group: str, plans_HE: Tensor) -> Tensor:
        """The plans ahead [H, E] that belong to a group; the others are zero."""
        own_E = [name in GROUPS.get(group, ()) for name in PLAN_INPUT_NAMES]
        return plans_HE * torch.tensor(own_E, device=plans_HE.device)
