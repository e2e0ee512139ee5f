"""Stored offsets that do not fit the broker stop a worker with a line, and `--adopt` accepts it."""

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.structs import TopicPartition
from redis import Redis

import stream.ops.embedded
from model.durations import HOUR_MS
from stream.kafka.admin import create_topics
from stream.ops.embedded import EmbeddedBroker, embedded_broker
from stream.processes.ports import free_port
from stream.settings import Settings
from tests.support.services import KINDS, Kind, settings_for
from tests.support.stack import (
    WorkerProcess,
    order_records,
    produce,
    real_lines,
    recount,
    stored_counts,
    stored_features,
    wait_until,
)

pytestmark = pytest.mark.integration

PARTITIONS = 2
needs_kafka = pytest.mark.skipif("kafka" not in KINDS, reason="KAFKA_HOME names no Apache Kafka")


class Deployment:
    """A broker that can be stopped and started again, with a store that survives it."""

    def __init__(self, folder: Path, url: str, kind: Kind = "kafka") -> None:
        self.folder, self.kind, self.port = folder, kind, free_port()
        self._stack = ExitStack()
        self.broker = self._started()
        self.settings = settings_for(
            self.broker,
            folder,
            kafka={"partitions": PARTITIONS, "session_timeout": "6s"},
            redis={"url": url},
            window={"idle_timeout": "2s"},
            state={"retention": "400d"},
        )
        create_topics(self.settings)

    def _started(self) -> EmbeddedBroker:
        wanted = embedded_broker(Settings(data_dir=self.folder), kind=self.kind, port=self.port)
        return self._stack.enter_context(wanted)

    def stop(self) -> None:
        """Stop the broker."""
        self._stack.close()

    def start(self) -> None:
        """Start it again, on what is left of its folder."""
        self.broker = self._started()
        create_topics(self.settings)

    @property
    def servers(self) -> str:
        return self.broker.bootstrap_servers

    def recreate(self, topic: str) -> None:
        """Delete a topic, and create it anew."""
        with closing(KafkaAdminClient(bootstrap_servers=self.servers)) as admin:
            admin.delete_topics([topic])
            wait_until(lambda: topic not in admin.list_topics(), "the deletion")
        create_topics(self.settings)

    def delete_records(self, topic: str) -> None:
        """Do as retention does, with all there is."""
        ends = {TopicPartition(topic, number): -1 for number in range(PARTITIONS)}
        with closing(KafkaAdminClient(bootstrap_servers=self.servers)) as admin:
            admin.delete_records(ends)


@pytest.fixture
def deployment(tmp_path: Path, redis_client: Redis, valkey_url: str) -> Iterator[Deployment]:
    """Apache Kafka with 4,000 order lines, all counted by a worker that has stopped."""
    running = Deployment(tmp_path, valkey_url)
    try:
        count_first(running, redis_client, tmp_path)
        yield running
    finally:
        running.stop()


def count_first(running: Deployment, redis: Redis, folder: Path) -> None:
    """Count 4,000 lines and stop."""
    produce(running.servers, "orders", order_records(real_lines(4_000)))
    worker = WorkerProcess(running.settings, folder / "first.log")
    try:
        wait_until(partial(judged, redis, 4_000), "counting")
        assert worker.stop() == 0
    finally:
        worker.kill()


def judged(redis: Redis, total: int) -> bool:
    """Whether exactly `total` events have a verdict."""
    return sum(stored_counts(redis, PARTITIONS).values()) == total


def refusal(running: Deployment, log: Path) -> str:
    """The line with which a worker refuses to start; exit 1, no traceback."""
    worker = WorkerProcess(running.settings, log)
    try:
        assert worker.process.wait(timeout=60) == 1
    finally:
        worker.kill()
    text = log.read_text()
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if line.startswith("surgecast: ")]
    assert len(lines) == 1
    assert "surgecast worker --adopt" in lines[0]
    return lines[0]


def adopt(running: Deployment, redis: Redis, folder: Path, total: int) -> None:
    """`--adopt` counts on to `total`; afterwards a worker without it starts as ever."""
    before = stored_features(redis, PARTITIONS, bucket_ms=HOUR_MS)
    for name, arguments in (("adopting", ["--adopt"]), ("after", [])):
        worker = WorkerProcess(running.settings, folder / f"{name}.log", arguments)
        try:
            wait_until(partial(judged, redis, total), "counting")
            wait_until(partial(assigned, folder / f"{name}.log"), "an assignment")
            assert worker.stop() == 0
        finally:
            worker.kill()
    after = stored_features(redis, PARTITIONS, bucket_ms=HOUR_MS)
    assert before.keys() <= after.keys()


def assigned(log: Path) -> bool:
    """Whether the worker has its partitions."""
    return "partitions_assigned" in log.read_text()


@needs_kafka
def test_a_recreated_topic_is_refused_and_can_be_adopted(
    deployment: Deployment, redis_client: Redis, tmp_path: Path
) -> None:
    """Offsets of a deleted topic mean nothing in its namesake, however far that has grown."""
    deployment.recreate("orders")
    later = real_lines(9_000)[4_000:]
    produce(deployment.servers, "orders", order_records(later))

    line = refusal(deployment, tmp_path / "refused.log")
    assert re.search(r"orders-\d: offset \d+ is stored for topic id \S+, but .* recreated", line)

    adopt(deployment, redis_client, tmp_path, 9_000)
    assert stored_counts(redis_client, PARTITIONS)["counted"] == 9_000
    expected = recount(real_lines(9_000), bucket_ms=HOUR_MS)
    assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == expected


@needs_kafka
def test_a_topic_recreated_under_a_running_worker_stops_it(
    deployment: Deployment, redis_client: Redis, tmp_path: Path
) -> None:
    """It does not go on ignoring what lies below its old offset."""
    worker = WorkerProcess(deployment.settings, tmp_path / "running.log")
    try:
        wait_until(partial(assigned, tmp_path / "running.log"), "an assignment")
        deployment.recreate("orders")
        assert worker.process.wait(timeout=60) == 1
    finally:
        worker.kill()
    text = (tmp_path / "running.log").read_text()
    assert "recreated" in text
    assert "Traceback" not in text


@needs_kafka
def test_records_deleted_before_they_were_counted_are_refused(
    deployment: Deployment, redis_client: Redis, tmp_path: Path
) -> None:
    """Retention that overtook the worker is said, with how much is lost."""
    lines = real_lines(8_000)
    produce(deployment.servers, "orders", order_records(lines[4_000:7_000]))
    deployment.delete_records("orders")
    produce(deployment.servers, "orders", order_records(lines[7_000:]))

    line = refusal(deployment, tmp_path / "refused.log")
    assert re.search(r"orders-\d: offset \d+ is stored, but the earliest .* were deleted", line)

    adopt(deployment, redis_client, tmp_path, 5_000)
    assert stored_counts(redis_client, PARTITIONS)["counted"] == 5_000


@needs_kafka
def test_offsets_beyond_the_end_and_of_another_cluster_are_refused(
    deployment: Deployment,
    redis_client: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broker on an empty folder has another cluster id; without ids, its topic is too short."""
    deployment.stop()
    shutil.rmtree(tmp_path / "broker")
    monkeypatch.setattr(stream.ops.embedded, "_KAFKA_CLUSTER", "YW5vdGhlci1jbHVzdGVyLg")
    deployment.start()
    line = refusal(deployment, tmp_path / "cluster.log")
    assert re.search(r"is stored for cluster \S+, but the broker is of cluster YW5vdGhlci", line)

    for number in range(PARTITIONS):
        key = f"sc2:{{{number}}}:meta"
        ids = dict(redis_client.hscan_iter(key, "topic_id:*"))
        redis_client.hdel(key, "cluster", *ids)
    line = refusal(deployment, tmp_path / "short.log")
    assert re.search(r"orders-\d: offset \d+ is stored, but the topic ends at offset 0", line)

    produce(deployment.servers, "orders", order_records(real_lines(6_000)[4_000:]))
    adopt(deployment, redis_client, tmp_path, 6_000)
    assert stored_counts(redis_client, PARTITIONS)["counted"] == 6_000


def test_a_broker_that_lost_its_memory_is_refused(
    redis_client: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """The in-memory broker tells topic ids too: started anew beside an old store, it is refused."""
    running = Deployment(tmp_path, valkey_url, "tansu")
    try:
        count_first(running, redis_client, tmp_path)
        running.stop()
        running.start()
        assert "recreated" in refusal(running, tmp_path / "refused.log")
    finally:
        running.stop()
