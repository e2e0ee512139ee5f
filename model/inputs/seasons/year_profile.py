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
    REST_FOLLOWED,
    REST_MOVED,
    SLOW,
    YEAR_BEFORE,
    YEAR_BUCKETS,
    YEAR_FOLLOWED,
    YEAR_LAST,
    YEAR_MOVED,
    YEAR_NOW,
    YEAR_UNITS,
    YEAR_VARIANCE,
)
from model.inputs.seasons.season_layout import (
    BucketPhases,
    HorizonPhases,
    SeasonLayout,
    read_columns,
)

#: Years over which a phase is averaged.
_YEARS: Final = 5.0
#: Years of history from which the profile is used.
_KNOWN: Final = 1.08
_MOST: Final = 3.0
#: Phases over which it is measured how well this year follows earlier ones, and those that the
#: prior of it counts for.
_FOLLOWED: Final = 104.0
_PRIOR_PHASES: Final = 4.0
_MOST_FOLLOWED: Final = 1.2
#: Prior weight of the remainder, as a share of that of the smooth profile.
_REST_PRIOR: Final = 0.7
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
    next_S = stats_SK.gather(1, _after(rows, layout)[:, None])[:, 0]
    smooth_S = 0.5 * before_S + 0.25 * (stats_SK[:, YEAR_LAST] + next_S)
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

    def follow(column: int, value_S: Tensor, phases_S: Tensor, where_S: Tensor) -> None:
        share_S = phases_S.clamp(1.0, _FOLLOWED).reciprocal() * where_S
        stats_SK[:, column].lerp_(value_S, share_S)

    phases_S = (stats_SK[:, AGE] / per_phase).ceil()
    then_S, rest_S = smooth_S - stats_SK[:, YEAR_BEFORE], before_S - smooth_S
    now_S = newest_S - stats_SK[:, YEAR_NOW]
    both_S, seen_S = over_S & known_S & (phases_S > layout.year + 1), phases_S - layout.year - 1
    follow(YEAR_MOVED, then_S.square(), seen_S, both_S)
    follow(YEAR_FOLLOWED, then_S * now_S, seen_S, both_S)
    follow(REST_MOVED, rest_S.square(), seen_S, both_S)
    follow(REST_FOLLOWED, rest_S * now_S, seen_S, both_S)
    approach(YEAR_NOW, newest_S, phases_S, over_S)
    approach(YEAR_BEFORE, before_S, phases_S - layout.year, over_S & known_S)
    stats_SK[:, YEAR_LAST] = torch.where(over_S, before_S, stats_SK[:, YEAR_LAST])
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
    """Log factors [S, H] of the year of the buckets ahead, in two parts; [S, 1] for one phase.

    The profile smoothed over three phases, relative to the phases just passed, and its remainder.
    """

    def read(shift: int) -> Tensor:
        return read_columns(stats_SK, layout.first_year + (ahead.year + shift) % layout.year)

    own_HS = read(0)
    # the phase before the first one ahead has already learned from this year
    first = (ahead.year == ahead.year[..., :1]).view(-1, ahead.year.shape[-1]).t()
    before_HS = torch.where(first, stats_SK[:, YEAR_LAST], read(-1))
    smooth_HS = 0.5 * own_HS + 0.25 * (before_HS + read(1))
    relative_HS = (smooth_HS - stats_SK[:, YEAR_BEFORE]).clamp(-_MOST, _MOST)
    rest_HS = (own_HS - smooth_HS).clamp(-_MOST, _MOST)
    weight_S, rest_weight_S = year_weights(stats_SK, layout)
    relative_HS, rest_HS = weight_S * relative_HS, rest_weight_S * rest_HS
    if ahead.year_of_H is not None and ahead.year.numel() > 1:
        relative_HS = relative_HS.index_select(0, ahead.year_of_H)
        rest_HS = rest_HS.index_select(0, ahead.year_of_H)
    return relative_HS.t(), rest_HS.t()


def year_weights(stats_SK: Tensor, layout: SeasonLayout) -> tuple[Tensor, Tensor]:
    """Weights [S] of the smooth profile and of its remainder; 0 until they are known."""
    known_S = year_known(stats_SK, layout)
    prior_S = _reliability(stats_SK, layout)
    smooth_S = _followed(stats_SK, YEAR_MOVED, YEAR_FOLLOWED, prior_S, layout)
    rest_S = _followed(stats_SK, REST_MOVED, REST_FOLLOWED, _REST_PRIOR * prior_S, layout)
    return known_S * smooth_S, known_S * rest_S


def _after(columns: Tensor, layout: SeasonLayout) -> Tensor:
    """Columns of the phases after those in `columns`."""
    return layout.first_year + (columns - layout.first_year + 1) % layout.year


def _followed(
    stats_SK: Tensor, moved: int, followed: int, prior_S: Tensor, layout: SeasonLayout
) -> Tensor:
    """Share [S] of an earlier year's movement that this year repeats: a shrunk regression."""
    per_phase = max(layout.per_year / layout.year, 1.0)
    seen_S = (stats_SK[:, AGE] / per_phase - layout.year - 1).clamp(0.0, _FOLLOWED)
    usual_S = _PRIOR_PHASES * stats_SK[:, YEAR_VARIANCE].clamp(min=1e-6)
    both_S = seen_S * stats_SK[:, followed] + usual_S * prior_S
    weight_S = both_S / (seen_S * stats_SK[:, moved] + usual_S)
    return weight_S.clamp(0.0, _MOST_FOLLOWED)


def _reliability(stats_SK: Tensor, layout: SeasonLayout) -> Tensor:
    """Share [S] of the profile's variance that is season, not noise: an empirical Bayes weight.

    Noise is what the error of a bucket leaves in the mean of a phase over the years (James & Stein
    1961; Efron & Morris 1973).
    """
    years_S = (stats_SK[:, AGE] / layout.per_year).clamp(1.0, _YEARS)
    buckets = layout.per_year / layout.year
    relative_S = stats_SK[:, LOCAL_ERROR] / stats_SK[:, SLOW].clamp(min=1e-6)
    noise_S = _NOISE * (math.pi / 2) * relative_S.square() / (buckets * years_S)
    return (1.0 - noise_S / stats_SK[:, YEAR_VARIANCE].clamp(min=1e-6)).clamp(min=0.0)
