"""A store lost and rebuilt from its archive: the workers go on, and every event counts once."""

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from redis import Redis

from model.durations import HOUR_MS
from stream.jobs.archive.export import archive
from stream.jobs.files.sample import sample_orders
from stream.settings import Settings, child_environment
from stream.state import keys
from tests.support.services import running_broker, settings_for
from tests.support.stack import (
    SURGECAST,
    WorkerProcess,
    order_records,
    produce,
    recount,
    stored_counts,
    stored_features,
    wait_until,
)

pytestmark = pytest.mark.integration

PARTITIONS = 4


@pytest.fixture
def deployment(tmp_path: Path, redis_client: Redis, valkey_url: str) -> Iterator[Settings]:
    """A broker with fresh topics, and an empty store."""
    with running_broker("tansu", tmp_path) as broker:
        yield settings_for(
            broker,
            tmp_path,
            kafka={"partitions": PARTITIONS, "session_timeout": "6s"},
            redis={"url": valkey_url},
            window={"idle_timeout": "2s", "dedup": "7d"},
            state={"retention": "400d"},
        )


def progress(redis: Redis, name: str) -> list[int]:
    """A meta field of every partition, 0 where it is missing."""
    found: list[Any] = [redis.hget(keys.of(p, "meta"), name) for p in range(PARTITIONS)]
    return [int(value or 0) for value in found]


def read_through(redis: Redis, total: int, *, after_ms: int) -> bool:
    """Whether so many records have a verdict, and buckets beyond `after_ms` are rolled up."""
    rolled_up: Any = redis.hget(keys.of("r", "meta"), "closed_through_ms") or 0
    through_ms = min(progress(redis, "closed_through_ms"))
    return (
        sum(progress(redis, "offset:orders")) == total and int(rolled_up) == through_ms > after_ms
    )


def closed_blocks(redis: Redis) -> dict[bytes, Any]:
    """Every closed block, roll-ups too."""
    return {key: redis.get(key) for key in redis.scan_iter("sc2:*:closed:*")}


def test_workers_go_on_from_an_archive_and_count_every_event_once(
    deployment: Settings, redis_client: Redis, tmp_path: Path
) -> None:
    """Real lines; the store is flushed while a bucket is open; the archive is all that is left."""
    orders = pl.read_parquet(sample_orders())
    lines = orders.filter(pl.col("ts") >= 1_317_600_000_000).sort("ts", "event_id").head(12_000)
    records = order_records(lines)
    servers = deployment.kafka.bootstrap_servers or ""
    folder = str(tmp_path / "archive")
    worker = WorkerProcess(deployment, tmp_path / "worker.log")
    total = end_ms = 0
    try:
        for stop in (5_000, 9_000):
            total += produce(servers, "orders", records[total:stop])
            done = partial(read_through, redis_client, total, after_ms=end_ms)
            wait_until(done, "closing what was sent")
            end_ms = archive(redis_client, folder).through_ms or 0
        assert worker.stop() == 0
    finally:
        worker.kill()
    blocks = {
        key: value
        for key, value in closed_blocks(redis_client).items()
        if int(key.rpartition(b":")[2]) < end_ms
    }
    redis_client.flushdb()
    refilled = subprocess.run(
        [str(SURGECAST), "backfill", "--from-archive", folder],
        env=child_environment(deployment), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (refilled.returncode, closed_blocks(redis_client)) == (0, blocks), refilled.stderr
    assert blocks

    worker = WorkerProcess(deployment, tmp_path / "again.log")
    try:
        total += produce(servers, "orders", records[total:])
        wait_until(partial(read_through, redis_client, total, after_ms=end_ms), "the rest")
        assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == recount(
            lines, bucket_ms=HOUR_MS
        )
        assert stored_counts(redis_client, PARTITIONS)["duplicate"] == 0
        assert worker.stop() == 0
    finally:
        worker.kill()
