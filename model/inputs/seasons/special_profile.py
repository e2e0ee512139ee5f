"""Carried factors of special days: each public holiday and the days around it, year by year.

All public holidays share one factor, their demand over what usual days would have had. Each slot
of a special day (`special_days.py`) has its own besides: the mean over the years of

    log((units + d) / (usual units + d)),

shrunk to the shared factor (on the days around a holiday, to 1) by an empirical Bayes weight
τ² / (τ² + noise / years) (Efron & Morris 1973), with the noise of one day of the series and a τ²
that was chosen: twice as much changes WQL on four panels by less than 0.5 %.

Axes: S = series, K = carried statistics, H = buckets ahead.
"""

import math
from typing import Final

import torch
from torch import Tensor

from model.inputs.carried_statistics import (
    AGE,
    HOLIDAY_EXPECTED,
    HOLIDAY_UNITS,
    LOCAL_ERROR,
    SLOW,
    SPECIAL_EXPECTED,
    SPECIAL_UNITS,
)
from model.inputs.seasons.season_layout import (
    BucketPhases,
    HorizonPhases,
    SeasonLayout,
    read_columns,
)

#: Memory of the shared factor in days off, and of a slot in years.
_HOLIDAYS: Final = 12.0
_YEARS: Final = 4.0
_PRIOR_UNITS: Final = 2.0
#: Variance of the log factors: of holidays around the shared one, and of the days around them.
_OWN_VARIANCE: Final = 0.15
_NEAR_VARIANCE: Final = 0.04
_MOST: Final = 4.0


def carry_special(
    stats_SK: Tensor, demand_S: Tensor, usual_S: Tensor, informative_S: Tensor,
    phases: BucketPhases, *, layout: SeasonLayout,
) -> None:  # fmt: skip
    """Carry the factors over one bucket, in place; `usual_S` is what a usual day would have had."""
    if any(phases.holiday_T):
        on_S = (phases.holiday & informative_S).to(stats_SK.dtype)
        keep_S = 1.0 - on_S / (_HOLIDAYS * layout.per_day)
        stats_SK[:, HOLIDAY_UNITS] = stats_SK[:, HOLIDAY_UNITS] * keep_S + on_S * demand_S
        stats_SK[:, HOLIDAY_EXPECTED] = stats_SK[:, HOLIDAY_EXPECTED] * keep_S + on_S * usual_S
    if not any(phases.special_T):
        return
    special = phases.special >= 0
    on_S = (special & informative_S).to(stats_SK.dtype)
    stats_SK[:, SPECIAL_UNITS] += on_S * demand_S
    stats_SK[:, SPECIAL_EXPECTED] += on_S * usual_S
    if any(phases.day_ends_T):
        _learn(stats_SK, phases, special & phases.day_ends, layout)


def _learn(stats_SK: Tensor, phases: BucketPhases, over: Tensor, layout: SeasonLayout) -> None:
    """Let the slots of the days that are over learn from them, in place."""
    units_S, usual_S = stats_SK[:, SPECIAL_UNITS], stats_SK[:, SPECIAL_EXPECTED]
    damp_S = 0.02 * usual_S + 0.5
    newest_S = torch.log((units_S + damp_S) / (usual_S + damp_S))
    column = layout.first_special + phases.special.clamp(min=0)
    rows_S1 = column.expand(stats_SK.shape[0])[:, None]
    before_S = stats_SK.gather(1, rows_S1)[:, 0]
    years_S = (stats_SK[:, AGE] / layout.per_year).floor().clamp(1.0, _YEARS - 1.0)
    rate_S = torch.where(before_S != 0.0, 1.0 / (years_S + 1.0), 1.0)
    change_S = torch.where(over & (usual_S > 0), rate_S * (newest_S - before_S), 0.0)
    stats_SK.scatter_add_(1, rows_S1, change_S[:, None])
    stats_SK[:, SPECIAL_UNITS] = torch.where(over, 0.0, units_S)
    stats_SK[:, SPECIAL_EXPECTED] = torch.where(over, 0.0, usual_S)


def special_log(stats_SK: Tensor, ahead: HorizonPhases, layout: SeasonLayout) -> Tensor:
    """Log factors [S, H] of the buckets ahead, 0 on usual days."""
    if not (ahead.any_special or ahead.any_holiday):
        return stats_SK.new_zeros(()).expand(stats_SK.shape[0], ahead.special.shape[-1])
    holiday, special = (
        part.view(-1, part.shape[-1]).t() for part in (ahead.holiday, ahead.special >= 0)
    )
    shared_HS: Tensor = holiday * _shared_log(stats_SK, layout)
    if not ahead.any_special:
        return shared_HS.t()
    columns = layout.first_special + ahead.special.clamp(min=0)
    own_HS = read_columns(stats_SK, columns)
    variance = torch.where(holiday > 0, _OWN_VARIANCE, _NEAR_VARIANCE)
    relative_S = stats_SK[:, LOCAL_ERROR] / stats_SK[:, SLOW].clamp(min=1e-6)
    years_S = (stats_SK[:, AGE] / layout.per_year).floor().clamp(1.0, _YEARS)
    noise_S = (math.pi / 2) * relative_S.square() / (layout.per_day * years_S)
    weight_HS = variance / (variance + noise_S)
    known_HS = special & (own_HS != 0.0)
    return (shared_HS + torch.where(known_HS, weight_HS * (own_HS - shared_HS), 0.0)).t()


def special_log_of(stats_SK: Tensor, phases: BucketPhases, layout: SeasonLayout) -> Tensor:
    """Log factor [S] of the bucket after the newest one."""
    return special_log(stats_SK, phases.ahead(layout), layout)[:, 0]


def _shared_log(stats_SK: Tensor, layout: SeasonLayout) -> Tensor:
    """Log of the shared factor [S], shrunk to 0 as by half a usual day and two units."""
    prior_S = 0.5 * layout.per_day * stats_SK[:, SLOW] + _PRIOR_UNITS
    units_S = stats_SK[:, HOLIDAY_UNITS] + prior_S
    return (units_S / (stats_SK[:, HOLIDAY_EXPECTED] + prior_S)).log().clamp(-_MOST, _MOST)
