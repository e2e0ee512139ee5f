"""Order documents under their order's key: exploded, re-keyed, and each line counted once."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from kafka import KafkaConsumer
from kafka.structs import OffsetAndMetadata, TopicPartition
from redis import Redis

from model.durations import DAY_MS, HOUR_MS
from stream.jobs.files.sample import sample_orders
from stream.kafka.admin import create_topics
from stream.settings import Settings
from stream.topics import Topic
from tests.support.services import KINDS, Kind, running_broker, settings_for
from tests.support.stack import (
    WorkerProcess,
    committed,
    produce,
    read_topic,
    recount,
    stored_counts,
    stored_features,
    wait_until,
)

pytestmark = pytest.mark.integration

PARTITIONS = 4
SOURCE = Topic("shop-orders", "input", DAY_MS, keyed_by="order_id")
Records = list[tuple[bytes | None, bytes | None]]


@pytest.fixture(params=KINDS)
def deployment(
    request: pytest.FixtureRequest, tmp_path: Path, redis_client: Redis, valkey_url: str
) -> Iterator[Settings]:
    """A broker of each kind with a topic of documents, and an empty store."""
    kind: Kind = request.param
    with running_broker(kind, tmp_path) as broker:
        settings = settings_for(
            broker,
            tmp_path,
            kafka={"partitions": PARTITIONS, "session_timeout": "6s"},
            redis={"url": valkey_url},
            # A killed router leaves its source's partitions at different times; how long it was
            # away must not decide over lateness here.
            window={"idle_timeout": "2s", "allowed_lateness": "30d", "dedup": "30d"},
            state={"retention": "400d"},
            router={"source": SOURCE.name},
        )
        create_topics(settings, [SOURCE])
        yield settings


def documents(lines: pl.DataFrame) -> tuple[Records, pl.DataFrame]:
    """Documents of at most three lines of an order, and the lines as they will be counted."""
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


def judged(redis: Redis) -> int:
    """Lines with a verdict."""
    return sum(stored_counts(redis, PARTITIONS).values())


def go_back(servers: str, documents: int) -> None:
    """Commit so many documents less in each partition: a crash between the acks and the commit."""
    consumer = KafkaConsumer(
        SOURCE.name, bootstrap_servers=servers, group_id="surgecast-router",
        enable_auto_commit=False, session_timeout_ms=6_000, heartbeat_interval_ms=1_000,
    )  # fmt: skip

    def alone() -> bool:
        consumer.poll(timeout_ms=200, max_records=1)
        return len(consumer.assignment()) == PARTITIONS

    try:
        wait_until(alone, "the killed router being missed")
        offsets: dict[Any, Any] = {}
        for place in consumer.assignment():
            offset = max(0, (consumer.committed(place) or 0) - documents)
            offsets[place] = OffsetAndMetadata(offset, "", -1)
        consumer.commit(offsets)
    finally:
        consumer.close(autocommit=False)


def kill_midway(router: WorkerProcess, servers: str) -> None:
    """`kill -9` as soon as the router has committed more than before."""
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
    deployment: Settings, redis_client: Redis, tmp_path: Path
) -> None:
    """`kill -9` on the way, and documents sent once more: features = recount."""
    orders = pl.read_parquet(sample_orders())
    lines = orders.filter(pl.col("ts") >= 1_317_600_000_000).sort("ts", "event_id").head(60_000)
    records, expected = documents(lines)
    servers = deployment.kafka.bootstrap_servers or ""
    worker = WorkerProcess(deployment, tmp_path / "worker.log")
    sent = 0
    router = None
    try:
        for life in range(2):
            sent += produce(servers, SOURCE.name, records[sent : (life + 1) * len(records) // 2])
            router = WorkerProcess(deployment, tmp_path / f"router-{life}.log", role="router")
            kill_midway(router, servers)
            go_back(servers, 150)
        router = WorkerProcess(deployment, tmp_path / "router-last.log", role="router")
        wait_until(
            lambda: committed(servers, "surgecast-router", SOURCE.name) == len(records),
            "the end of the documents",
        )
        total = len(read_topic(servers, "orders"))
        wait_until(lambda: judged(redis_client) == total, "the end of the lines")
        counts = stored_counts(redis_client, PARTITIONS)

        assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == recount(
            expected, bucket_ms=HOUR_MS
        )
        assert counts["counted"] == len(lines)
        assert counts["duplicate"] == total - len(lines)
        assert counts["duplicate"] > 0
        assert router is not None
        assert router.stop() == 0
        assert worker.stop() == 0
    finally:
        worker.kill()
        if router is not None:
            router.kill()


def test_bad_documents_go_to_dead_letter_with_the_line_at_fault(
    deployment: Settings, redis_client: Redis, tmp_path: Path
) -> None:
    """The good line of a half-bad document counts; no letter and no log names a person."""
    line = {"sku": "A", "quantity": 2, "unit_price": 1.5}
    head = {"event_id": "1", "ts": 1_317_600_000_000, "customer_id": "secret-person"}

    def document(*lines: Any, **more: Any) -> bytes:
        return json.dumps(head | {"lines": lines} | more).encode()

    values = [
        document(line, line | {"quantity": "many"}),
        document(line, event_id="2"),
        document(event_id="3"),
        document(line, event_id="4")[:-9],
        json.dumps(head | line | {"event_id": "5"}).encode(),
    ]
    servers = deployment.kafka.bootstrap_servers or ""
    produce(servers, SOURCE.name, [(b"order", value) for value in values])
    worker = WorkerProcess(deployment, tmp_path / "worker.log")
    router = WorkerProcess(deployment, tmp_path / "router.log", role="router")
    try:
        wait_until(
            lambda: committed(servers, "surgecast-router", SOURCE.name) == len(values), "routing"
        )
        wait_until(lambda: judged(redis_client) == 3, "three lines")
        letters = [json.loads(record.value) for record in read_topic(servers, "dead-letter")]

        assert stored_counts(redis_client, PARTITIONS)["counted"] == 3
        assert [(letter["topic"], letter["reason"]) for letter in letters] == [
            (SOURCE.name, "wrong_type"), (SOURCE.name, "no_lines"),
            (SOURCE.name, "malformed_json"),
        ]  # fmt: skip
        assert "lines[1]" in letters[0]["detail"]
        assert "secret-person" not in json.dumps(letters)
        assert router.stop() == 0
    finally:
        router.kill()
        worker.kill()
    assert "secret-person" not in (tmp_path / "router.log").read_text()
