"""Training chunks: inputs and actuals of lanes of series, read from a history in place.

A **lane group** is a set of series that advance together, chunk by chunk, with their carried
statistics; groups are at different times, so one update sees several seasons. The history is never
copied whole.

Axes: T = buckets, S = series of the history, B = lanes of a group, F = stored features, I = inputs,
C = calendar, P = plan columns.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import ModelConfig
from model.errors import HistoryTooShort, InvalidValues
from model.history import History, last_buckets, plans_between
from model.inputs.carried_statistics import PRICE, UNITS, censored, started
from model.inputs.newcomer_prior import NewcomerPrior
from model.inputs.plans import N_PLANS
from model.inputs.seasons.calendar import calendar_features, horizon_calendar
from model.inputs.seasons.season_layout import BucketPhases, layout_of
from model.inputs.series_inputs import carry_statistics, new_carried, series_inputs
from model.inputs.static_features import ids_of, set_static
from model.inputs.targets import TargetAhead, scales_of, target_of
from model.training.chunk import Chunk

__all__ = [
    "Chunk", "History", "TrainingSeries", "last_buckets", "levels", "pick_series", "plans_between",
    "plans_of",
]  # fmt: skip

#: Share of the lanes that is drawn by volume.
_BY_VOLUME: Final = 0.1


@dataclass(slots=True)
class TrainingSeries:
    """The series drawn for training, their values, and snapshots of their statistics.

    `values_TSF` contains the drawn series only; `grid_GSK[g]` are the statistics *before* bucket
    ``g * every``; `plans_TSP` extend one horizon beyond the last bucket. Buckets from `end` on are
    for validation.
    """

    values_TSF: Tensor
    start_ms: int
    config: ModelConfig
    end: int
    every: int
    index_S: NDArray[np.int64]
    weight_S: NDArray[np.float64]
    level_S: Tensor
    grid_GSK: Tensor
    calendar_TC: Tensor = field(repr=False)
    prior: NewcomerPrior | None = None
    plans_TSP: Tensor | None = field(default=None, repr=False)
    target_levels: tuple[Tensor, ...] = ()

    def chunk(
        self,
        lanes_GB: Tensor,
        stats_NK: Tensor,
        first_G: NDArray[np.int64],
        *,
        length: int,
        end: int,
        carried_LNK: Tensor | None = None,
    ) -> Chunk:
        """Buckets ``[first, first + length)`` of every group; carries `stats_NK` over them.

        Demand is known before bucket `end` only. `carried_LNK` are the statistics after each bucket
        if they have been carried already.
        """
        config = self.config
        groups = list(zip(first_G.tolist(), lanes_GB, strict=True))
        values_LNF = torch.cat(
            [
                _padded(self.values_TSF[first : first + length, lanes], length)
                for first, lanes in groups
            ],
            dim=1,
        )
        starts_LG = self.start_ms + config.bucket_ms * (np.arange(length)[:, None] + first_G)
        size = lanes_GB.shape[1]
        starts_LN = torch.from_numpy(starts_LG.repeat(size, axis=1))
        if carried_LNK is None:
            phases = layout_of(config.bucket_ms).buckets(
                starts_LN, config.holidays_country, timezone=config.timezone
            )
            carried_LNK = carry_over(stats_NK, values_LNF, phases, config)
        flat_XK = carried_LNK.flatten(0, 1)
        if self.prior is not None:
            self.prior.write(flat_XK)
        plans_XP = None
        if self.plans_TSP is not None:
            plans = [
                _padded(self.plans_TSP[first : first + length, lanes], length)
                for first, lanes in groups
            ]
            plans_XP = torch.cat(plans, dim=1).flatten(0, 1)
        inputs_XI = series_inputs(flat_XK, values_LNF.flatten(0, 1), config, plans_XP)
        shape = values_LNF.shape[:2]
        reach = length + config.horizon - 1
        ahead_NX = torch.zeros(shape[1], reach)
        known_NX = torch.zeros(shape[1], reach)
        inside_NX = torch.zeros(shape[1], reach)
        targets = [torch.zeros(shape[1], reach) for _ in config.targets]
        for group, (first, lanes) in enumerate(groups):
            rows = slice(group * size, (group + 1) * size)
            known = max(0, min(reach, end - first - 1))
            ahead_XBF = self.values_TSF[first + 1 : first + 1 + known, lanes]
            ahead_NX[rows, :known] = ahead_XBF[..., UNITS].T
            uncensored_XB = ~censored(ahead_XBF, share=config.censored_share)
            known_NX[rows, :known] = uncensored_XB.T.to(known_NX.dtype)
            inside_NX[rows, :known] = 1.0
            for target_NX, target in zip(targets, config.targets, strict=True):
                target_NX[rows, :known] = target_of(ahead_XBF, target).T
        scale_NL, _, *target_scales = (
            scale_X.view(shape).T for scale_X in scales_of(flat_XK, config)
        )
        started_NL = started(flat_XK).view(shape).T
        calendar = [
            _padded(self.calendar_TC[first : first + length], length) for first, _ in groups
        ]
        return Chunk(
            first_G=first_G.copy(),
            inputs_NLI=inputs_XI.view(*shape, -1).transpose(0, 1),
            calendar_NLC=torch.stack(calendar).repeat_interleave(size, dim=0),
            scale_NL=scale_NL,
            weight_NL=started_NL * scale_NL / self.level_S[lanes_GB.reshape(-1), None],
            started_NL=started_NL,
            ahead_NX=ahead_NX,
            known_NX=known_NX,
            price_NL=flat_XK[:, PRICE].view(shape).T,
            plans_NXP=self._plans_ahead(groups, reach),
            carried_NLK=carried_LNK.transpose(0, 1),
            ends_NL=starts_LN.T + config.bucket_ms,
            ids_N3=ids_of(stats_NK, config),
            targets=tuple(
                TargetAhead(
                    scale_NL=target_scale_NL,
                    weight_NL=started_NL * target_scale_NL / level_S[lanes_GB.reshape(-1), None],
                    ahead_NX=target_NX,
                    known_NX=inside_NX if target == "visitors" else known_NX,
                )
                for target, target_scale_NL, level_S, target_NX in zip(
                    config.targets, target_scales, self.target_levels, targets, strict=True
                )
            ),
        )

    def _plans_ahead(self, groups: list[tuple[int, Tensor]], reach: int) -> Tensor | None:
        if self.plans_TSP is None:
            return None
        parts = [
            _padded(self.plans_TSP[first + 1 : first + 1 + reach, lanes], reach)
            for first, lanes in groups
        ]
        return torch.cat(parts, dim=1).transpose(0, 1)

    def horizon_calendar(
        self, first_G: NDArray[np.int64], positions_P: NDArray[np.int64]
    ) -> Tensor:
        """Calendar [G · P, H, C] of the horizons after buckets ``first + position``."""
        config = self.config
        buckets = (first_G[:, None] + positions_P + 1).reshape(-1)
        return torch.from_numpy(
            horizon_calendar(
                self.start_ms + buckets * config.bucket_ms,
                horizon=config.horizon,
                bucket_ms=config.bucket_ms,
                country=config.holidays_country,
                year_terms=config.year_terms,
                timezone=config.timezone,
            )
        )


def carry_over(
    stats_NK: Tensor, values_LNF: Tensor, phases: BucketPhases, config: ModelConfig
) -> Tensor:
    """Carry statistics over buckets with these phases, in place; all of them [L, N, K]."""
    carried_LNK = torch.empty(*values_LNF.shape[:2], stats_NK.shape[1])
    for t, values_NF in enumerate(values_LNF):
        carry_statistics(stats_NK, values_NF, phases.at(t), config)
        carried_LNK[t] = stats_NK
    return carried_LNK


def _padded(part: Tensor, length: int) -> Tensor:
    """Buckets [length, ...]: those beyond the end of the data are zeros, and never scored."""
    missing = length - part.shape[0]
    if not missing:
        return part
    return torch.cat((part, part.new_zeros(missing, *part.shape[1:])))


def levels(units_TS: Tensor) -> Tensor:
    """Mean demand [S] of each series since its first sale.

    >>> levels(torch.tensor([[0.0], [2.0], [4.0]])).tolist()
    [3.0]
    """
    begun_S = (units_TS.cumsum(dim=0) > 0).sum(dim=0).clamp(min=1)
    return units_TS.sum(dim=0) / begun_S


def pick_series(
    history: History, config: ModelConfig, *, end: int, every: int, limit: int, power: float
) -> TrainingSeries:
    """Take the `limit` series with most demand, and prepare their statistics.

    Lanes are later drawn with weight ``volume ** power``, a tenth of them by volume. Raises
    HistoryTooShort if nothing was sold before bucket `end`, InvalidValues for NaN, infinite or
    negative units.
    """
    volume_S = history.volume(end)
    if not np.isfinite(volume_S).all():
        raise InvalidValues("the history contains NaN or infinite units")
    order = np.argsort(-volume_S, kind="stable")[:limit]
    index_S = np.sort(order[volume_S[order] > 0])
    if not index_S.size:
        raise HistoryTooShort(f"no unit was sold in the {end} buckets to learn from")
    values = np.ascontiguousarray(history.values_TSF[:, index_S])
    if not np.isfinite(values).all() or values[:, :, 0].min() < 0:
        raise InvalidValues("the history contains NaN, infinite or negative units")
    values_TSF = torch.from_numpy(values)
    weight_S = _draw_weights(volume_S[index_S], power)
    starts = history.start_ms + history.bucket_ms * np.arange(history.buckets, dtype=np.int64)
    calendar_TC = torch.from_numpy(
        calendar_features(
            starts,
            bucket_ms=config.bucket_ms,
            country=config.holidays_country,
            year_terms=config.year_terms,
            timezone=config.timezone,
        )
    )
    stats_SK = new_carried(index_S.size, config)
    set_static(stats_SK, torch.from_numpy(history.static_features_SX[index_S]), config)
    phases = layout_of(config.bucket_ms).buckets(
        torch.from_numpy(starts), config.holidays_country, timezone=config.timezone
    )
    grid = []
    for t in range(history.buckets):
        if t % every == 0:
            grid.append(stats_SK.clone())
        carry_statistics(stats_SK, values_TSF[t], phases.at(t), config)
    return TrainingSeries(
        values_TSF=values_TSF,
        start_ms=history.start_ms,
        config=config,
        end=end,
        every=every,
        index_S=index_S,
        weight_S=weight_S,
        level_S=levels(values_TSF[:end, :, UNITS]),
        grid_GSK=torch.stack(grid),
        calendar_TC=calendar_TC,
        plans_TSP=plans_of(history, config, index_S) if config.plans else None,
        target_levels=tuple(
            levels(target_of(values_TSF[:end], target)).clamp(min=config.scale_floor)
            for target in config.targets
        ),
    )


def _draw_weights(volume_S: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    """Probability [S] of each series in a draw.

    A share by volume, so that a total of thousands of sparse series is learned from as well.

    >>> _draw_weights(np.array([1.0, 1.0, 98.0]), 0.0).round(2).tolist()
    [0.3, 0.3, 0.4]
    """
    power_S = volume_S**power
    even_S, by_volume_S = power_S / power_S.sum(), volume_S / volume_S.sum()
    weight_S: NDArray[np.float64] = (1 - _BY_VOLUME) * even_S + _BY_VOLUME * by_volume_S
    return weight_S


def plans_of(history: History, config: ModelConfig, index_S: NDArray[np.int64]) -> Tensor:
    """Plans [T + H, S, P] of some series of a history, one horizon beyond its end."""
    buckets = history.buckets + config.horizon
    if history.plans is None:
        return torch.zeros(buckets, index_S.size, N_PLANS)
    chosen = history.plans.between(0, buckets).chosen(index_S)
    return torch.from_numpy(chosen.dense(index_S.size))
