"""A lost store is rebuilt from its archive: workers continue, and every event counts once."""

from functools import partial
from pathlib import Path
from typing import Any

from redis import Redis

from model.durations import HOUR_MS
from stream.jobs.archive.export import archive
from stream.state import keys
from tests.support.deployments import PARTITIONS, Deployment
from tests.support.stack import (
    order_records,
    produce,
    real_lines,
    recount,
    stored_counts,
    stored_features,
    wait_until,
)


def progress(redis: Redis, name: str) -> list[int]:
    """A meta field of every partition; 0 where it is missing."""
    found: list[Any] = [redis.hget(keys.of(p, "meta"), name) for p in range(PARTITIONS)]
    return [int(value or 0) for value in found]


def read_through(redis: Redis, total: int, *, after_ms: int) -> bool:
    """True if `total` records have a verdict and buckets beyond `after_ms` are rolled up."""
    rolled_up: Any = redis.hget(keys.of("r", "meta"), "closed_through_ms") or 0
    through_ms = min(progress(redis, "closed_through_ms"))
    return (
        sum(progress(redis, "offset:orders")) == total and int(rolled_up) == through_ms > after_ms
    )


def closed_blocks(redis: Redis) -> dict[bytes, Any]:
    """Every closed block, including roll-ups."""
    return {key: redis.get(key) for key in redis.scan_iter("sc2:*:closed:*")}


def test_workers_continue_from_an_archive_and_count_every_event_once(
    deployment: Deployment, redis_client: Redis, tmp_path: Path
) -> None:
    """The store is emptied while a bucket is open; only the archive and the broker are left."""
    lines = real_lines(12_000)
    records = order_records(lines)
    folder = str(tmp_path / "archive")
    worker = deployment.start()
    total = end_ms = 0
    for stop in (5_000, 9_000):
        total += produce(deployment.servers, "orders", records[total:stop])
        done = partial(read_through, redis_client, total, after_ms=end_ms)
        wait_until(done, "closing the buckets of all lines")
        end_ms = archive(redis_client, folder).through_ms or 0
    assert worker.stop() == 0
    blocks = {
        key: value
        for key, value in closed_blocks(redis_client).items()
        if int(key.rpartition(b":")[2]) < end_ms
    }
    redis_client.flushdb()
    refilled = deployment.surgecast("backfill", "--from-archive", folder, check=False)
    assert (refilled.returncode, closed_blocks(redis_client)) == (0, blocks), refilled.stderr
    assert blocks

    worker = deployment.start("successor")
    total += produce(deployment.servers, "orders", records[total:])
    wait_until(partial(read_through, redis_client, total, after_ms=end_ms), "reading the rest")
    assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == recount(
        lines, bucket_ms=HOUR_MS
    )
    assert stored_counts(redis_client, PARTITIONS)["duplicate"] == 0
    assert worker.stop() == 0
