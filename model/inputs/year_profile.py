"""Carried profile of the year: the log of demand in each phase, averaged over the years.

A phase is a week (a bucket, if that is longer). At its end its log mean demand updates the mean of
the same phase in earlier years. A series compares like with like: the phases ahead with those just
passed, both **before** their update by this year, so growth from year to year cancels and is an
input of its own. It is shrunk by the noise of
the series; until a year and a month of history it is flat.

Axes: S = series, K = carried statistics, H = buckets ahead.
"""

import math
from typing import Final

import torch
from torch import Tensor

from model.inputs.carried_statistics import (
    AGE,
    LOCAL_ERROR,
    SLOW,
    YEAR_BEFORE,
    YEAR_BUCKETS,
    YEAR_NOW,
    YEAR_UNITS,
    YEAR_VARIANCE,
)
from model.inputs.season_layout import BucketPhases, HorizonPhases, SeasonLayout

#: Years over which a phase is averaged.
_YEARS: Final = 5.0
#: Years of history from which the profile is used.
_KNOWN: Final = 1.08
_MOST: Final = 3.0
#: Share of the squared error of a bucket that is noise; the rest is season that the level has not
#: followed.
_NOISE: Final = 0.5


def carry_year(
    stats_SK: Tensor, demand_S: Tensor, informative_S: Tensor, phases: BucketPhases,
    layout: SeasonLayout, *, slow: float,
) -> None:  # fmt: skip
    """Carry the profile over one bucket, in place; at the end of a phase it learns.

    `slow` is the span of the slow mean in buckets.
    """
    begun_S = ((stats_SK[:, AGE] > 0) & informative_S).to(stats_SK.dtype)
    count_S = stats_SK[:, YEAR_BUCKETS]
    count_S += begun_S
    units_S = stats_SK[:, YEAR_UNITS]
    units_S += begun_S * (demand_S - units_S) / count_S.clamp(min=1.0)
    if not any(phases.ends_T):
        return
    rows = phases.year if phases.year.numel() > 1 else phases.year.expand(stats_SK.shape[0])
    over_S = phases.ends & (count_S > 0)
    damp_S = 0.2 * stats_SK[:, SLOW] + count_S.clamp(min=1.0).reciprocal()
    newest_S = torch.log(units_S + damp_S)
    before_S = stats_SK.gather(1, rows[:, None])[:, 0]
    known_S = before_S != 0.0  # a phase visited before; no log of demand is exactly zero
    years_S = (stats_SK[:, AGE] / layout.per_year).round().clamp(min=1.0)
    rate_S = torch.where(known_S, 1.0 / (years_S + 1.0).clamp(max=_YEARS), 1.0)
    change_S = torch.where(over_S, rate_S * (newest_S - before_S), 0.0)
    stats_SK.scatter_add_(1, rows[:, None], change_S[:, None])
    per_phase = layout.per_year / layout.year
    least = min(1.0, per_phase / slow)

    def approach(column: int, value_S: Tensor, phases_S: Tensor, where_S: Tensor) -> None:
        share_S = phases_S.clamp(min=1.0).reciprocal().clamp(min=least) * where_S
        stats_SK[:, column].lerp_(value_S, share_S)

    phases_S = (stats_SK[:, AGE] / per_phase).ceil()
    approach(YEAR_NOW, newest_S, phases_S, over_S)
    approach(YEAR_BEFORE, before_S, phases_S - layout.year, over_S & known_S)
    profile_SY = stats_SK[:, layout.first_year : layout.first_year + layout.year]
    stats_SK[:, YEAR_VARIANCE] = torch.where(
        over_S & known_S, profile_SY.var(dim=1, correction=0), stats_SK[:, YEAR_VARIANCE]
    )
    stats_SK[:, YEAR_BUCKETS] = torch.where(over_S, 0.0, count_S)
    stats_SK[:, YEAR_UNITS] = torch.where(over_S, 0.0, units_S)


def year_known(stats_SK: Tensor, layout: SeasonLayout) -> Tensor:
    """True [S] for series whose profile of the year is used."""
    return stats_SK[:, AGE] >= _KNOWN * layout.per_year


def year_growth(stats_SK: Tensor, layout: SeasonLayout) -> Tensor:
    """Log of the latest demand over that of the same phases in earlier years [S]; 0 if unknown."""
    growth_S = (stats_SK[:, YEAR_NOW] - stats_SK[:, YEAR_BEFORE]).clamp(-_MOST, _MOST)
    return torch.where(year_known(stats_SK, layout), growth_S, 0.0)


def year_ahead(
    stats_SK: Tensor, ahead: HorizonPhases, layout: SeasonLayout
) -> tuple[Tensor, Tensor]:
    """Log factors [S, H] of the year of the buckets ahead, in two parts.

    The profile smoothed over three phases, relative to the phases just passed, and its remainder.
    """

    def read(shift: int) -> Tensor:
        columns = layout.first_year + (ahead.year + shift) % layout.year
        if columns.dim() == 1:
            return stats_SK.index_select(1, columns)
        return stats_SK.gather(1, columns)

    own_SH = read(0)
    smooth_SH = 0.5 * own_SH + 0.25 * (read(-1) + read(1))
    known_S1 = (year_known(stats_SK, layout) * year_reliability(stats_SK, layout))[:, None]
    relative_SH = (smooth_SH - stats_SK[:, YEAR_BEFORE, None]).clamp(-_MOST, _MOST)
    rest_SH = (own_SH - smooth_SH).clamp(-_MOST, _MOST)
    return known_S1 * relative_SH, known_S1 * rest_SH


def year_reliability(stats_SK: Tensor, layout: SeasonLayout) -> Tensor:
    """Share [S] of the profile's variance that is season, not noise: an empirical Bayes weight.

    Noise is what the error of a bucket leaves in the mean of a phase over the years (James & Stein
    1961; Efron & Morris 1973).
    """
    years_S = (stats_SK[:, AGE] / layout.per_year).clamp(1.0, _YEARS)
    buckets = layout.per_year / layout.year
    relative_S = stats_SK[:, LOCAL_ERROR] / stats_SK[:, SLOW].clamp(min=1e-6)
    noise_S = _NOISE * (math.pi / 2) * relative_S.square() / (buckets * years_S)
    return (1.0 - noise_S / stats_SK[:, YEAR_VARIANCE].clamp(min=1e-6)).clamp(min=0.0)
