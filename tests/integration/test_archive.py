"""Closed buckets to Parquet and back: nothing changes, and an interrupted run is repeated."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from redis import Redis

from model.durations import HOUR_MS
from stream.errors import IncompatibleState, ServiceUnavailable, UsageError
from stream.features.definitions import STOCK, STOCKOUT_SHARE
from stream.features.packed_block import pack_block, unpack_block
from stream.jobs.archive.export import archive
from stream.jobs.archive.history import read_archive
from stream.jobs.archive.restore import restore_archive
from stream.jobs.backfill import backfill
from stream.jobs.files.synthetic_clicks import synthesize_clicks
from stream.jobs.history.from_files import build_history
from stream.partition.stock_levels import levels_block
from stream.settings import Settings
from stream.state import keys
from tests.support.samples import START_MS, small_catalog, small_orders

ORDERS = small_orders(4_000, hours=96)
CLICKS = synthesize_clicks(ORDERS)
CATALOG = small_catalog(ORDERS).with_columns(brand=pl.lit("Acme"), price=pl.lit(2.5))
PARTITIONS = 3
TAGS = [*range(PARTITIONS), "r"]


def store_settings(retention: str = "400d") -> Settings:
    """Settings of the store to archive."""
    return Settings(kafka={"partitions": PARTITIONS}, state={"retention": retention})


def fill(client: Redis, *, hours: int, retention: str = "400d") -> None:
    """Write a store as workers leave it after `hours` closed buckets."""
    backfill(
        store_settings(retention), client, ORDERS, CLICKS, CATALOG,
        until_ms=START_MS + hours * HOUR_MS, force=True,
    )  # fmt: skip


def contents(client: Redis) -> dict[str, Any]:
    """All state of workers and readers except fences and partial sums."""
    found: dict[str, Any] = {}
    for tag in TAGS:
        found[f"{tag}:series"] = client.lrange(keys.of(tag, "series"), 0, -1)
        for name in ("categories", "listings"):
            found[f"{tag}:{name}"] = client.hgetall(keys.of(tag, name))
        meta: Any = client.hgetall(keys.of(tag, "meta"))
        found[f"{tag}:meta"] = {name: value for name, value in meta.items() if name != b"fence"}
        for key in client.scan_iter(match=keys.of(tag, "closed", "*")):
            found[key.decode()] = client.get(key)
    return found


def expected(hours: int) -> Any:
    """Dense history of the files, and its series."""
    history = build_history(
        ORDERS, CLICKS, CATALOG,
        bucket_ms=HOUR_MS, start_ms=START_MS, end_ms=START_MS + hours * HOUR_MS,
    )  # fmt: skip
    return history.dense(), history.series


def assert_archive_equals_files(path: Path, hours: int) -> None:
    """The history of the archive equals that of the files bit for bit."""
    values_TSF, series = expected(hours)
    read = read_archive(str(path))
    assert sorted(read.series) == sorted(series)
    assert (read.start_ms, read.buckets) == (START_MS, hours)
    slots = [series.index(name) for name in read.series]
    np.testing.assert_array_equal(read.values_TSF, values_TSF[:, slots])


def test_a_store_rebuilt_from_its_archive_is_identical(redis_client: Redis, tmp_path: Path) -> None:
    """Blocks with their lengths, series by slot, categories, roll-ups and frontiers."""
    fill(redis_client, hours=90)
    before = contents(redis_client)
    done = archive(redis_client, str(tmp_path))
    redis_client.flushdb()
    restored = restore_archive(store_settings(), redis_client, str(tmp_path))

    assert contents(redis_client) == before
    assert set(before["0:listings"].values()) == {b'["Acme",2.5,null]'}
    assert done.through_ms == restored.end_ms == START_MS + 90 * HOUR_MS
    assert restored.buckets == 90
    assert_archive_equals_files(tmp_path, 90)


def test_stock_is_restored_with_the_last_level_of_each_series(
    redis_client: Redis, tmp_path: Path
) -> None:
    """Blocks are identical; the level at the end is older than any reading."""
    fill(redis_client, hours=30)
    for tag in range(PARTITIONS):
        for key in redis_client.scan_iter(match=keys.of(tag, "closed", "*")):
            stored: Any = redis_client.get(key)
            values_SF = unpack_block(stored)
            values_SF[::2, STOCK], values_SF[::2, STOCKOUT_SHARE] = 7, 51 / 255
            redis_client.set(key, pack_block(values_SF))
    before = contents(redis_client)
    archive(redis_client, str(tmp_path))
    redis_client.flushdb()
    restore_archive(store_settings(), redis_client, str(tmp_path))

    assert contents(redis_client) == before
    last = keys.of(0, "closed", START_MS + 29 * HOUR_MS)
    levels: Any = redis_client.get(keys.of(0, "levels"))
    stock_S = unpack_block(before[last])[:, STOCK]
    assert set(stock_S.tolist()) == {0.0, 7.0}
    assert levels == levels_block(stock_S)


def test_an_archive_reaches_beyond_the_retention_of_the_store(
    redis_client: Redis, tmp_path: Path
) -> None:
    """The store keeps one day; the archive has all four without a gap."""
    for hours in (20, 37, 37, 60, 84, 90):
        fill(redis_client, hours=hours, retention="1d")
        archive(redis_client, str(tmp_path))

    assert_archive_equals_files(tmp_path, 90)


def test_an_interrupted_run_is_repeated_with_the_same_result(
    redis_client: Redis, tmp_path: Path
) -> None:
    """Interrupted after every day of every partition: no row more or less at the end."""
    fill(redis_client, hours=90)
    archive(redis_client, str(tmp_path / "whole"))

    def cut(tag: Any, day_ms: int) -> None:
        raise KeyboardInterrupt

    for _ in range(len(TAGS) * 4):
        with pytest.raises(KeyboardInterrupt):
            archive(redis_client, str(tmp_path / "cut"), progress=cut)
    again = archive(redis_client, str(tmp_path / "cut"))

    assert again.rows == 0
    names = sorted(path.relative_to(tmp_path / "whole") for path in parts(tmp_path / "whole"))
    assert names == sorted(path.relative_to(tmp_path / "cut") for path in parts(tmp_path / "cut"))
    for name in names:
        whole, cut_off = (pl.read_parquet(tmp_path / kind / name) for kind in ("whole", "cut"))
        assert whole.equals(cut_off)
    assert_archive_equals_files(tmp_path / "cut", 90)


def parts(folder: Path) -> list[Path]:
    """The Parquet files of an archive."""
    return sorted(folder.glob("bucket_date=*/part-*.parquet"))


def test_any_parquet_reader_reads_days_and_columns(redis_client: Redis, tmp_path: Path) -> None:
    """Hive partitions by date; one row for each series and bucket that is not zero."""
    fill(redis_client, hours=90)
    archive(redis_client, str(tmp_path))
    table = pl.read_parquet(f"{tmp_path}/bucket_date=*/*.parquet", hive_partitioning=True)

    assert table["bucket_date"].n_unique() == 4
    assert not table.select("series_id", "bucket_start_ms").is_duplicated().any()
    lines = ORDERS.filter(pl.col("ts") < START_MS + 90 * HOUR_MS)
    total = table.filter(series_id="total")
    assert total["orders"].sum() == lines.height
    sold = lines.filter(pl.col("quantity") > 0)["quantity"].sum()
    assert table.filter(pl.col("series_id").is_in(ORDERS["sku"].implode()))["units"].sum() == sold


def test_buckets_deleted_before_a_run_are_a_gap_not_zeros(
    redis_client: Redis, tmp_path: Path
) -> None:
    """Readers get the buckets after the gap, and an error for those within."""
    fill(redis_client, hours=20, retention="1d")
    archive(redis_client, str(tmp_path))
    fill(redis_client, hours=90, retention="1d")
    done = archive(redis_client, str(tmp_path))
    read = read_archive(str(tmp_path))

    assert done.gaps == len(TAGS) * (90 - 24 - 20)
    assert (read.start_ms, read.buckets) == (START_MS + 66 * HOUR_MS, 24)
    with pytest.raises(UsageError, match="without a gap"):
        read_archive(str(tmp_path), START_MS)


def test_a_history_for_training_has_the_rollups_and_the_largest_series(
    redis_client: Redis, tmp_path: Path
) -> None:
    fill(redis_client, hours=90)
    archive(redis_client, str(tmp_path))
    history = build_history(
        ORDERS, CLICKS, CATALOG,
        bucket_ms=HOUR_MS, start_ms=START_MS, end_ms=START_MS + 90 * HOUR_MS,
    )  # fmt: skip
    wanted = history.for_training(5, start_ms=START_MS + 40 * HOUR_MS)
    read = read_archive(str(tmp_path), largest=5, max_span_ms=50 * HOUR_MS)
    rollups = [name for name in history.series if name == "total" or ":" in name]

    assert set(read.series) >= set(rollups)
    assert len(read.series) == len(rollups) + 5
    both = [name for name in read.series if name in wanted.series]
    np.testing.assert_array_equal(
        read.values_TSF[:, [read.series.index(name) for name in both]],
        wanted.values_TSF[:, [wanted.series.index(name) for name in both]],
    )
    assert read.static_features_SX.any()
    np.testing.assert_array_equal(
        read.static_features_SX[[read.series.index(name) for name in both]],
        wanted.static_features_SX[[wanted.series.index(name) for name in both]],
    )


def test_incompatible_stores_and_archives_are_refused(redis_client: Redis, tmp_path: Path) -> None:
    """Other buckets, other partitions, a store with state, no archive, an empty store."""
    assert archive(redis_client, str(tmp_path / "new")).through_ms is None
    with pytest.raises(UsageError, match="no archive"):
        read_archive(str(tmp_path / "new"))
    fill(redis_client, hours=30)
    archive(redis_client, str(tmp_path / "a"))
    with pytest.raises(IncompatibleState, match="has state"):
        restore_archive(store_settings(), redis_client, str(tmp_path / "a"))
    daily = Settings(kafka={"partitions": PARTITIONS}, window={"bucket": "1d"})
    with pytest.raises(IncompatibleState, match="buckets of"):
        restore_archive(daily, redis_client, str(tmp_path / "a"), force=True)
    redis_client.flushdb()
    backfill(daily, redis_client, ORDERS, until_ms=START_MS + 3 * 24 * HOUR_MS)
    with pytest.raises(IncompatibleState, match="another folder"):
        archive(redis_client, str(tmp_path / "a"))
    with Redis(port=1) as away, pytest.raises(ServiceUnavailable):
        archive(away, str(tmp_path / "a"))
