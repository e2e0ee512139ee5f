"""Stored offsets of another broker or topic stop a worker; `--adopt` accepts them."""

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
from stream.processes.ports import free_port
from stream.settings import Settings
from tests.support.deployments import Deployment, merged
from tests.support.services import Kind, needs_kafka, running_broker
from tests.support.stack import (
    judged,
    order_records,
    produce,
    real_lines,
    recount,
    stored_counts,
    stored_features,
    wait_until,
)

PARTITIONS = 2


class Cluster(Deployment):
    """A deployment whose broker can be restarted; its store survives it."""

    def __init__(self, folder: Path, redis: Redis, url: str, kind: Kind = "kafka") -> None:
        self._kind, self._port = kind, free_port()
        self._values = merged({"kafka": {"partitions": PARTITIONS}, "redis": {"url": url}})
        self._broker = ExitStack()
        super().__init__(self._start_broker(folder), redis, folder)

    def _start_broker(self, folder: Path) -> Settings:
        broker = running_broker(self._kind, folder, self._values, port=self._port)
        return self._broker.enter_context(broker).settings

    def stop_broker(self) -> None:
        """Stop the broker."""
        self._broker.close()

    def restart_broker(self) -> None:
        """Start the broker on the files that are left of its folder."""
        self._start_broker(self.folder)

    def close(self) -> None:
        """Kill the workers, then stop the broker."""
        super().close()
        self.stop_broker()

    def recreate(self, topic: str) -> None:
        """Delete a topic and create it."""
        with closing(KafkaAdminClient(bootstrap_servers=self.servers)) as admin:
            admin.delete_topics([topic])
            wait_until(lambda: topic not in admin.list_topics(), "the deletion")
        create_topics(self.settings)

    def delete_records(self, topic: str) -> None:
        """Delete every record of a topic, as retention does."""
        ends = {TopicPartition(topic, number): -1 for number in range(PARTITIONS)}
        with closing(KafkaAdminClient(bootstrap_servers=self.servers)) as admin:
            admin.delete_records(ends)


@pytest.fixture
def cluster(tmp_path: Path, redis_client: Redis, valkey_url: str) -> Iterator[Cluster]:
    """Apache Kafka with 4,000 order lines, all counted by a worker that has stopped."""
    with closing(Cluster(tmp_path, redis_client, valkey_url)) as cluster:
        count_first(cluster)
        yield cluster


def count_first(cluster: Cluster) -> None:
    """Count 4,000 lines and stop."""
    produce(cluster.servers, "orders", order_records(real_lines(4_000)))
    worker = cluster.start("first")
    wait_until(partial(all_judged, cluster, 4_000), "counting")
    assert worker.stop() == 0


def all_judged(cluster: Cluster, total: int) -> bool:
    """True if exactly `total` events have a verdict."""
    return judged(cluster.redis, PARTITIONS) == total


def refusal(cluster: Cluster, name: str) -> str:
    """The only line of a worker that refuses to start; exit 1, no traceback."""
    worker = cluster.start(name)
    assert worker.process.wait(timeout=90) == 1
    text = worker.log.read_text()
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if line.startswith("surgecast: ")]
    assert len(lines) == 1
    assert "surgecast worker --adopt" in lines[0]
    return lines[0]


def adopt(cluster: Cluster, total: int) -> None:
    """A worker with `--adopt` counts on to `total`; then one without it starts normally."""
    before = stored_features(cluster.redis, PARTITIONS, bucket_ms=HOUR_MS)
    for name, arguments in (("adopting", ["--adopt"]), ("after", [])):
        worker = cluster.start(name, arguments)
        wait_until(partial(all_judged, cluster, total), "counting")
        wait_until(partial(assigned, worker.log), "an assignment")
        assert worker.stop() == 0
    after = stored_features(cluster.redis, PARTITIONS, bucket_ms=HOUR_MS)
    assert before.keys() <= after.keys()


def assigned(log: Path) -> bool:
    """True if the worker has its partitions."""
    return "partitions_assigned" in log.read_text()


@needs_kafka
def test_a_recreated_topic_is_refused_and_can_be_adopted(
    cluster: Cluster, redis_client: Redis
) -> None:
    """Offsets of a deleted topic are invalid in a new topic of its name, however long that is."""
    cluster.recreate("orders")
    later = real_lines(9_000)[4_000:]
    produce(cluster.servers, "orders", order_records(later))

    line = refusal(cluster, "refused")
    assert re.search(r"orders-\d: offset \d+ is stored for topic id \S+, but .* recreated", line)

    adopt(cluster, 9_000)
    assert stored_counts(redis_client, PARTITIONS)["counted"] == 9_000
    expected = recount(real_lines(9_000), bucket_ms=HOUR_MS)
    assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == expected


@needs_kafka
def test_a_topic_recreated_under_a_running_worker_stops_it(
    cluster: Cluster, redis_client: Redis
) -> None:
    """It must not ignore the new topic's records below its old offset."""
    worker = cluster.start("running")
    wait_until(partial(assigned, worker.log), "an assignment")
    cluster.recreate("orders")
    assert worker.process.wait(timeout=90) == 1
    text = worker.log.read_text()
    assert "recreated" in text
    assert "Traceback" not in text


@needs_kafka
def test_records_deleted_before_they_were_counted_are_refused(
    cluster: Cluster, redis_client: Redis
) -> None:
    """Retention that overtook the worker is reported with the number of lost records."""
    lines = real_lines(8_000)
    produce(cluster.servers, "orders", order_records(lines[4_000:7_000]))
    cluster.delete_records("orders")
    produce(cluster.servers, "orders", order_records(lines[7_000:]))

    line = refusal(cluster, "refused")
    assert re.search(r"orders-\d: offset \d+ is stored, but the earliest .* were deleted", line)

    adopt(cluster, 5_000)
    assert stored_counts(redis_client, PARTITIONS)["counted"] == 5_000


@needs_kafka
def test_offsets_beyond_the_end_and_of_another_cluster_are_refused(
    cluster: Cluster,
    redis_client: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broker on an empty folder has another cluster id; without ids, its topic is too short."""
    cluster.stop_broker()
    shutil.rmtree(tmp_path / "broker")
    monkeypatch.setattr(stream.ops.embedded, "_KAFKA_CLUSTER", "YW5vdGhlci1jbHVzdGVyLg")
    cluster.restart_broker()
    line = refusal(cluster, "other-cluster")
    assert re.search(r"is stored for cluster \S+, but the broker is of cluster YW5vdGhlci", line)

    for number in range(PARTITIONS):
        key = f"sc2:{{{number}}}:meta"
        ids = dict(redis_client.hscan_iter(key, "topic_id:*"))
        redis_client.hdel(key, "cluster", *ids)
    line = refusal(cluster, "too-short")
    assert re.search(r"orders-\d: offset \d+ is stored, but the topic ends at offset 0", line)

    produce(cluster.servers, "orders", order_records(real_lines(6_000)[4_000:]))
    adopt(cluster, 6_000)
    assert stored_counts(redis_client, PARTITIONS)["counted"] == 6_000


def test_a_broker_that_lost_its_memory_is_refused(
    redis_client: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """The in-memory broker has topic ids too: after a restart an old store is refused."""
    with closing(Cluster(tmp_path, redis_client, valkey_url, "tansu")) as cluster:
        count_first(cluster)
        cluster.stop_broker()
        cluster.restart_broker()
        assert "recreated" in refusal(cluster, "refused")
