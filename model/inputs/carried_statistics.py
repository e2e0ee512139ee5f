"""Carried statistics of every series: mean demand, rate and size, price, clicks, age.

One row of K numbers per series, updated once per bucket and carried like the network's state. The
forecast of a series is in multiples of its **scale**: the slow carried mean of its demand with a
floor, so that counts of 0–4 units and long runs of zeros give stable inputs. Statistics start with
the first activity of a series; earlier zeros have no effect, so the length of the empty history
does not matter.

Axes: S = series, F = stored features, K = carried statistics.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from model.contract import FEATURE_NAMES, SUM_NAMES
from model.durations import DAY_MS

(
    UNITS,
    RETURNS,
    REVENUE,
    ORDERS,
    VIEWS,
    CARTS,
    _,
    PURCHASES,
    VISITORS,
    STOCK,
    STOCKOUT_SHARE,
) = range(len(FEATURE_NAMES))

#: Columns of the statistics, in order.
STATISTICS: Final = (
    "mean_slow",  # units per bucket over `memory_days`
    "mean_week",
    "mean_day",
    "mean_quarter",  # units per bucket over 16 weeks
    "mean_year",  # units per bucket over 52 weeks
    "log_quarter",  # mean of log(1 + units) over 16 weeks: a level robust to a spike
    "square_quarter",  # mean of squared units over 16 weeks
    "error",  # mean of |units - expected| over 16 weeks
    "local_error",  # the same with the expectation moved to the level of the last week
    "above",  # share of buckets above what was expected over 16 weeks
    "log_error",  # mean log of units over what was expected, damped, over 16 weeks
    "expected_day",  # mean of `expected`, decaying like mean_day
    "expected_week",
    "rate",  # share of buckets with demand
    "returns",  # units returned per bucket
    "views",  # views per bucket
    "visitors",
    "age",  # uncensored buckets since the first activity, 0 = not started
    "size",  # units in a bucket with demand
    "since",  # buckets since the last demand
    "price",  # mean price paid
    "price_last",
    "conversion",  # orders per visitor
    "sold",  # buckets with demand so far
    "expected",  # units expected in the newest bucket, by level and season
    "day_sum",  # sum of the profile of the day
    "week_sum",  # sum of the profile of the week
    "year_units",  # mean units per bucket in the current phase of the year
    "year_buckets",  # buckets in the current phase of the year so far
    "year_now",  # log demand of the latest phases of the year
    "year_before",  # log demand of the same phases in earlier years
    "year_last",  # log demand of the newest phase in earlier years
    "year_variance",  # variance of log demand over the phases of the year
    "year_moved",  # mean square of how far a phase was from the ones before it in earlier years
    "year_followed",  # mean product of that and how far it was this year
    "rest_moved",  # the same of the remainder that smoothing over phases leaves
    "rest_followed",
    "holiday_units",  # units on the latest public holidays, decaying
    "holiday_expected",  # units expected there as on usual days
    "special_units",  # units of the current special day so far
    "special_expected",  # units expected of it as of a usual day
)
(
    SLOW,
    WEEK,
    DAY,
    QUARTER,
    YEAR,
    LOG_QUARTER,
    SQUARE_QUARTER,
    ERROR,
    LOCAL_ERROR,
    ABOVE,
    LOG_ERROR,
    EXPECTED_DAY,
    EXPECTED_WEEK,
    RATE,
    M_RETURNS,
    M_VIEWS,
    M_VISITORS,
    AGE,
    SIZE,
    SINCE,
    PRICE,
    PRICE_LAST,
    CONV,
    SOLD,
    EXPECTED,
    DAY_SUM,
    WEEK_SUM,
    YEAR_UNITS,
    YEAR_BUCKETS,
    YEAR_NOW,
    YEAR_BEFORE,
    YEAR_LAST,
    YEAR_VARIANCE,
    YEAR_MOVED,
    YEAR_FOLLOWED,
    REST_MOVED,
    REST_FOLLOWED,
    HOLIDAY_UNITS,
    HOLIDAY_EXPECTED,
    SPECIAL_UNITS,
    SPECIAL_EXPECTED,
) = range(len(STATISTICS))
#: The means that decay over a span come first.
_N_MEANS: Final = AGE
N_STATISTICS: Final = len(STATISTICS)


def _approach(stats_SK: Tensor, column: int, value_S: Tensor, share_S: Tensor) -> None:
    stats_SK[:, column].lerp_(value_S, share_S)


def censored(values: Tensor, *, share: float) -> Tensor:
    """Mark buckets [...] of `values` [..., F] that were without stock for `share` of their time.

    A bucket with unknown stock is not censored.

    >>> censored(torch.tensor([[0.0] * 9 + [1.0, 0.5], [0.0] * 11]), share=0.5).tolist()
    [True, False]
    """
    return (values[..., STOCK] > 0) & (values[..., STOCKOUT_SHARE] >= share)


def demand_of(stats_SK: Tensor, values_SF: Tensor, *, share: float) -> Tensor:
    """Demand [S] of the newest bucket: the units sold; if censored, at least those expected.

    >>> stats = torch.zeros(1, N_STATISTICS)
    >>> stats[0, EXPECTED] = 3.0
    >>> demand_of(stats, torch.tensor([[1.0] + [0.0] * 8 + [1.0, 1.0]]), share=0.5).item()
    3.0
    """
    units_S = values_SF[:, UNITS]
    least_S = torch.maximum(units_S, stats_SK[:, EXPECTED])
    return torch.where(censored(values_SF, share=share), least_S, units_S)


@dataclass(frozen=True, slots=True)
class Spans:
    """Memory of the means, in buckets; each has a minimum, so that wide buckets are averaged too.

    >>> Spans.of(bucket_ms=86_400_000, memory_days=28)
    Spans(day=1.0, week=7.0, slow=28.0, quarter=112.0, year=364.0)
    >>> Spans.of(bucket_ms=7 * 86_400_000, memory_days=28)
    Spans(day=1.0, week=3.0, slow=10.0, quarter=24.0, year=52.0)
    """

    day: float
    week: float
    slow: float
    quarter: float
    year: float

    @classmethod
    def of(cls, *, bucket_ms: int, memory_days: float) -> "Spans":
        """The spans of a bucket width and a span of the slow mean."""
        per_day = DAY_MS / bucket_ms
        return cls(
            day=max(1.0, per_day),
            week=max(3.0, 7 * per_day),
            slow=max(10.0, memory_days * per_day),
            quarter=max(24.0, 112 * per_day),
            year=max(48.0, 364 * per_day),
        )

    def least(self, device: torch.device) -> Tensor:
        """Least weight [M] of a new bucket in each of the means."""
        return _least(self, device)


@lru_cache(maxsize=16)
def _least(spans: Spans, device: torch.device) -> Tensor:
    of = (
        spans.slow, spans.week, spans.day, spans.quarter, spans.year,
        spans.quarter, spans.quarter, spans.quarter, spans.quarter, spans.quarter, spans.quarter,
        spans.day, spans.week,
        spans.slow, spans.slow, spans.week, spans.week,
    )  # fmt: skip
    return torch.tensor(of, device=device).reciprocal()


def informative(stats_SK: Tensor, values_SF: Tensor, *, censored_share: float) -> Tensor:
    """True [S] for buckets that say something about demand.

    A censored one does only if it sold more than was expected (`EXPECTED` is of this bucket).
    """
    above_S = values_SF[:, UNITS] > stats_SK[:, EXPECTED]
    return ~censored(values_SF, share=censored_share) | above_S


def update_statistics(
    stats_SK: Tensor, values_SF: Tensor, informative_S: Tensor, spans: Spans,
    *, usual_S: Tensor | None = None,
) -> None:  # fmt: skip
    """Carry the statistics over one closed bucket, in place.

    Means decay exponentially over their span and start as plain means: after n buckets, the new
    bucket has weight ``max(1 / n, 1 / span)``. Prices change only with sales. A bucket that is not
    `informative_S` changes no statistic of demand. `EXPECTED` is that of the bucket. On a special
    day `usual_S` is what would be expected of a usual one; the mean levels then take what that day
    would have had: the units sold less what was expected of its being special.

    >>> stats, spans = torch.zeros(1, N_STATISTICS), Spans.of(bucket_ms=3_600_000, memory_days=28)
    >>> bucket = torch.tensor([[4.0, 0, 8.0, 1, 0, 0, 0, 0, 0, 0, 0]])
    >>> update_statistics(stats, bucket, torch.tensor([True]), spans)
    >>> update_statistics(stats, torch.zeros(1, 11), torch.tensor([True]), spans)
    >>> update_statistics(stats, torch.zeros(1, 11), torch.tensor([False]), spans)
    >>> stats[0, SLOW].item(), stats[0, PRICE].item(), stats[0, AGE].item()
    (2.0, 2.0, 2.0)
    """
    units_S = values_SF[:, UNITS]
    started_S = (stats_SK[:, AGE] > 0) | (values_SF[:, : len(SUM_NAMES)] != 0).any(dim=1)
    stats_SK[:, AGE] += (started_S & informative_S).to(stats_SK.dtype)
    age_S = stats_SK[:, AGE]
    sold_S = (units_S > 0) & informative_S
    # nothing was expected of the first bucket
    expected_S = torch.where(age_S > 1, stats_SK[:, EXPECTED], units_S)
    error_S = units_S - expected_S
    local_S = units_S - expected_S * torch.where(age_S > 1, recent_level(stats_SK), 1.0)
    damp_S = 0.1 * stats_SK[:, SLOW] + 1e-3
    log_error_S = torch.log((units_S + damp_S) / (expected_S + damp_S))
    # a bucket as expected is as much above as below
    above_S = 0.5 + 0.5 * torch.sign(error_S)
    level_units_S, level_expected_S = units_S, expected_S
    if usual_S is not None:
        level_expected_S = torch.where(age_S > 1, usual_S, units_S)
        level_units_S = (units_S + level_expected_S - expected_S).clamp(min=0.0)
    newest_SM = torch.stack(
        (
            *[level_units_S] * 5, torch.log1p(level_units_S), units_S * units_S,
            error_S.abs(), local_S.abs(), above_S, log_error_S,
            level_expected_S, level_expected_S,
            sold_S.to(stats_SK.dtype),
            values_SF[:, RETURNS], values_SF[:, VIEWS], values_SF[:, VISITORS],
        )
    ).t()  # fmt: skip
    first_S, least_M1 = age_S.clamp(min=1.0).reciprocal_(), spans.least(stats_SK.device)[:, None]
    share_SM = torch.maximum(first_S, least_M1).mul_(informative_S).t()
    stats_SK[:, :_N_MEANS].lerp_(newest_SM, share_SM)
    visitors_S = values_SF[:, VISITORS]
    ratio_S = values_SF[:, PURCHASES] / visitors_S.clamp(min=1.0)
    _approach(stats_SK, CONV, ratio_S, torch.where(visitors_S > 0, share_SM[:, WEEK], 0.0))

    since_S = stats_SK[:, SINCE] + informative_S.to(stats_SK.dtype)
    stats_SK[:, SINCE] = torch.where(sold_S | ~started_S, 0.0, since_S)
    stats_SK[:, SOLD] += sold_S.to(stats_SK.dtype)
    seen_S = stats_SK[:, SOLD].clamp(min=1.0).reciprocal().clamp(min=1.0 / 50.0)
    _approach(stats_SK, SIZE, units_S, torch.where(sold_S, seen_S, 0.0))
    # revenue is net of returns, so it gives the price only in buckets without returns
    priced_S = sold_S & (values_SF[:, RETURNS] <= 0) & (values_SF[:, REVENUE] > 0)
    price_S = values_SF[:, REVENUE] / units_S.clamp(min=1e-6)
    unpriced_S = stats_SK[:, PRICE] <= 0
    weight_S = torch.where(unpriced_S, 1.0, seen_S)
    _approach(stats_SK, PRICE, price_S, torch.where(priced_S, weight_S, 0.0))
    stats_SK[:, PRICE_LAST] = torch.where(priced_S, price_S, stats_SK[:, PRICE_LAST])


def recent_level(stats_SK: Tensor) -> Tensor:
    """The last week over what was expected of it [S], damped; 1 for a series without demand."""
    damp_S = 0.1 * stats_SK[:, SLOW] + 1e-3
    return (stats_SK[:, WEEK] + damp_S) / (stats_SK[:, EXPECTED_WEEK] + damp_S)


def scale_of(stats_SK: Tensor, *, floor: float) -> Tensor:
    """Scale [S] of each series in units per bucket: its slow mean, at least `floor`.

    >>> scale_of(torch.zeros(1, N_STATISTICS), floor=0.02).item()
    0.02
    """
    return stats_SK[:, SLOW].clamp(min=floor)


def started(stats_SK: Tensor) -> Tensor:
    """True [S] for series with any activity so far."""
    return stats_SK[:, AGE] > 0
