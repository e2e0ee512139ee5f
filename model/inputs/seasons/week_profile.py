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
from model.inputs.seasons.season_layout import (
    BucketPhases,
    HorizonPhases,
    SeasonLayout,
    read_columns,
)

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
    return _factors(stats_SK, ahead, layout).log().t()


def _factors(stats_SK: Tensor, ahead: HorizonPhases, layout: SeasonLayout) -> Tensor:
    """Factors [H, S]."""
    age_S = stats_SK[:, AGE]
    mean_S = stats_SK[:, QUARTER].clamp(min=1e-6)
    variance_S = (math.pi / 2) * stats_SK[:, ERROR].square()
    kappa_S = _PRIOR * (variance_S / mean_S).clamp(min=1.0)
    prior_HS = torch.ones(1, 1, device=stats_SK.device)

    def shrunk(columns: Tensor, *, total: int, cycle: int, phases: int, memory: float) -> Tensor:
        seen_HS = (age_S + (ahead.steps_H % cycle)[:, None]).div_(cycle).floor_()
        seen_HS.clamp_(max=memory).mul_(cycle / phases)  # visits of a phase so far
        begun_S = (age_S * phases / cycle).ceil().clamp(1, phases)
        all_S = stats_SK[:, total] / begun_S
        return _shrunk(read_columns(stats_SK, columns), all_S, seen_HS, kappa_S, prior_HS)

    if layout.day:
        prior_HS = shrunk(
            ahead.day, total=DAY_SUM, cycle=layout.per_day, phases=layout.day, memory=_DAYS
        )
    if not layout.week:
        return prior_HS.expand(ahead.steps_H.numel(), len(age_S))
    return shrunk(
        ahead.week, total=WEEK_SUM, cycle=layout.per_week, phases=layout.week, memory=_WEEKS
    )


def factor_of(stats_SK: Tensor, phases: BucketPhases, layout: SeasonLayout) -> Tensor:
    """Factor [S] of the bucket after the newest one, at its own phases."""
    return _factors(stats_SK, phases.ahead(layout), layout)[0]


def _shrunk(
    mean_HS: Tensor, all_S: Tensor, seen_HS: Tensor, kappa_S: Tensor, prior_HS: Tensor
) -> Tensor:
    """The factors [H, S], shrunk to their prior; `seen_HS` is overwritten."""
    factor_HS = (seen_HS * mean_HS).addcmul_(kappa_S, prior_HS)
    expected_HS = seen_HS.mul_(all_S)
    evident_S = torch.maximum(_EVIDENCE * kappa_S, _LEAST_VISITS * all_S)
    closed_HS = (mean_HS <= 0) & (expected_HS > evident_S)
    factor_HS.div_(expected_HS.add_(kappa_S)).clamp_(min=CLOSED)
    return factor_HS.masked_fill_(closed_HS, CLOSED)
