"""Key figures over spans of event time equal a recount."""

import numpy as np
import pytest

from dashboards.snapshot import SeriesView
from dashboards.summary import last_day, orders_per_minute
from model.durations import DAY_MS, HOUR_MS
from stream.features.definitions import ORDERS, PURCHASES, REVENUE, UNITS, VIEWS
from stream.readside.series_answers import Age, OpenSums


def view_of(n_buckets: int, *, bucket_ms: int, seed: int = 3) -> SeriesView:
    """A series with random sums in every column."""
    values_TF = np.random.default_rng(seed).integers(0, 50, (n_buckets, 9)).astype(np.float32)
    return SeriesView(
        series_id="x",
        category=None,
        start_T=np.arange(n_buckets, dtype=np.int64) * bucket_ms,
        values_TF=values_TF,
        ahead_T3=np.full((n_buckets, 3), np.nan, np.float32),
        closed_through_ms=n_buckets * bucket_ms,
        open_buckets=(OpenSums(n_buckets * bucket_ms, np.full(9, 6.0)),),
        forecast=None,
        age=Age(0, stale=False),
    )


@pytest.mark.parametrize("bucket_ms", [900_000, HOUR_MS, DAY_MS])
@pytest.mark.parametrize("days", [3, 8, 12])
def test_last_day_and_mean_day_equal_a_recount(bucket_ms: int, days: int) -> None:
    """The last 24 h and the mean of up to seven days before, for any bucket width."""
    per_day = DAY_MS // bucket_ms
    view = view_of(days * per_day, bucket_ms=bucket_ms)
    before = view.values_TF[-8 * per_day : -per_day, UNITS]

    span = last_day(view)

    assert span.units == view.values_TF[-per_day:, UNITS].sum()
    assert span.revenue == view.values_TF[-per_day:, REVENUE].sum()
    assert span.mean_units == pytest.approx(before.sum() / (len(before) / per_day))
    purchases, views = view.values_TF[-per_day:, [PURCHASES, VIEWS]].sum(axis=0)
    assert span.conversion == pytest.approx(purchases / views)


def test_less_than_two_days_are_not_compared() -> None:
    """A mean day needs one full day."""
    assert last_day(view_of(36, bucket_ms=HOUR_MS)).mean_units is None


def test_no_views_have_no_conversion() -> None:
    """Without views the conversion is None, not zero."""
    view = view_of(24, bucket_ms=HOUR_MS)
    view.values_TF[:, VIEWS] = 0

    assert last_day(view).conversion is None


def test_orders_per_minute_count_the_open_bucket_by_its_elapsed_time() -> None:
    """One closed hour and 15 minutes of the open one are 75 minutes."""
    view = view_of(30, bucket_ms=HOUR_MS)
    now_ms = view.closed_through_ms + 15 * 60_000

    rate = orders_per_minute(view, bucket_ms=HOUR_MS, now_ms=now_ms)

    assert rate == pytest.approx((view.values_TF[-1, ORDERS] + 6) / 75)
