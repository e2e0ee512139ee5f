"""Carried seasonal factors by time of day and day of week, multiplicative and shrunk.

Each phase carries the mean demand of its buckets over about eight weeks (three weeks for the phases
of the day). The factor of a phase is its mean over the mean of all phases, shrunk as by a gamma
prior on a Poisson rate,

    factor = (n · mean + κ · prior) / (n · mean of all + κ),

with n the weeks seen and κ = `_PRIOR` times the ratio of error variance to mean demand
(the variance from the mean absolute error, as of a normal variable); the factor
of the time of day is the prior of that of the week, whose own prior is 1. A phase that has never
sold although enough was expected counts as closed. Special days do not change the profiles
(`model/inputs/seasons/special_profile.py`).

Axes: S = series, K = carried statistics, H = buckets ahead.
"""

import math
from typing import Final

import torch
from torch import Tensor

from model.inputs.carried_statistics import (
    AGE,
    DAY_SUM,
    ERROR,
    QUARTER,
    WEEK_SUM,
)
from model.inputs.seasons.season_layout import BucketPhases, HorizonPhases, SeasonLayout

_PRIOR: Final = 2.0
_DAYS: Final = 21.0
_WEEKS: Final = 8.0
#: Factor of a closed phase, and the expected demand in prior units from which it is known.
CLOSED: Final = 1e-3
_EVIDENCE: Final = 4.0
#: Visits after which a phase may count as closed.
_LEAST_VISITS: Final = 1.9


def carry_profiles(
    stats_SK: Tensor, demand_S: Tensor, informative_S: Tensor, phases: BucketPhases,
    layout: SeasonLayout,
) -> None:  # fmt: skip
    """Carry the profiles over one bucket, in place; `stats_SK` has already counted its age."""
    age_S = stats_SK[:, AGE]
    weight_S = informative_S * (age_S > 0) * ~(phases.holiday | (phases.special >= 0))
    if layout.day:
        _carry(
            stats_SK, demand_S, weight_S, phases.day, phases.place,
            total=DAY_SUM, cycle=layout.per_day, phases=layout.day, memory=_DAYS,
        )  # fmt: skip
    if layout.week:
        _carry(
            stats_SK, demand_S, weight_S, phases.week, phases.place,
            total=WEEK_SUM, cycle=layout.per_week, phases=layout.week, memory=_WEEKS,
        )  # fmt: skip


def _carry(
    stats_SK: Tensor, demand_S: Tensor, weight_S: Tensor, column: Tensor, place: Tensor, *,
    total: int, cycle: int, phases: int, memory: float,
) -> None:  # fmt: skip
    per_phase = cycle / phases
    before_S = (stats_SK[:, AGE] - 1).clamp(min=0.0)
    cycles_S = (before_S / cycle).floor()
    # the first visit of a phase starts as a plain mean
    first_S = torch.minimum(before_S, place) + 1.0
    visits_S = (cycles_S + 1.0).clamp(max=memory) * per_phase
    rate_S = weight_S / torch.where(cycles_S < 1, first_S, visits_S)
    if column.numel() == 1 and column.device.type == "cpu":  # the same phase for all series
        mean_S = stats_SK[:, int(column)]
        change_S = rate_S * (demand_S - mean_S)
        mean_S += change_S
    else:
        rows_S1 = column.expand(stats_SK.shape[0])[:, None]
        change_S = rate_S * (demand_S - stats_SK.gather(1, rows_S1)[:, 0])
        stats_SK.scatter_add_(1, rows_S1, change_S[:, None])
    stats_SK[:, total] += change_S


def log_factors(stats_SK: Tensor, ahead: HorizonPhases, layout: SeasonLayout) -> Tensor:
    """Log factors [S, H] of the buckets ahead; step 0 is the bucket after the newest one."""
    return _factors(stats_SK, ahead, layout).log()


def _factors(stats_SK: Tensor, ahead: HorizonPhases, layout: SeasonLayout) -> Tensor:
    steps_H = ahead.steps_H
    age_S1 = stats_SK[:, AGE, None]
    mean_S1 = stats_SK[:, QUARTER, None].clamp(min=1e-6)
    variance_S1 = (math.pi / 2) * stats_SK[:, ERROR, None].square()
    kappa_S1 = _PRIOR * (variance_S1 / mean_S1).clamp(min=1.0)
    prior_SH = torch.ones(1, device=stats_SK.device)
    if layout.day:
        means_SH = _read(stats_SK, ahead.day)
        seen_SH = _cycles(age_S1, steps_H, layout.per_day, _DAYS) * (layout.per_day / layout.day)
        begun_S1 = (age_S1 * layout.day / layout.per_day).ceil().clamp(1, layout.day)
        all_S1 = stats_SK[:, DAY_SUM, None] / begun_S1
        prior_SH = _shrunk(means_SH, all_S1, seen_SH, kappa_S1, prior_SH)
    if not layout.week:
        return prior_SH.expand(stats_SK.shape[0], steps_H.numel())
    means_SH = _read(stats_SK, ahead.week)
    seen_SH = _cycles(age_S1, steps_H, layout.per_week, _WEEKS) * (layout.per_week / layout.week)
    begun_S1 = (age_S1 * layout.week / layout.per_week).ceil().clamp(1, layout.week)
    all_S1 = stats_SK[:, WEEK_SUM, None] / begun_S1
    return _shrunk(means_SH, all_S1, seen_SH, kappa_S1, prior_SH)


def factor_of(stats_SK: Tensor, phases: BucketPhases, layout: SeasonLayout) -> Tensor:
    """Factor [S] of the bucket after the newest one, at its own phases."""
    return _factors(stats_SK, phases.ahead(layout), layout)[:, 0]


def _read(stats_SK: Tensor, columns: Tensor) -> Tensor:
    if columns.dim() == 1:
        return stats_SK.index_select(1, columns)
    return stats_SK.gather(1, columns)


def _cycles(age_S1: Tensor, steps_H: Tensor, cycle: int, memory: float) -> Tensor:
    """Visits [S, H] of a phase so far, at most the memory."""
    return (age_S1 + steps_H % cycle).div_(cycle).floor_().clamp_(max=memory)


def _shrunk(
    mean_SH: Tensor, all_S1: Tensor, seen_SH: Tensor, kappa_S1: Tensor, prior_SH: Tensor
) -> Tensor:
    """The factors [S, H], shrunk to their prior; `seen_SH` is overwritten."""
    factor_SH = (seen_SH * mean_SH).addcmul_(kappa_S1, prior_SH)
    expected_SH = seen_SH.mul_(all_S1)
    evident_S1 = torch.maximum(_EVIDENCE * kappa_S1, _LEAST_VISITS * all_S1)
    closed_SH = (mean_SH <= 0) & (expected_SH > evident_S1)
    factor_SH.div_(expected_SH.add_(kappa_S1)).clamp_(min=CLOSED)
    return factor_SH.masked_fill_(closed_SH, CLOSED)
