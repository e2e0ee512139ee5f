"""Carried statistics of every series: mean demand, rate and size, price, clicks, age.

One row of K numbers per series, updated once per bucket and carried like the network's state. The
forecast of a series is in multiples of its **scale**: the slow carried mean of its demand with a
floor, so that counts of 0–4 units and long runs of zeros give stable inputs. Statistics start with
the first activity of a series; earlier zeros have no effect, so the length of the empty history
does not matter.

Axes: S = series, F = stored features, K = carried statistics.
"""

from typing import Final

import torch
from torch import Tensor

from model.contract import FEATURE_NAMES, SUM_NAMES

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
    "age",  # uncensored buckets since the first activity, 0 = not started
    "mean_slow",  # units per bucket over `memory_days`
    "mean_week",
    "mean_day",
    "rate",  # share of buckets with demand
    "size",  # units in a bucket with demand
    "since",  # buckets since the last demand
    "price",  # mean price paid
    "price_last",
    "views",  # views per bucket
    "visitors",
    "returns",  # units returned per bucket
    "conversion",  # orders per visitor
    "sold",  # buckets with demand so far
    "mean_quarter",  # units per bucket over 16 weeks
    "mean_year",  # units per bucket over 52 weeks
    "log_quarter",  # mean of log(1 + units) over 16 weeks: a level robust to a spike
    "square_quarter",  # mean of squared units over 16 weeks
)
(
    AGE,
    SLOW,
    WEEK,
    DAY,
    RATE,
    SIZE,
    SINCE,
    PRICE,
    PRICE_LAST,
    M_VIEWS,
    M_VISITORS,
    M_RETURNS,
    CONV,
    SOLD,
    QUARTER,
    YEAR,
    LOG_QUARTER,
    SQUARE_QUARTER,
) = range(len(STATISTICS))
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
    """Demand [S] of a bucket: the units sold; if censored, at least the slow mean.

    >>> stats = torch.zeros(1, N_STATISTICS)
    >>> stats[0, SLOW] = 3.0
    >>> demand_of(stats, torch.tensor([[1.0] + [0.0] * 8 + [1.0, 1.0]]), share=0.5).item()
    3.0
    """
    units_S = values_SF[:, UNITS]
    least_S = torch.maximum(units_S, stats_SK[:, SLOW])
    return torch.where(censored(values_SF, share=share), least_S, units_S)


def update_statistics(
    stats_SK: Tensor,
    values_SF: Tensor,
    *,
    buckets_per_day: float,
    memory_days: float,
    censored_share: float,
) -> None:
    """Carry the statistics over one closed bucket, in place.

    Means decay exponentially over their span and start as plain means: after n buckets, the new
    bucket has weight ``max(1 / n, 1 / span)``. Prices change only with sales. A censored bucket
    (see `censored`) that sold no more than the mean changes no statistic.

    >>> stats, spans = torch.zeros(1, N_STATISTICS), {"buckets_per_day": 24, "memory_days": 28}
    >>> bucket = torch.tensor([[4.0, 0, 8.0, 1, 0, 0, 0, 0, 0, 0, 0]])
    >>> update_statistics(stats, bucket, **spans, censored_share=0.5)
    >>> update_statistics(stats, torch.zeros(1, 11), **spans, censored_share=0.5)
    >>> out_of_stock = torch.tensor([[0.0] * 9 + [1.0, 1.0]])
    >>> update_statistics(stats, out_of_stock, **spans, censored_share=0.5)
    >>> stats[0, SLOW].item(), stats[0, PRICE].item(), stats[0, AGE].item()
    (2.0, 2.0, 2.0)
    """
    units_S = values_SF[:, UNITS]
    informative_S = ~censored(values_SF, share=censored_share) | (units_S > stats_SK[:, SLOW])
    started_S = (stats_SK[:, AGE] > 0) | (values_SF[:, : len(SUM_NAMES)] != 0).any(dim=1)
    stats_SK[:, AGE] += (started_S & informative_S).to(stats_SK.dtype)
    first_S = stats_SK[:, AGE].clamp(min=1.0).reciprocal()

    def share(span: float) -> Tensor:
        return first_S.clamp(min=1.0 / max(span, 1.0)) * informative_S

    slow_S = share(memory_days * buckets_per_day)
    week_S = share(7 * buckets_per_day)
    sold_S = (units_S > 0) & informative_S
    _approach(stats_SK, SLOW, units_S, slow_S)
    _approach(stats_SK, WEEK, units_S, week_S)
    _approach(stats_SK, DAY, units_S, share(buckets_per_day))
    quarter_S = share(112 * buckets_per_day)
    _approach(stats_SK, QUARTER, units_S, quarter_S)
    _approach(stats_SK, LOG_QUARTER, torch.log1p(units_S), quarter_S)
    _approach(stats_SK, SQUARE_QUARTER, units_S.square(), quarter_S)
    _approach(stats_SK, YEAR, units_S, share(364 * buckets_per_day))
    _approach(stats_SK, RATE, sold_S.to(stats_SK.dtype), slow_S)
    _approach(stats_SK, M_RETURNS, values_SF[:, RETURNS], slow_S)
    _approach(stats_SK, M_VIEWS, values_SF[:, VIEWS], week_S)
    _approach(stats_SK, M_VISITORS, values_SF[:, VISITORS], week_S)
    visitors_S = values_SF[:, VISITORS]
    ratio_S = values_SF[:, PURCHASES] / visitors_S.clamp(min=1.0)
    _approach(stats_SK, CONV, ratio_S, torch.where(visitors_S > 0, week_S, 0.0))

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


def scale_of(stats_SK: Tensor, *, floor: float) -> Tensor:
    """Scale [S] of each series in units per bucket: its slow mean, at least `floor`.

    >>> scale_of(torch.zeros(1, N_STATISTICS), floor=0.02).item()
    0.02
    """
    return stats_SK[:, SLOW].clamp(min=floor)


def started(stats_SK: Tensor) -> Tensor:
    """True [S] for series with any activity so far."""
    return stats_SK[:, AGE] > 0
