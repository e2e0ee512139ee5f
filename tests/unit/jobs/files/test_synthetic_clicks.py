"""Synthetic clicks: the same for the same line, in time order, with their own daily rhythm."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from model.durations import HOUR_MS
from stream.jobs.files.synthetic_clicks import (
    CLICKS_LABEL,
    cached_clicks,
    synthesize_clicks,
)
from tests.support.samples import small_orders


@pytest.fixture(scope="module")
def orders() -> pl.DataFrame:
    return small_orders(4_000, hours=24 * 21)


@pytest.fixture(scope="module")
def clicks(orders: pl.DataFrame) -> pl.DataFrame:
    return synthesize_clicks(orders)


def test_the_same_seed_gives_the_same_clicks_another_seed_others(
    orders: pl.DataFrame, clicks: pl.DataFrame
) -> None:
    assert clicks.equals(synthesize_clicks(orders))
    assert not clicks.equals(synthesize_clicks(orders, seed=8))


def test_clicks_of_some_lines_are_some_of_the_clicks_of_all(
    orders: pl.DataFrame, clicks: pl.DataFrame
) -> None:
    some = orders.filter(pl.col("sku") == "10000A")
    until = some["ts"].to_numpy().max()

    expected = clicks.filter((pl.col("sku") == "10000A") & (pl.col("ts") <= until))

    assert synthesize_clicks(some).equals(expected)


def test_clicks_are_sorted_and_their_ids_unique(clicks: pl.DataFrame) -> None:
    assert clicks.columns == ["event_id", "ts", "sku", "action", "visitor_id", "price"]
    assert clicks["ts"].is_sorted()
    assert clicks["event_id"].is_unique().all()


def test_every_sale_has_one_purchase_at_its_time_and_returns_have_none(
    orders: pl.DataFrame, clicks: pl.DataFrame
) -> None:
    sales = orders.filter(pl.col("quantity") > 0).select("sku", "ts", price="unit_price")
    purchases = clicks.filter(pl.col("action") == "purchase").select("sku", "ts", "price")

    assert purchases.sort(pl.all()).equals(sales.sort(pl.all()))


def test_a_buyer_views_and_fills_the_cart_before_the_purchase(clicks: pl.DataFrame) -> None:
    line = pl.col("event_id").str.replace(r"-\d+$", "")
    paths = clicks.with_columns(line=line, bought=pl.col("action") == "purchase")
    buyers = paths.filter(pl.col("bought")).select("line", "visitor_id", sold="ts")
    own = paths.join(buyers, on=["line", "visitor_id"]).filter(~pl.col("bought"))

    assert (own["ts"] < own["sold"]).all()
    counts = own.group_by("line").agg(
        carts=(pl.col("action") == "cart").sum(), views=(pl.col("action") == "view").sum()
    )
    assert (counts["carts"] == 1).all()
    assert (counts["views"] >= 1).all()


def test_four_to_six_clicks_a_line_most_of_them_views(
    orders: pl.DataFrame, clicks: pl.DataFrame
) -> None:
    assert 4 <= clicks.height / orders.height <= 6
    share = dict(clicks["action"].value_counts(normalize=True).rows())
    assert share["view"] > 0.5 > share["cart"] > share["remove"] > 0.005


def test_people_browse_most_in_the_evening_and_least_at_night(clicks: pl.DataFrame) -> None:
    """Measured on visitors who never buy."""
    buyers = clicks.filter(pl.col("action") == "purchase")["visitor_id"].unique()
    browsing = clicks.filter(~pl.col("visitor_id").is_in(buyers.implode()))
    hour = (browsing["ts"].to_numpy() // HOUR_MS) % 24
    by_hour = np.bincount(hour, minlength=24)

    assert by_hour[19:22].mean() > 1.5 * by_hour[10:17].mean() > 5 * by_hour[2:5].mean()


def test_one_customer_is_one_visitor_not_known_by_name(
    orders: pl.DataFrame, clicks: pl.DataFrame
) -> None:
    bought = clicks.filter(pl.col("action") == "purchase").with_columns(
        event_id=pl.col("event_id").str.extract(r"^c-(.*)-\d+$")
    )
    both = orders.filter(pl.col("customer_id").is_not_null()).join(bought, on="event_id")

    assert (
        both.group_by("customer_id").agg(pl.col("visitor_id").n_unique())["visitor_id"].max() == 1
    )
    assert (
        both.group_by("visitor_id").agg(pl.col("customer_id").n_unique())["customer_id"].max() == 1
    )
    assert not (both["visitor_id"] == "v-" + both["customer_id"]).any()


def test_no_orders_no_clicks() -> None:
    assert synthesize_clicks(small_orders(5).clear()).height == 0


def test_a_cached_file_is_labelled_and_remade_for_other_orders(tmp_path: Path) -> None:
    path = tmp_path / "made" / "clicks.parquet"
    first = cached_clicks(small_orders(50), path)

    assert pq.read_metadata(path).metadata[b"label"].decode() == CLICKS_LABEL
    assert "synthetic" in CLICKS_LABEL
    written = path.stat().st_mtime_ns
    assert cached_clicks(small_orders(50), path).equals(first)
    assert path.stat().st_mtime_ns == written, "made once"
    other = small_orders(60)
    assert cached_clicks(other, path).equals(synthesize_clicks(other))
