"""Order documents keyed by order: split into lines, keyed by SKU, each line counted once."""

import json
import time
from typing import Any

import polars as pl
import pytest
from kafka import KafkaConsumer
from kafka.structs import OffsetAndMetadata, TopicPartition
from redis import Redis

from model.durations import DAY_MS, HOUR_MS
from stream.kafka.admin import create_topics
from stream.topics import Topic
from tests.support.deployments import PARTITIONS, Deployment, WorkerProcess
from tests.support.samples import START_MS
from tests.support.services import KINDS, Kind
from tests.support.stack import (
    committed,
    judged,
    produce,
    read_topic,
    real_lines,
    recount,
    stored_counts,
    stored_features,
    wait_until,
)

SOURCE = Topic("shop-orders", "input", DAY_MS, keyed_by="order_id")
Records = list[tuple[bytes | None, bytes | None]]


@pytest.fixture(params=KINDS)
def broker_kind(request: pytest.FixtureRequest) -> Kind:
    """Every kind of broker."""
    kind: Kind = request.param
    return kind


@pytest.fixture
def deployment_settings() -> dict[str, dict[str, Any]]:
    """A source of documents, and no late events.

    A killed router leaves the partitions of its source at different event times; the length of
    its absence must not decide what is late.
    """
    return {
        "window": {"allowed_lateness": "30d", "dedup": "30d"},
        "router": {"source": SOURCE.name},
    }


@pytest.fixture
def routed(deployment: Deployment) -> Deployment:
    """A deployment with a topic of documents."""
    create_topics(deployment.settings, [SOURCE])
    return deployment


def documents(lines: pl.DataFrame) -> tuple[Records, pl.DataFrame]:
    """Documents with at most three lines of an order, and the lines as they should be counted."""
    placed = lines.with_columns(
        chunk=pl.int_range(pl.len()).over("order_id", "ts") // 3,
    ).with_columns(
        document=pl.format("{}/{}/{}", "order_id", "ts", "chunk"),
    )
    placed = placed.with_columns(place=pl.int_range(pl.len()).over("document"))
    records: Records = []
    for group in placed.partition_by("document", maintain_order=True):
        first = group.row(0, named=True)
        columns = group.select("sku", "quantity", "unit_price")
        value = {
            "event_id": first["document"], "ts": first["ts"], "customer_id": "secret-person",
            "order_id": first["order_id"], "lines": columns.to_dicts(),
        }  # fmt: skip
        records.append((first["order_id"].encode(), json.dumps(value).encode()))
    return records, placed.with_columns(event_id=pl.format("{}:{}", "document", "place"))


def rewind(servers: str, documents: int) -> None:
    """Lower the committed offset of each partition: a crash between the acks and the commit."""
    consumer = KafkaConsumer(
        SOURCE.name, bootstrap_servers=servers, group_id="surgecast-router",
        enable_auto_commit=False, session_timeout_ms=6_000, heartbeat_interval_ms=1_000,
    )  # fmt: skip

    def owns_all() -> bool:
        consumer.poll(timeout_ms=200, max_records=1)
        return len(consumer.assignment()) == PARTITIONS

    try:
        wait_until(owns_all, "the killed router's removal from its group")
        offsets: dict[Any, Any] = {}
        for place in consumer.assignment():
            offset = max(0, (consumer.committed(place) or 0) - documents)
            offsets[place] = OffsetAndMetadata(offset, "", -1)
        consumer.commit(offsets)
    finally:
        consumer.close(autocommit=False)


def kill_midway(router: WorkerProcess, servers: str) -> None:
    """`kill -9` the router after its next commit."""
    consumer = KafkaConsumer(
        bootstrap_servers=servers, group_id="surgecast-router", enable_auto_commit=False
    )
    places = [TopicPartition(SOURCE.name, p) for p in range(PARTITIONS)]

    def done() -> int:
        return sum(consumer.committed(place) or 0 for place in places)

    before, deadline = done(), time.monotonic() + 60
    while done() == before and time.monotonic() < deadline:
        pass
    router.kill()
    consumer.close()


def test_a_killed_router_loses_no_line_and_counts_none_twice(
    routed: Deployment, redis_client: Redis
) -> None:
    """`kill -9` midway and repeated documents: features = recount."""
    lines = real_lines(60_000)
    records, expected = documents(lines)
    servers = routed.servers
    worker = routed.start()
    sent = 0
    for life in range(2):
        sent += produce(servers, SOURCE.name, records[sent : (life + 1) * len(records) // 2])
        kill_midway(routed.start(f"router-{life}", role="router"), servers)
        rewind(servers, 150)
    router = routed.start("router-last", role="router")
    wait_until(
        lambda: committed(servers, "surgecast-router", SOURCE.name) == len(records),
        "the end of the documents",
    )
    total = len(read_topic(servers, "orders"))
    wait_until(lambda: judged(redis_client, PARTITIONS) == total, "the end of the lines")
    counts = stored_counts(redis_client, PARTITIONS)

    assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == recount(
        expected, bucket_ms=HOUR_MS
    )
    assert counts["counted"] == len(lines)
    assert counts["duplicate"] == total - len(lines)
    assert counts["duplicate"] > 0
    assert router.stop() == 0
    assert worker.stop() == 0


def test_bad_documents_go_to_dead_letter_with_the_line_at_fault(
    routed: Deployment, redis_client: Redis
) -> None:
    """The good line of a partly bad document counts; no letter and no log has personal data."""
    line = {"sku": "A", "quantity": 2, "unit_price": 1.5}
    head = {"event_id": "1", "ts": START_MS, "customer_id": "secret-person"}

    def document(*lines: Any, **more: Any) -> bytes:
        return json.dumps(head | {"lines": lines} | more).encode()

    values = [
        document(line, line | {"quantity": "many"}),
        document(line, event_id="2"),
        document(event_id="3"),
        document(line, event_id="4")[:-9],
        json.dumps(head | line | {"event_id": "5"}).encode(),
    ]
    servers = routed.servers
    produce(servers, SOURCE.name, [(b"order", value) for value in values])
    routed.start()
    router = routed.start("router", role="router")
    wait_until(
        lambda: committed(servers, "surgecast-router", SOURCE.name) == len(values), "routing"
    )
    wait_until(lambda: judged(redis_client, PARTITIONS) == 3, "verdicts of three lines")
    letters = [json.loads(record.value) for record in read_topic(servers, "dead-letter")]

    assert stored_counts(redis_client, PARTITIONS)["counted"] == 3
    assert [(letter["topic"], letter["reason"]) for letter in letters] == [
        (SOURCE.name, "wrong_type"), (SOURCE.name, "no_lines"), (SOURCE.name, "malformed_json"),
    ]  # fmt: skip
    assert "lines[1]" in letters[0]["detail"]
    assert "secret-person" not in json.dumps(letters)
    assert router.stop() == 0
    assert "secret-person" not in router.log.read_text()
