"""A history from files equals an independent recount, bit for bit."""

import numpy as np
import polars as pl
import pytest

from model.contract import FEATURE_NAMES, SUM_NAMES
from model.durations import HOUR_MS
from stream.errors import UsageError
from stream.jobs.files.synthetic_clicks import synthesize_clicks
from stream.jobs.history.from_files import build_history
from stream.jobs.history.sparse_history import SparseHistory
from tests.support.samples import START_MS, small_catalog, small_orders


@pytest.fixture(scope="module")
def orders() -> pl.DataFrame:
    return small_orders(3_000)


@pytest.fixture(scope="module")
def clicks(orders: pl.DataFrame) -> pl.DataFrame:
    return synthesize_clicks(orders)


@pytest.fixture(scope="module")
def history(orders: pl.DataFrame, clicks: pl.DataFrame) -> SparseHistory:
    return build_history(orders, clicks, small_catalog(orders), bucket_ms=HOUR_MS)


def recount(orders: pl.DataFrame, clicks: pl.DataFrame) -> pl.DataFrame:
    """Features computed by polars: a row per bucket and SKU with an event; money in 1/10,000."""
    bucket = (pl.col("ts") // HOUR_MS * HOUR_MS).alias("start")
    quantity = pl.col("quantity")
    cents = (quantity * pl.col("unit_price") * 10_000).round(0, mode="half_to_even")
    ordered = orders.group_by(bucket, "sku").agg(
        units=quantity.filter(quantity > 0).sum(),
        returns=-quantity.filter(quantity < 0).sum(),
        revenue=cents.cast(pl.Int64).sum(),
        orders=pl.len().cast(pl.Int64),
    )
    inside = clicks.filter(pl.col("ts") >= START_MS)
    clicked = inside.group_by(bucket, "sku").agg(
        *((pl.col("action") == a).sum().cast(pl.Int64).alias(f"{a}s") for a in ACTIONS),
        visitors=pl.col("visitor_id").n_unique().cast(pl.Int64),
    )
    both = ordered.join(clicked, on=["start", "sku"], how="full", coalesce=True).fill_null(0)
    return both.sort("start", "sku")


ACTIONS = ("view", "cart", "remove", "purchase")


def test_every_bucket_equals_a_recount_bit_for_bit(
    orders: pl.DataFrame, clicks: pl.DataFrame, history: SparseHistory
) -> None:
    expected = recount(orders, clicks)
    values_TSF = history.dense()
    for row in expected.iter_rows(named=True):
        t = (row["start"] - history.start_ms) // HOUR_MS
        got = values_TSF[t, history.series.index(row["sku"])]
        want = [row[name] for name in SUM_NAMES]
        want[2] = row["revenue"] / 10_000
        np.testing.assert_array_equal(got, np.array([*want, 0, 0], np.float32))
    n_skus = sum(1 for sku in history.skus if sku)
    filled = values_TSF[:, :n_skus].any(axis=2).sum()
    assert filled == expected.height, "and nothing else is filled"


def test_rollups_are_the_sums_of_their_members(
    orders: pl.DataFrame, history: SparseHistory
) -> None:
    category_of = dict(small_catalog(orders).iter_rows())
    sums_TSF = np.zeros((history.buckets, len(history.series), len(SUM_NAMES)), np.int64)
    sums_TSF[history.bucket_R, history.slot_R] = history.sums_RF
    skus = [slot for slot, sku in enumerate(history.skus) if sku]

    assert [name for name, sku in zip(history.series, history.skus, strict=True) if not sku] == [
        "total", "category:bags", "category:garden", "category:kitchen",
    ]  # fmt: skip
    total = history.series.index("total")
    np.testing.assert_array_equal(sums_TSF[:, total], sums_TSF[:, skus].sum(axis=1))
    for name in ("bags", "kitchen", "garden"):
        members = [slot for slot in skus if category_of[history.skus[slot]] == name]
        np.testing.assert_array_equal(
            sums_TSF[:, history.series.index(f"category:{name}")],
            sums_TSF[:, members].sum(axis=1),
        )


def test_the_order_of_lines_and_duplicates_change_nothing(
    orders: pl.DataFrame, clicks: pl.DataFrame, history: SparseHistory
) -> None:
    twice = pl.concat([orders, orders.head(500)]).sample(fraction=1, shuffle=True, seed=3)
    shuffled = clicks.sample(fraction=1, shuffle=True, seed=4)

    again = build_history(twice, shuffled, small_catalog(orders), bucket_ms=HOUR_MS)

    assert again.series == history.series
    np.testing.assert_array_equal(again.sums_RF, history.sums_RF)
    np.testing.assert_array_equal(again.bucket_R, history.bucket_R)


def test_a_span_and_a_choice_of_series_equal_a_slice_of_the_whole(history: SparseHistory) -> None:
    slots = [3, 0, len(history.series) - 1]
    start_ms, end_ms = START_MS + 5 * HOUR_MS, START_MS + 20 * HOUR_MS

    part = history.dense(slots, start_ms=start_ms, end_ms=end_ms)

    np.testing.assert_array_equal(part, history.dense()[5:20][:, slots])


def test_bounds_cut_the_events(orders: pl.DataFrame) -> None:
    start_ms, end_ms = START_MS + 10 * HOUR_MS, START_MS + 12 * HOUR_MS
    history = build_history(orders, bucket_ms=HOUR_MS, start_ms=start_ms, end_ms=end_ms)
    inside = orders.filter(pl.col("ts").is_between(start_ms, end_ms, closed="left"))

    assert history.buckets == 2
    assert history.dense()[:, history.series.index("total"), 3].sum() == inside.height


def test_rejected_events_are_not_counted(orders: pl.DataFrame) -> None:
    bad = orders.head(6).with_columns(
        event_id=pl.Series([f"bad-{i}" for i in range(6)]),
        quantity=pl.Series([0, 1, 1, 1, 1, 10**9]),
        unit_price=pl.Series([1.0, -1.0, float("nan"), 1.0, 1.0, 1e9]),
        sku=pl.Series(["x", "x", "x", None, "total", "x"]),
    )
    clean = build_history(orders, bucket_ms=HOUR_MS)
    mixed = build_history(pl.concat([bad, orders]).sort("ts"), bucket_ms=HOUR_MS)

    assert mixed.series == clean.series
    np.testing.assert_array_equal(mixed.sums_RF, clean.sums_RF)


def test_a_location_makes_a_series_of_its_own(orders: pl.DataFrame) -> None:
    half = orders.with_columns(
        location=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("Leeds")).otherwise(None)
    )
    whole = build_history(orders, bucket_ms=HOUR_MS)
    split = build_history(half, bucket_ms=HOUR_MS)

    assert "10000A@Leeds" in split.series
    units_whole, units_split = whole.units(), split.units()
    assert units_whole[whole.series.index("10000A")] == sum(
        units_split[split.series.index(name)] for name in ("10000A", "10000A@Leeds")
    )


def test_training_takes_the_largest_series_and_all_rollups(history: SparseHistory) -> None:
    start_ms = START_MS + 24 * HOUR_MS
    dense = history.for_training(4, start_ms=start_ms)

    plain = [name for name in dense.series if ":" not in name and name != "total"]
    units = dict(zip(history.series, history.units().tolist(), strict=True))
    by_units = sorted(
        (n for n, s in zip(history.series, history.skus, strict=True) if s), key=units.__getitem__
    )
    assert set(plain) == set(by_units[-4:])
    assert len(dense.series) == 4 + 4
    assert dense.start_ms == start_ms
    assert dense.values_TSF.shape == (24, 8, len(FEATURE_NAMES))


@pytest.mark.parametrize("bounds", [(START_MS + 1, None), (None, START_MS), (START_MS, START_MS)])
def test_bounds_off_the_grid_or_empty_are_refused(
    orders: pl.DataFrame, bounds: tuple[int | None, int | None]
) -> None:
    with pytest.raises(UsageError):
        build_history(orders, bucket_ms=HOUR_MS, start_ms=bounds[0], end_ms=bounds[1])


def test_without_orders_there_is_no_history(orders: pl.DataFrame) -> None:
    with pytest.raises(UsageError, match="no order line"):
        build_history(orders.clear(), bucket_ms=HOUR_MS)
