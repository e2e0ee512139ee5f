"""Batches from real brokers: gaps, transactions, compression, fairness, a store that hangs."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic
from redis import Redis

from model.durations import HOUR_MS
from stream.kafka.reading.consumer_thread import BatchConsumerThread
from stream.kafka.reading.record_batch import RecordBatch
from tests.support.chaos import DurableStore
from tests.support.deployments import PARTITIONS, Deployment, merged
from tests.support.services import KINDS, Kind, TestBroker, needs_kafka, running_broker
from tests.support.stack import (
    committed,
    drained,
    judged,
    order_records,
    produce,
    real_lines,
    recount,
    statistics,
    stored_counts,
    stored_features,
    wait_until,
)

SETTINGS = {"window": {"allowed_lateness": "1d"}}


@asynccontextmanager
async def fetching(servers: str, topic: str) -> AsyncIterator[Any]:
    """A function that fetches one partition as a worker's consumer thread does."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest")
    consumer._isolation_level = "read_committed"
    await consumer.start()
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    authority = SimpleNamespace(held=frozenset())
    thread = SimpleNamespace(
        consumer=SimpleNamespace(flow_active=True, authority=authority), authority=authority
    )
    fetch = cast(Any, BatchConsumerThread)._fetch_records

    async def fetch_to(end: int) -> list[RecordBatch]:
        batches: list[RecordBatch] = []
        while not batches or batches[-1].next_offset < end:
            got = await fetch(thread, consumer, {place}, timeout=1.0)
            batches += [batch for found in got.values() for batch in found]
        return batches

    try:
        yield fetch_to
    finally:
        await consumer.stop()


def require_unbroken(batches: list[RecordBatch]) -> None:
    """Each batch begins where the last one ended and holds only offsets of its range."""
    for before, batch in pairwise(batches):
        assert batch.from_offset == before.next_offset
    for batch in batches:
        offsets = [record.offset for record in batch.records]
        assert offsets == sorted(offsets)
        assert all(batch.from_offset <= offset < batch.next_offset for offset in offsets)


def fresh_topic(broker: TestBroker, name: str, **config: str) -> None:
    """A topic of one partition."""
    with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)) as admin:
        wanted = NewTopic(name, num_partitions=1, replication_factor=1, topic_configs=config)
        admin.create_topics([wanted])
        admin.wait_for_topics([name])


async def test_records_keep_headers_and_timestamps(broker: TestBroker) -> None:
    """Headers, timestamps and values arrive in log order."""
    fresh_topic(broker, "kept")
    with closing(KafkaProducer(bootstrap_servers=broker.bootstrap_servers)) as producer:
        for n in range(5):
            producer.send(
                "kept", key=b"k%d" % n, value=b"v%d" % n, timestamp_ms=1_000 + n,
                headers=[("trace", b"t%d" % n)],
            )  # fmt: skip
        producer.flush()
    async with fetching(broker.bootstrap_servers, "kept") as fetch_to:
        batches = await fetch_to(5)

    records = [record for batch in batches for record in batch.records]
    assert [record.value for record in records] == [b"v%d" % n for n in range(5)]
    assert [record.timestamp for record in records] == [1_000 + n for n in range(5)]
    headers = [list(record.headers) for record in records]
    assert headers == [[("trace", b"t%d" % n)] for n in range(5)]
    assert batches[-1].newest_timestamp_ms == 1_004
    require_unbroken(batches)


@needs_kafka
async def test_compaction_leaves_gaps_not_losses(broker: TestBroker) -> None:
    """Offsets that compaction removed are skipped, up to the end of the topic."""
    if broker.embedded.kind != "kafka":
        return  # it does not compact
    fresh_topic(
        broker, "compacted",
        **{"cleanup.policy": "compact", "segment.bytes": "1048576", "segment.ms": "100",
           "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "200"},
    )  # fmt: skip
    total = 0
    with closing(KafkaProducer(bootstrap_servers=broker.bootstrap_servers)) as producer:
        for _ in range(10):
            for n in range(300):
                producer.send("compacted", key=b"k%d" % (n % 7), value=b"%d" % total)
                total += 1
            producer.flush()
            await asyncio.sleep(0.2)

    kept, waited_s = total, 0
    while kept == total and waited_s < 60:
        await asyncio.sleep(2)
        waited_s += 2
        async with fetching(broker.bootstrap_servers, "compacted") as fetch_to:
            batches = await fetch_to(total)
        kept = sum(map(len, batches))
    assert kept < total, "nothing was compacted"
    require_unbroken(batches)
    assert batches[0].from_offset == 0
    assert batches[-1].next_offset == total
    newest = {record.key: int(record.value) for batch in batches for record in batch.records}
    assert sorted(newest.values()) == sorted(max(range(n, 300, 7)) + total - 300 for n in range(7))


@needs_kafka
async def test_only_committed_transactions_are_read(
    broker: TestBroker,
) -> None:
    """Reading reaches the end of the topic past markers and aborted records."""
    if broker.embedded.kind != "kafka":
        return  # it has no transactions
    fresh_topic(broker, "transactional")
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, transactional_id="t", linger_ms=0
    )
    await producer.start()
    for n in range(10):
        await producer.begin_transaction()
        for m in range(20):
            await producer.send_and_wait("transactional", b"%d-%d" % (n, m))
        await (producer.abort_transaction() if n % 2 else producer.commit_transaction())
    await producer.stop()
    end = 10 * 21  # a marker ends each transaction

    async with fetching(broker.bootstrap_servers, "transactional") as fetch_to:
        batches = await fetch_to(end)
    wanted = [b"%d-%d" % (n, m) for n in range(0, 10, 2) for m in range(20)]
    assert [value for batch in batches for value in batch.values] == wanted
    assert batches[-1].next_offset == end
    require_unbroken(batches)


@pytest.fixture
def broker_kind() -> Kind:
    """The broker that supports the most."""
    return KINDS[-1]


@pytest.fixture
def deployment_settings() -> dict[str, dict[str, Any]]:
    """Order lines of a day in any order."""
    return SETTINGS


def finished(redis: Redis, counted: int) -> bool:
    """True if `counted` events are counted and nothing is left to read or publish."""
    return stored_counts(redis, PARTITIONS)["counted"] == counted and drained(redis)


async def test_a_worker_counts_committed_records_in_every_compression(
    deployment: Deployment, redis_client: Redis
) -> None:
    """gzip, snappy, lz4, zstd and transactions in one topic: features = recount, all committed."""
    address = deployment.servers
    lines = real_lines(6_000)
    records = order_records(lines)
    for n, compression in enumerate((None, "gzip", "snappy", "lz4", "zstd")):
        sender = AIOKafkaProducer(
            bootstrap_servers=address, compression_type=compression, linger_ms=50
        )
        await sender.start()
        chunk = records[n * 1_000 : (n + 1) * 1_000]
        sent = [await sender.send("orders", value, key) for key, value in chunk]
        for future in sent:
            await future
        await sender.stop()
    if "kafka" in KINDS:
        sender = AIOKafkaProducer(bootstrap_servers=address, transactional_id="shop", linger_ms=50)
        await sender.start()
        for aborted in (True, False):
            await sender.begin_transaction()
            for key, value in records[5_000:]:
                line = json.loads(value) | ({"quantity": 77} if aborted else {})
                await sender.send("orders", json.dumps(line).encode(), key)
            await (sender.abort_transaction() if aborted else sender.commit_transaction())
        await sender.stop()
    else:
        produce(address, "orders", records[5_000:])
    worker = deployment.start()
    wait_until(partial(finished, redis_client, len(lines)), "draining")
    expected = recount(lines, bucket_ms=HOUR_MS)
    assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == expected
    if "kafka" in KINDS:  # two transactions of 1,000 records, a marker in each partition
        total = 5_000 + 2 * (1_000 + PARTITIONS)
        wait_until(lambda: committed(address, "surgecast", "orders") == total, "committing")
    assert worker.stop() == 0


def test_a_hot_partition_does_not_starve_the_others(
    deployment: Deployment, redis_client: Redis
) -> None:
    """A few records are counted before a partition with very many is finished."""
    line = json.loads(order_records(real_lines(1))[0][1])
    line |= {"sku": "HOT"}
    hot = [(b"HOT", json.dumps(line | {"event_id": f"h{n}"}).encode()) for n in range(50_000)]
    few = [
        (b"C%d" % n, json.dumps(line | {"event_id": f"c{n}", "sku": f"C{n}"}).encode())
        for n in range(40)
    ]
    produce(deployment.servers, "orders", hot * 6)
    produce(deployment.servers, "orders", few)
    deployment.start()

    def counts() -> list[int]:
        return sorted(sum(stored_counts_of(redis_client, n).values()) for n in range(PARTITIONS))

    wait_until(lambda: counts()[0] > 0, "a count in every partition")
    assert counts()[-1] < len(hot) * 6
    wait_until(lambda: sum(counts()) == len(hot) * 6 + len(few), "counting all")


def stored_counts_of(redis: Redis, number: int) -> dict[str, int]:
    """Events of one partition by topic and verdict."""
    meta: dict[Any, Any] = redis.hgetall(f"sc2:{{{number}}}:meta")
    return {k.decode(): int(v) for k, v in meta.items() if k.startswith(b"count:")}


def test_memory_stays_bounded_while_the_store_hangs(tmp_path: Path) -> None:
    """Redis accepts and does not answer: back-pressure; afterwards every record is counted."""
    store = DurableStore(tmp_path / "store")
    store.start()
    try:
        values = merged({"redis": {"url": store.url}}, SETTINGS)
        with (
            running_broker(KINDS[-1], tmp_path, values) as broker,
            closing(Deployment(broker.settings, store.client, tmp_path)) as deployment,
        ):
            require_bounded(deployment, store)
    finally:
        store.kill()


def require_bounded(deployment: Deployment, store: DurableStore) -> None:
    """Stop the store under a worker that has 750,000 records to read."""
    line = json.loads(order_records(real_lines(1))[0][1])
    worker = deployment.start()
    wait_until(lambda: bool(statistics(store.client)), "a worker")
    produce(deployment.servers, "orders", order_records(real_lines(100)))
    wait_until(lambda: stored_counts(store.client, PARTITIONS)["counted"] == 100, "counting")
    store.signal(signal.SIGSTOP)
    values = [json.dumps(line | {"event_id": f"h{n}"}).encode() for n in range(150_000)]
    records = [(line["sku"].encode(), value) for value in values]
    produce(deployment.servers, "orders", records)
    before = psutil.Process(worker.process.pid).memory_info().rss
    for _ in range(4):
        produce(deployment.servers, "orders", records)
    grown = psutil.Process(worker.process.pid).memory_info().rss - before
    store.signal(signal.SIGCONT)
    assert grown < 300 * 2**20
    wait_until(lambda: judged(store.client, PARTITIONS) == 5 * 150_000 + 100, "counting all")
    assert stored_counts(store.client, PARTITIONS)["counted"] == 150_000 + 100
