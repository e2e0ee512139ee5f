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
from numpy.typing import NDArray
from torch import Tensor

from model.inference.shapley import coalitions, shapley_values
from model.inputs.anchors import FACTORS, anchors_of
from model.inputs.carried_statistics import PRICE
from model.inputs.input_groups import GROUPS, columns_of, neutral_inputs
from model.inputs.newcomer_prior import scale_of
from model.inputs.plans import PLAN_INPUT_NAMES, plan_features
from model.inputs.seasons.season_layout import layout_of
from model.inputs.seasons.special_days import day_names
from model.inputs.series_inputs import input_names, series_inputs
from model.inputs.static_features import ids_of
from model.networks.base import State
from model.networks.quantile_heads import ZERO_SHIFT
from model.networks.quantile_network import QuantileNetwork
from model.workspace import Workspace

Reals = NDArray[np.float64]

#: Contribution of each log factor; the two parts of the year are one.
_OF_FACTOR: Final = {
    "week": "week", "year": "year", "year_rest": "year", "special": "special_day",
    "recent": "recent",
}  # fmt: skip
#: Contributions that are factors of the level as well.
FACTOR_NAMES: Final = tuple(dict.fromkeys(_OF_FACTOR[name] for name in FACTORS))
#: Contributions, in the order in which they are read.
CONTRIBUTIONS: Final = (
    "level",
    *dict.fromkeys((*FACTOR_NAMES, *GROUPS)),
    "category",
    "history",
    "network",
)


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


@dataclass(frozen=True, slots=True)
class Explanations:
    """Contributions to the medians of S series, in units sold.

    `units_SCH[s, c, h]` is what `CONTRIBUTIONS[c]` adds to the median of bucket h,
    `cumulative_SCH` to that of the sum over buckets 0…h. `factors_SGH[s, g, h]` is the factor
    `FACTOR_NAMES[g]` of the level. `special_days` names the special day of each bucket, "" for
    none.
    """

    units_SCH: Reals
    cumulative_SCH: Reals
    factors_SGH: Reals
    special_days: tuple[str, ...]


def explain(network: QuantileNetwork, newest: NewestStep) -> Explanations:
    """Explain the medians of the series of a step. Reads the network alone, changes nothing."""
    config, stats_SK = network.config, newest.stats_SK
    layout, origin_ms = layout_of(config.bucket_ms), newest.start_ms + config.bucket_ms
    ahead = layout.horizon(origin_ms, config.horizon, config.holidays_country, stats_SK.device)
    plans_SP = plans_SHE = None
    if newest.plans_STP is not None:
        plans_SP = newest.plans_STP[:, 0]
        plans_SHE = plan_features(newest.plans_STP[:, 1:], stats_SK[:, PRICE, None])
    inputs_SI = series_inputs(stats_SK, newest.values_SF, config, plans_SP)
    neutral_SI = neutral_inputs(inputs_SI, stats_SK, newest.values_SF, config)
    ids_S3 = ids_of(stats_SK, config)
    whole_SI = network.with_embedding(inputs_SI, ids_S3)
    unknown_S3 = None if ids_S3 is None else torch.zeros_like(ids_S3)
    neutral_SI = network.with_embedding(neutral_SI, unknown_S3)
    encoded_SD = network.encoder.newest(
        whole_SI, newest.calendar_C, newest.state, Workspace(stats_SK.device)
    )
    scale_S1 = scale_of(stats_SK, config)[:, None].double()
    anchors = anchors_of(stats_SK, ahead, config)
    gated, power_S1 = network.heads.gated(network.heads.code(encoded_SD, whole_SI), anchors)
    shape = (len(stats_SK), len(CONTRIBUTIONS), config.horizon)
    units_SCH = torch.zeros(shape, dtype=torch.float64, device=stats_SK.device)
    factor_logs: dict[str, Tensor] = {}
    for name, log_SH in zip(FACTORS, gated, strict=True):
        log = log_SH.double().expand(shape[0], shape[2])
        factor_logs[_OF_FACTOR[name]] = factor_logs.get(_OF_FACTOR[name], 0.0) + log
    total_SH = torch.stack(list(factor_logs.values())).sum(dim=0)
    units_SCH[:, _place("level")] = scale_S1
    for name, log_SH in factor_logs.items():
        units_SCH[:, _place(name)] += scale_S1 * _mean_factor(total_SH) * log_SH
    sums_SCH = units_SCH.cumsum(dim=2)
    unit_SH = scale_S1 * (0.5 * (1.0 + power_S1) * total_SH).exp() * anchors.error[:, None]
    game = _Game(network, newest.horizon_HC)
    for row in range(shape[0]):
        plans_HE = None if plans_SHE is None else plans_SHE[row]
        added = game.contributions(
            encoded_SD[row], whole_SI[row], neutral_SI[row], plans_HE=plans_HE
        )
        for name, logit_YH in added.items():
            units_SCH[row, _place(name)] += unit_SH[row] * logit_YH[0]
            sums_SCH[row, _place(name)] += (unit_SH[row] * logit_YH[1]).cumsum(dim=0)
    for block_SCH in (units_SCH, sums_SCH):
        block_SCH[:, _place("network")] -= ZERO_SHIFT * scale_S1
    starts = origin_ms + config.bucket_ms * np.arange(config.horizon)
    return Explanations(
        units_SCH=units_SCH.cpu().numpy(),
        cumulative_SCH=sums_SCH.cpu().numpy(),
        factors_SGH=torch.stack(list(factor_logs.values()), dim=1).exp().cpu().numpy(),
        special_days=day_names(starts, bucket_ms=config.bucket_ms, country=config.holidays_country),
    )


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
        self, encoded_D: Tensor, inputs_I: Tensor, neutral_I: Tensor, *, plans_HE: Tensor | None
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
