"""History written into a store: readers and workers find the contents of the files."""

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
import redis.asyncio as aioredis
from redis import Redis

from model.durations import HOUR_MS
from stream.errors import IncompatibleState, ServiceUnavailable, UsageError
from stream.ingest.restore import restore
from stream.ingest.rollups import Rollups
from stream.jobs.backfill import backfill
from stream.jobs.files.synthetic_clicks import synthesize_clicks
from stream.jobs.history.from_files import build_history
from stream.kafka.partitioner import partition_of
from stream.readside.reader import Reader
from stream.settings import Settings
from stream.state import keys
from stream.state.history import load_history
from stream.state.redis import RedisStore
from tests.support.samples import START_MS, small_catalog, small_orders

ORDERS = small_orders(3_000, hours=72)
CLICKS = synthesize_clicks(ORDERS)
CATALOG = small_catalog(ORDERS)
UNTIL_MS = START_MS + 60 * HOUR_MS
SETTINGS = Settings(kafka={"partitions": 3}, state={"retention": "2d"})
HISTORY = build_history(
    ORDERS, CLICKS, CATALOG, bucket_ms=HOUR_MS, start_ms=UNTIL_MS - 48 * HOUR_MS, end_ms=UNTIL_MS
)


def fill(client: Redis, **more: Any) -> None:
    """Write the history of the files."""
    backfill(SETTINGS, client, ORDERS, CLICKS, CATALOG, until_ms=UNTIL_MS + 1_234, **more)


@pytest.mark.parametrize("tag", [0, 1, 2, "r"])
def test_each_partition_has_its_series_bit_for_bit(redis_client: Redis, tag: int | str) -> None:
    fill(redis_client)
    stored = load_history(redis_client, tag, bucket_ms=HOUR_MS)

    assert stored is not None
    assert (stored.start_ms, stored.end_ms) == (HISTORY.start_ms, HISTORY.end_ms)
    for name, sku in zip(HISTORY.series, HISTORY.skus, strict=True):
        home = "r" if not sku else partition_of(sku.encode(), 3)
        assert (name in stored.series) == (home == tag)
    slots = [HISTORY.series.index(name) for name in stored.series]
    np.testing.assert_array_equal(stored.values_TSF, HISTORY.dense(slots))


def test_only_closed_buckets_within_the_retention_are_written(
    redis_client: Redis,
) -> None:
    fill(redis_client)
    starts = {
        int(key.rpartition(b":")[2])
        for part in ("closed", "partial")
        for key in redis_client.scan_iter(match=f"sc2:*:{part}:*")
    }

    assert min(starts) >= UNTIL_MS - 48 * HOUR_MS
    assert max(starts) == UNTIL_MS - HOUR_MS
    assert not list(redis_client.scan_iter(match="sc2:*:open:*"))


def test_a_reader_shows_history_categories_and_labels_before_any_worker(
    redis_client: Redis,
) -> None:
    fill(redis_client, labels={"clicks": "synthetic clicks"})
    reader = Reader(redis_client)
    reader.refresh()
    info = reader.info()

    assert info is not None
    assert info.is_synthetic("clicks")
    assert info.partitions == 3
    assert len(reader.series()) == len(HISTORY.series)
    assert dict(reader.categories()) == dict(CATALOG.drop_nulls().iter_rows())
    total = reader.history("total", HISTORY.start_ms, HISTORY.end_ms)
    slot = HISTORY.series.index("total")
    np.testing.assert_array_equal(total.values_TF, HISTORY.dense([slot])[:, 0])


async def test_a_worker_continues_after_the_last_bucket(
    redis_client: Redis, valkey_url: str
) -> None:
    """It takes over slots, categories and frontiers, and publishes nothing again."""
    fill(redis_client)
    client = aioredis.Redis.from_url(valkey_url)
    store = RedisStore(client)
    partition = await restore(store, 1, SETTINGS.window, retention_ms=SETTINGS.state.retention)
    rollups = Rollups(store, 3, bucket_ms=HOUR_MS, retention_ms=SETTINGS.state.retention)
    unpublished = await rollups.acquire()
    again = await rollups.close()
    await client.aclose()

    assert partition.state.closed_through_ms == partition.state.emitted_through_ms == UNTIL_MS
    assert partition.state.saved_series == len(partition.state.series) > 0
    known = dict(CATALOG.drop_nulls().iter_rows())
    for sku, name in partition.state.series.category_of.items():
        assert known[sku] == name
    assert not partition.state.open
    assert rollups.closed_through_ms == UNTIL_MS
    assert unpublished == again == []
    assert set(rollups.series) == {"total", "category:bags", "category:kitchen", "category:garden"}


def test_state_is_overwritten_only_by_force(redis_client: Redis) -> None:
    fill(redis_client)
    before = sorted(redis_client.keys())

    with pytest.raises(IncompatibleState, match="--force"):
        fill(redis_client)
    assert sorted(redis_client.keys()) == before


def test_offsets_of_a_worker_are_state(redis_client: Redis) -> None:
    redis_client.hset(keys.of(2, "meta"), "offset:orders", 7)

    with pytest.raises(IncompatibleState, match="partition 2"):
        fill(redis_client)


def test_force_deletes_the_old_state_and_fences_its_worker_out(redis_client: Redis) -> None:
    redis_client.hset(keys.of(0, "meta"), mapping={"fence": 5, "offset:orders": 7})
    redis_client.rpush(keys.of(0, "series"), "old")
    redis_client.set(keys.of(0, "closed", 1), b"old")

    fill(redis_client, force=True)

    meta = redis_client.hgetall(keys.of(0, "meta"))
    assert meta[b"fence"] == b"6"
    assert b"offset:orders" not in meta
    assert b"old" not in redis_client.lrange(keys.of(0, "series"), 0, -1)
    assert redis_client.get(keys.of(0, "closed", 1)) is None


def test_a_partition_without_series_is_closed_as_well(redis_client: Redis) -> None:
    """Roll-ups wait for every partition; an empty one must not block them."""
    one = ORDERS.filter(pl.col("sku") == "10000A")
    backfill(SETTINGS, redis_client, one, until_ms=UNTIL_MS)

    throughs = {redis_client.hget(keys.of(tag, "meta"), "closed_through_ms") for tag in range(3)}
    assert throughs == {str(UNTIL_MS).encode()}


def test_without_earlier_orders_only_the_labels_are_written(
    redis_client: Redis,
) -> None:
    report = backfill(
        SETTINGS, redis_client, ORDERS, until_ms=START_MS, labels={"orders": "made up"}
    )

    assert (report.buckets, report.series) == (0, 0)
    assert redis_client.keys() == [b"sc2:info"]
    assert json.loads(redis_client.get(keys.info()) or b"")["labels"] == {"orders": "made up"}


def test_a_store_that_does_not_answer_is_one_line() -> None:
    with Redis(host="127.0.0.1", port=1) as client, pytest.raises(ServiceUnavailable) as caught:
        fill(client)
    assert "\n" not in str(caught.value)


def test_a_file_without_orders_is_refused(redis_client: Redis) -> None:
    with pytest.raises(UsageError):
        backfill(SETTINGS, redis_client, ORDERS.clear(), until_ms=UNTIL_MS)
