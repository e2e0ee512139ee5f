"""Key figures of a series over spans of event time, from its closed and open buckets.

Axes: T = closed buckets, F = features in the order of `model.contract.FEATURE_NAMES`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dashboards.snapshot import SeriesView
from model.durations import DAY_MS, HOUR_MS, MINUTE_MS
from stream.features.definitions import ORDERS, PURCHASES, REVENUE, UNITS, VIEWS
from stream.features.derived import share
from stream.readside.rolling.trailing_sums import mean_day, trailing_sums


@dataclass(frozen=True, slots=True)
class Span:
    """Sums over the last 24 h of closed buckets, and over the mean day of the seven days before.

    `conversion` is purchases per view, None without views; `mean_*` is None without a full day to
    compare with.
    """

    units: float
    revenue: float
    views: float
    conversion: float | None
    mean_units: float | None
    mean_revenue: float | None
    mean_views: float | None


def last_day(view: SeriesView) -> Span:
    """Return the sums of the last 24 h and of the mean day before."""
    end_ms = view.closed_through_ms
    sums_F = trailing_sums(view.start_T, view.values_TF, end_ms=end_ms, span_ms=DAY_MS)
    mean_F = mean_day(view.start_T, view.values_TF, end_ms=end_ms)
    return Span(
        units=float(sums_F[UNITS]),
        revenue=float(sums_F[REVENUE]),
        views=float(sums_F[VIEWS]),
        conversion=share(float(sums_F[PURCHASES]), float(sums_F[VIEWS])),
        mean_units=None if mean_F is None else float(mean_F[UNITS]),
        mean_revenue=None if mean_F is None else float(mean_F[REVENUE]),
        mean_views=None if mean_F is None else float(mean_F[VIEWS]),
    )


def open_sum(view: SeriesView, column: int) -> float:
    """Sum so far over the open buckets."""
    return float(sum(bucket.values_F[column] for bucket in view.open_buckets))


def orders_per_minute(view: SeriesView, *, bucket_ms: int, now_ms: int | None) -> float | None:
    """Order lines per minute of event time, over the last closed hour and the open bucket so far.

    `now_ms` is the newest event time; None excludes the open bucket.
    """
    span_ms = max(HOUR_MS, bucket_ms)
    recent = view.start_T >= view.closed_through_ms - span_ms
    elapsed_ms = int(recent.sum()) * bucket_ms
    orders = float(view.values_TF[recent, ORDERS].sum(dtype=np.float64))
    if now_ms is not None and now_ms > view.closed_through_ms and view.open_buckets:
        orders += open_sum(view, ORDERS)
        elapsed_ms += now_ms - view.closed_through_ms
    return orders / (elapsed_ms / MINUTE_MS) if elapsed_ms else None


def trailing_conversion(values_TF: NDArray[np.float32], *, n_buckets: int) -> NDArray[np.float64]:
    """Purchases per view over the trailing `n_buckets` buckets of each bucket; NaN without views.

    >>> values_TF = np.zeros((3, 9), np.float32)
    >>> values_TF[:, VIEWS], values_TF[:, PURCHASES] = [0, 10, 30], [0, 1, 3]
    >>> trailing_conversion(values_TF, n_buckets=2).tolist()
    [nan, 0.1, 0.1]
    """
    sums = np.cumsum(values_TF[:, [VIEWS, PURCHASES]], axis=0, dtype=np.float64)
    sums[n_buckets:] -= sums[:-n_buckets].copy() if n_buckets < len(sums) else 0
    views_T, purchases_T = sums[:, 0], sums[:, 1]
    conversion_T = np.full(len(sums), np.nan)
    np.divide(purchases_T, views_T, out=conversion_T, where=views_T > 0)
    return conversion_T
