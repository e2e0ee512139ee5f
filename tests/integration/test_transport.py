"""Batches against real brokers: gaps, transactions, compression, fairness, a store that hangs."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
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
from stream.kafka.consumer_thread import BatchConsumerThread
from stream.kafka.record_batch import RecordBatch
from stream.settings import Settings
from tests.support.chaos import DurableStore
from tests.support.services import KINDS, TestBroker, running_broker, settings_for
from tests.support.stack import (
    WorkerProcess,
    committed,
    order_records,
    produce,
    real_lines,
    recount,
    statistics,
    stored_counts,
    stored_features,
    wait_until,
)

pytestmark = pytest.mark.integration

PARTITIONS = 4
needs_kafka = pytest.mark.skipif("kafka" not in KINDS, reason="KAFKA_HOME names no Apache Kafka")


@asynccontextmanager
async def fetching(servers: str, topic: str) -> AsyncIterator[Any]:
    """A function that fetches as a worker's consumer thread does, from one partition."""
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
    """Each batch begins where the one before ended, and its records lie within."""
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


async def test_headers_and_timestamps_are_within_reach(broker: TestBroker) -> None:
    """What an event needs beside its value is kept, in log order."""
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
async def test_gaps_of_compaction_are_no_losses(broker: TestBroker) -> None:
    """Offsets that compaction took away are passed over, up to the end of the topic."""
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
async def test_aborted_transactions_are_never_counted_and_committed_ones_are(
    broker: TestBroker,
) -> None:
    """Only committed records come, and reading reaches the end over markers and aborted ones."""
    if broker.embedded.kind != "kafka":
        return  # it knows no transactions
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
def kafka_deployment(tmp_path: Path, redis_client: Redis, valkey_url: str) -> Iterator[Settings]:
    """A deployment on the broker that can most."""
    with running_broker(KINDS[-1], tmp_path) as broker:
        yield deployment_settings(broker, tmp_path, valkey_url)


def deployment_settings(broker: Any, folder: Path, url: str) -> Settings:
    """Settings of a small deployment."""
    return settings_for(
        broker,
        folder,
        kafka={"partitions": PARTITIONS, "session_timeout": "6s"},
        redis={"url": url},
        window={"idle_timeout": "2s", "dedup": "7d", "allowed_lateness": "1d"},
        state={"retention": "400d"},
    )


def servers(settings: Settings) -> str:
    """Address of the broker."""
    assert settings.kafka.bootstrap_servers is not None
    return settings.kafka.bootstrap_servers


def drained(redis: Redis, counted: int) -> bool:
    """Whether so many events are counted, and nothing is left to read or publish."""
    documents = statistics(redis)
    return (
        stored_counts(redis, PARTITIONS)["counted"] == counted
        and bool(documents)
        and all(document["drained"] and document["lag"] == 0 for document in documents)
    )


async def test_a_worker_counts_what_was_committed_in_every_compression(
    kafka_deployment: Settings, redis_client: Redis, tmp_path: Path
) -> None:
    """gzip, snappy, lz4, zstd and transactions in one topic: features = recount, all committed."""
    address = servers(kafka_deployment)
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
        for taken_back in (True, False):
            await sender.begin_transaction()
            for key, value in records[5_000:]:
                line = json.loads(value) | ({"quantity": 77} if taken_back else {})
                await sender.send("orders", json.dumps(line).encode(), key)
            await (sender.abort_transaction() if taken_back else sender.commit_transaction())
        await sender.stop()
    else:
        produce(address, "orders", records[5_000:])
    worker = WorkerProcess(kafka_deployment, tmp_path / "worker.log")
    try:
        wait_until(partial(drained, redis_client, len(lines)), "draining")
        expected = recount(lines, bucket_ms=HOUR_MS)
        assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == expected
        if "kafka" in KINDS:  # two transactions of 1,000 records, a marker in each partition
            total = 5_000 + 2 * (1_000 + PARTITIONS)
            wait_until(lambda: committed(address, "surgecast", "orders") == total, "committing")
        assert worker.stop() == 0
    finally:
        worker.kill()


def test_a_hot_partition_does_not_starve_the_others(
    kafka_deployment: Settings, redis_client: Redis, tmp_path: Path
) -> None:
    """Few records beside very many are counted long before those are through."""
    line = json.loads(order_records(real_lines(1))[0][1])
    line |= {"sku": "HOT"}
    hot = [(b"HOT", json.dumps(line | {"event_id": f"h{n}"}).encode()) for n in range(50_000)]
    few = [
        (b"C%d" % n, json.dumps(line | {"event_id": f"c{n}", "sku": f"C{n}"}).encode())
        for n in range(40)
    ]
    produce(servers(kafka_deployment), "orders", hot * 6)
    produce(servers(kafka_deployment), "orders", few)
    worker = WorkerProcess(kafka_deployment, tmp_path / "worker.log")

    def counts() -> list[int]:
        return sorted(sum(stored_counts_of(redis_client, n).values()) for n in range(PARTITIONS))

    try:
        wait_until(lambda: counts()[0] > 0, "a count in every partition")
        assert counts()[-1] < len(hot) * 6
        wait_until(lambda: sum(counts()) == len(hot) * 6 + len(few), "counting all")
    finally:
        worker.kill()


def stored_counts_of(redis: Redis, number: int) -> dict[str, int]:
    """Events of one partition by topic and verdict."""
    meta: dict[Any, Any] = redis.hgetall(f"sc2:{{{number}}}:meta")
    return {k.decode(): int(v) for k, v in meta.items() if k.startswith(b"count:")}


def test_a_store_that_hangs_holds_the_input_and_all_is_counted_after(
    tmp_path: Path,
) -> None:
    """While Redis accepts and does not answer, memory stays bounded; then everything is there."""
    store = DurableStore(tmp_path / "store")
    store.start()
    try:
        with running_broker(KINDS[-1], tmp_path) as broker:
            settings = deployment_settings(broker, tmp_path, store.url)
            require_bounded(settings, store, tmp_path)
    finally:
        store.kill()


def require_bounded(settings: Settings, store: DurableStore, folder: Path) -> None:
    """Stop the store under a worker that has 750,000 records to read."""
    line = json.loads(order_records(real_lines(1))[0][1])
    worker = WorkerProcess(settings, folder / "worker.log")
    try:
        wait_until(lambda: bool(statistics(store.client)), "a worker")
        produce(servers(settings), "orders", order_records(real_lines(100)))
        wait_until(lambda: stored_counts(store.client, PARTITIONS)["counted"] == 100, "counting")
        store.signal(signal.SIGSTOP)
        values = [json.dumps(line | {"event_id": f"h{n}"}).encode() for n in range(150_000)]
        produce(servers(settings), "orders", [(line["sku"].encode(), value) for value in values])
        before = psutil.Process(worker.process.pid).memory_info().rss
        for _ in range(4):
            produce(servers(settings), "orders", [(line["sku"].encode(), v) for v in values])
        grown = psutil.Process(worker.process.pid).memory_info().rss - before
        store.signal(signal.SIGCONT)
        assert grown < 300 * 2**20
        wait_until(
            lambda: sum(stored_counts(store.client, PARTITIONS).values()) == 5 * 150_000 + 100,
            "counting all",
        )
        assert stored_counts(store.client, PARTITIONS)["counted"] == 150_000 + 100
    finally:
        worker.kill()
