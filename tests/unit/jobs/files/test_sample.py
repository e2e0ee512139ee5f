"""The shipped sample is clean, typed like the topics, small, and has its licence."""

import json

import polars as pl
import pytest

from stream.jobs.files.event_files import read_catalog, read_orders
from stream.jobs.files.sample import (
    REPLAY_START_MS,
    SAMPLE_LABELS,
    is_sample,
    sample_catalog,
    sample_orders,
)


@pytest.fixture(scope="module")
def orders() -> pl.DataFrame:
    return read_orders(sample_orders())


@pytest.mark.slow
def test_every_line_is_one_the_worker_accepts(orders: pl.DataFrame) -> None:
    assert orders["event_id"].is_unique().all()
    assert orders["sku"].str.contains(r"^\d{5}[A-Z]*$").all()
    assert ((orders["quantity"] != 0) & (orders["quantity"].abs() <= 2_000)).all()
    assert (orders["unit_price"] > 0).all()
    assert orders["ts"].is_sorted()
    assert "location" not in orders.columns, "a series is one SKU"


def test_no_line_is_duplicated(orders: pl.DataFrame) -> None:
    assert orders.drop("event_id").is_unique().sum() == orders.height


def test_returns_are_kept(orders: pl.DataFrame) -> None:
    returns = orders.filter(pl.col("quantity") < 0)

    assert returns.height > 10_000
    assert returns["order_id"].str.starts_with("C").all()


def test_the_catalog_has_every_sku_once_and_a_dozen_categories(orders: pl.DataFrame) -> None:
    catalog = read_catalog(sample_catalog())

    assert set(catalog["sku"]) == set(orders["sku"])
    assert catalog["sku"].is_unique().all()
    assert catalog["category"].null_count() == 0
    assert 10 <= catalog["category"].n_unique() <= 14
    assert (catalog["category"].value_counts()["count"] >= 50).all()


def test_there_is_history_before_the_replay_and_200_000_lines_after(orders: pl.DataFrame) -> None:
    assert orders.filter(pl.col("ts") < REPLAY_START_MS).height > 500_000
    assert orders.filter(pl.col("ts") >= REPLAY_START_MS).height > 200_000


def test_the_files_are_small_and_their_source_is_named(orders: pl.DataFrame) -> None:
    folder = sample_orders().parent

    assert sum(path.stat().st_size for path in folder.glob("*.parquet")) < 5_000_000
    notice = (folder / "NOTICE.md").read_text()
    assert all(word in notice for word in ("D.", "Chen", "CC BY 4.0", "synthetic", "changed"))
    report = json.loads((folder / "cleaning.json").read_text())
    dropped = sum(count for name, count in report.items() if name.startswith("dropped_"))
    assert report["lines_read"] - dropped == report["lines_kept"] == orders.height


def test_labels_mark_real_and_synthetic_inputs() -> None:
    assert SAMPLE_LABELS["orders"].startswith("real")
    assert SAMPLE_LABELS["clicks"].startswith("synthetic")
    assert is_sample(sample_orders())
    assert not is_sample(sample_catalog())
