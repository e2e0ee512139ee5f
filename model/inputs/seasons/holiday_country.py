"""The country whose public holidays explain the sales of a shop, found from daily totals.

The log ratio r of a day to the median of the same weekday in the eight weeks around it, less its
median over the two weeks around it (a level that moves is no holiday), is modelled as normal with
variance σ², on holidays with σ² + τ². The log likelihood ratio of a country is

    Σ over its holidays of  ½ r² (1/σ² − 1/(σ² + τ²)) − ½ log(1 + τ²/σ²),

so a holiday that shows counts for a country, and one that does not counts against it. A day counts
for at most `_MOST`, lest one odd day decide.

Axes: D = days.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.inputs.seasons.special_days import days_off

#: Countries that are tried; of those that fit about alike, earlier ones are preferred.
COUNTRIES: Final = (
    "US", "GB", "DE", "FR", "IT", "ES", "PT", "NL", "BE", "AT", "CH", "DK", "SE", "NO", "FI", "PL",
    "CZ", "SK", "HU", "RO", "GR", "IE", "TR", "RU", "UA", "BR", "MX", "AR", "CL", "CO", "PE", "EC",
    "CA", "AU", "NZ", "JP", "CN", "KR", "TW", "HK", "SG", "MY", "ID", "TH", "VN", "PH", "IN", "ZA",
    "IL", "SA", "AE",
)  # fmt: skip
#: Days of history from which a country is looked for.
LEAST_DAYS: Final = 250
_VARIANCE: Final = 0.15
_MOST: Final = 4.0
_LEAST_EVIDENCE: Final = 10.0
#: What each place in the list of countries counts against one: a prior.
_PRIOR: Final = 0.1
_CLIP: Final = 1.5
_WEEKS: Final = 4
_NEAR_DAYS: Final = 7


def likely_country(
    units_D: NDArray[np.floating], first_day: int, *, candidates: Sequence[str] = COUNTRIES
) -> str | None:
    """Country whose holidays fit daily totals from `first_day` (since 1970) on best; None if none.

    Of countries that fit about alike, one of the first. NaN is an unknown day. None as well for
    less than `LEAST_DAYS` days.

    >>> first = int(np.datetime64("2022-01-01").astype(int))
    >>> day = np.arange(first, first + 730)
    >>> off = np.isin(day, [*days_off("US", 2022), *days_off("US", 2023)])
    >>> likely_country(np.where(off, 40.0, 100.0) + day % 3, first)
    'US'
    >>> likely_country(100.0 + day % 3, first) is None
    True
    """
    if len(units_D) < LEAST_DAYS:
        return None
    ratio_D = _ratios(np.asarray(units_D, np.float64))
    known_D = ~np.isnan(ratio_D)
    if known_D.sum() < LEAST_DAYS:
        return None
    sigma = max(1.4826 * float(np.median(np.abs(ratio_D[known_D]))), 0.02)
    spread = 1 + _VARIANCE / sigma**2
    gain_D = 0.5 * (ratio_D / sigma) ** 2 * (1 - 1 / spread) - 0.5 * math.log(spread)
    gain_D = np.where(known_D, np.minimum(gain_D, _MOST), 0.0)
    years = _years(first_day, len(units_D))
    found, most = None, _LEAST_EVIDENCE
    for rank, country in enumerate(candidates):
        days = np.array([day for year in years for day in days_off(country, year)], np.int64)
        places = days[(days >= first_day) & (days < first_day + len(units_D))] - first_day
        evidence = float(gain_D[np.unique(places)].sum()) - _PRIOR * rank
        if evidence > most:
            found, most = country, evidence
    return found


def _ratios(units_D: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log ratio [D] of each day to the same weekday of the weeks around it, less the level's."""
    padded = np.pad(units_D, 7 * _WEEKS, constant_values=np.nan)
    weeks = [week for week in range(-_WEEKS, _WEEKS + 1) if week]
    around = np.stack([np.roll(padded, 7 * week) for week in weeks])
    usual = _nanmedian(around)[7 * _WEEKS : 7 * _WEEKS + len(units_D)]
    log_D = np.log((units_D + 1) / (usual + 1)).clip(-_CLIP, _CLIP)
    padded = np.pad(log_D, _NEAR_DAYS, constant_values=np.nan)
    near = np.stack([np.roll(padded, day) for day in range(-_NEAR_DAYS, _NEAR_DAYS + 1) if day])
    moved_D = _nanmedian(near)[_NEAR_DAYS : _NEAR_DAYS + len(units_D)]
    ratio_D: NDArray[np.float64] = log_D - np.nan_to_num(moved_D)
    return ratio_D


def _nanmedian(around_ND: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median of the known values of each day, NaN without any."""
    count_D = (~np.isnan(around_ND)).sum(axis=0)
    ordered_ND = np.sort(around_ND, axis=0)  # NaN last
    low_D, high_D = np.maximum(count_D - 1, 0) // 2, count_D // 2
    days = np.arange(around_ND.shape[1])
    median_D: NDArray[np.float64] = 0.5 * (
        ordered_ND[low_D, days] + ordered_ND[np.minimum(high_D, len(around_ND) - 1), days]
    )
    median_D[count_D == 0] = np.nan
    return median_D


def _years(first_day: int, days: int) -> range:
    dates = np.array([first_day, first_day + days]).astype("datetime64[D]")
    first, last = (dates.astype("datetime64[Y]").astype(np.int64) + 1970).tolist()
    return range(first, last + 1)
