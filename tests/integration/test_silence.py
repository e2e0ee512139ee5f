"""Partitions without events do not delay the others."""

import json

from redis import Redis

from model.durations import HOUR_MS
from tests.support.batches import order
from tests.support.deployments import Deployment
from tests.support.samples import START_MS
from tests.support.stack import produce, read_topic, wait_until


def test_the_total_closes_although_only_one_partition_ever_had_an_event(
    deployment: Deployment, redis_client: Redis
) -> None:
    """One SKU without clicks: its closed buckets, the empty one included, and the total's."""
    servers = deployment.servers
    lines = [
        order("e0", START_MS, quantity=3),
        order("e1", START_MS + 2 * HOUR_MS, quantity=4),
        order("e2", START_MS + 3 * HOUR_MS, quantity=4),
    ]
    produce(servers, "orders", [(b"A", json.dumps(line).encode()) for line in lines])
    deployment.start()
    wait_until(
        lambda: redis_client.hget("sc2:{r}:meta", "closed_through_ms") is not None,
        "a close of the total",
    )
    wait_until(
        lambda: {b"A", b"total"} <= {r.key for r in read_topic(servers, "forecasts")},
        "a forecast of the SKU and of the total",
    )
    features = [json.loads(record.value) for record in read_topic(servers, "features")]

    units = {
        (record["series_id"], record["bucket_start_ms"]): record["values"]["units"]
        for record in features
    }
    second = START_MS + HOUR_MS
    assert units == {
        ("A", START_MS): 3.0, ("A", second): 0.0, ("total", START_MS): 3.0, ("total", second): 0.0,
    }  # fmt: skip
