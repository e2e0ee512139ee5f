"""Partitions without events do not hold the others up."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from model.durations import HOUR_MS
from stream.settings import Settings
from tests.support.services import running_broker, settings_for
from tests.support.stack import WorkerProcess, produce, read_topic, wait_until

pytestmark = pytest.mark.integration

START_MS = 1_317_600_000_000


@pytest.fixture
def deployment(tmp_path: Path, redis_client: Redis, valkey_url: str) -> Iterator[Settings]:
    """A broker with four partitions, and an empty store."""
    with running_broker("tansu", tmp_path) as broker:
        yield settings_for(
            broker,
            tmp_path,
            kafka={"session_timeout": "4s"},
            redis={"url": valkey_url},
            window={"idle_timeout": "1s"},
        )


def test_the_total_closes_although_only_one_partition_ever_had_an_event(
    deployment: Settings, redis_client: Redis, tmp_path: Path
) -> None:
    """One SKU, no clicks at all: its closed buckets, the silent one too, and those of the total."""
    servers = deployment.kafka.bootstrap_servers
    assert servers is not None
    lines = [
        {"event_id": "e0", "ts": START_MS, "sku": "A", "quantity": 3, "unit_price": 1},
        {
            "event_id": "e1",
            "ts": START_MS + 2 * HOUR_MS,
            "sku": "A",
            "quantity": 4,
            "unit_price": 1,
        },
        {
            "event_id": "e2",
            "ts": START_MS + 3 * HOUR_MS,
            "sku": "A",
            "quantity": 4,
            "unit_price": 1,
        },
    ]
    produce(servers, "orders", [(b"A", json.dumps(line).encode()) for line in lines])
    worker = WorkerProcess(deployment, tmp_path / "worker.log")
    try:
        wait_until(
            lambda: redis_client.hget("sc2:{r}:meta", "closed_through_ms") is not None,
            "a close of the total",
        )
        wait_until(
            lambda: {b"A", b"total"} <= {r.key for r in read_topic(servers, "forecasts")},
            "a forecast of the SKU and of the total",
        )
        features = [json.loads(record.value) for record in read_topic(servers, "features")]
    finally:
        worker.kill()

    units = {
        (record["series_id"], record["bucket_start_ms"]): record["values"]["units"]
        for record in features
    }
    second = START_MS + HOUR_MS
    assert units == {
        ("A", START_MS): 3.0, ("A", second): 0.0, ("total", START_MS): 3.0, ("total", second): 0.0,
    }  # fmt: skip
