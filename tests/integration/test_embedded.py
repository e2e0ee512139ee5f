"""The embedded broker and store: they answer, report why they died, and leave no process."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from redis import Redis

from stream.errors import EmbeddedServiceFailed, UsageError
from stream.kafka.admin import create_topics, describe_topics
from stream.ops.embedded import embedded_broker, embedded_store
from stream.processes import child as processes
from stream.processes.child import ServiceProcess, writable_folder
from stream.processes.ports import free_port
from stream.settings import Settings
from stream.topics import TOPICS
from tests.support.services import KINDS, Kind, TestBroker, needs_kafka, settings_for


@pytest.mark.parametrize("kind", KINDS)
def test_a_broker_has_topics_and_is_gone_after_the_block(
    kind: Kind, tmp_path: Path, no_process_left: None
) -> None:
    """It speaks the protocol inside the block; after it the process and the port are gone."""
    with embedded_broker(Settings(data_dir=tmp_path), kind=kind) as broker:
        settings = settings_for(broker, tmp_path)

        assert [topic.name for topic in TOPICS] == create_topics(settings)
        assert create_topics(settings) == []
        assert [None] * len(TOPICS) == [state.problem for state in describe_topics(settings)]

    assert not broker.service.alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", broker.port), timeout=1)


def test_a_store_answers_and_is_gone_after_the_block(tmp_path: Path, no_process_left: None) -> None:
    """Valkey evicts no key and writes no data file."""
    with embedded_store(Settings(data_dir=tmp_path)) as store, Redis.from_url(store.url) as client:
        client.set("key", "value")

        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert client.config_get("bind")["bind"] == "127.0.0.1"

    assert not store.service.alive()
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["store.log"]


@pytest.mark.parametrize("compression", [None, "gzip", "lz4", "zstd"])
def test_compressed_batches_are_unchanged(broker: TestBroker, compression: str | None) -> None:
    """Every codec of a producer passes through the broker."""
    topic = TopicPartition("orders", 1)
    values = [f"{compression} {number}".encode() for number in range(500)]
    with KafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, compression_type=compression, linger_ms=5
    ) as producer:
        sent = [producer.send(topic.topic, value, partition=topic.partition) for value in values]
        producer.flush()
        first = sent[0].get().offset
    with KafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, consumer_timeout_ms=10_000
    ) as consumer:
        consumer.assign([topic])
        consumer.seek(topic, first)

        assert values == [next(consumer).value for _ in values]


@needs_kafka
def test_the_log_of_apache_kafka_survives_a_kill(tmp_path: Path, no_process_left: None) -> None:
    """`kill -9` and a restart on the same folder and port lose neither topics nor records."""
    port = free_port()
    with embedded_broker(Settings(data_dir=tmp_path), kind="kafka", port=port) as broker:
        create_topics(settings_for(broker, tmp_path))
        with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
            offset = producer.send("orders", b"kept", partition=0).get(10).offset
        broker.service.kill()

    with embedded_broker(Settings(data_dir=tmp_path), kind="kafka", port=port) as broker:
        assert create_topics(settings_for(broker, tmp_path)) == []
        with KafkaConsumer(
            bootstrap_servers=broker.bootstrap_servers, consumer_timeout_ms=20_000
        ) as consumer:
            consumer.assign([TopicPartition("orders", 0)])
            consumer.seek(TopicPartition("orders", 0), offset)

            assert next(consumer).value == b"kept"


def test_a_killed_service_is_named_with_the_tail_of_its_log(tmp_path: Path) -> None:
    """The error names the process, its signal, and its last output."""
    with embedded_store(Settings(data_dir=tmp_path)) as store:
        store.service.require_alive()
        os.kill(store.service.pid, signal.SIGKILL)
        store.service.process.wait()
        with pytest.raises(EmbeddedServiceFailed) as failure:
            store.service.require_alive()

    assert "embedded store (Valkey)" in str(failure.value)
    assert "SIGKILL" in str(failure.value)
    assert "Ready to accept connections" in str(failure.value)


def test_a_service_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    """A process that ends before it answers is reported at once, not after the timeout."""
    program = [sys.executable, "-c", "print('no memory'); raise SystemExit(3)"]
    service = ServiceProcess.start("failing", program, log_path=tmp_path / "failing.log")
    with service, pytest.raises(EmbeddedServiceFailed, match=r"(?s)exit status 3.*no memory"):
        service.wait_ready(lambda: False, timeout_s=60)


def test_a_service_that_never_answers_is_stopped(tmp_path: Path, no_process_left: None) -> None:
    """The wait ends with its timeout, and so does the process."""
    program = [sys.executable, "-c", "import time; time.sleep(600)"]
    service = ServiceProcess.start("silent", program, log_path=tmp_path / "silent.log")
    with service, pytest.raises(EmbeddedServiceFailed, match="does not answer"):
        service.wait_ready(lambda: False, timeout_s=0.2)


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, no_process_left: None) -> None:
    """SIGTERM, a grace period, SIGKILL: neither it nor its own children survive."""
    program = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    service = ServiceProcess.start(
        "stubborn", [sys.executable, "-c", program], log_path=tmp_path / "stubborn.log", grace_s=0.2
    )
    service.wait_ready(lambda: "ready" in service.log_tail(), timeout_s=30)

    assert service.stop() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills orphans")
def test_a_service_dies_with_its_killed_parent(tmp_path: Path) -> None:
    """`kill -9` of the process that started a service ends the service."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from stream.ops.embedded import embedded_store\n"
        "from stream.settings import Settings\n"
        "with embedded_store(Settings(data_dir=Path(sys.argv[1]))) as store:\n"
        "    print(store.service.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()

    deadline = time.monotonic() + 30
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the store outlived the process that started it"
        time.sleep(0.05)


def test_a_taken_port_is_named_before_anything_starts(
    tmp_path: Path, no_process_left: None
) -> None:
    """A port in use is a one-line error."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(UsageError, match=f"127.0.0.1:{port}.*in use"),
            embedded_store(Settings(data_dir=tmp_path), port=port),
        ):
            pass


def test_an_unwritable_data_folder_is_one_line(tmp_path: Path, no_process_left: None) -> None:
    """The error names the reason and the setting."""
    file = tmp_path / "file"
    file.write_text("in the way")
    with (
        pytest.raises(
            UsageError, match=r"cannot be written \(Not a directory\).*DATA_DIR"
        ) as error,
        embedded_broker(Settings(data_dir=file / "var"), kind="tansu"),
    ):
        pass
    assert "\n" not in str(error.value)


def test_a_full_disk_is_reported_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little space for logs and models is an error at the start, not a crash later."""
    monkeypatch.setattr(processes, "MIN_FREE_BYTES", 2**60)

    with pytest.raises(UsageError, match="no disk space"):
        writable_folder(tmp_path)


def test_a_foreign_kafka_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KAFKA_HOME must have the jars of Apache Kafka."""
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))

    with (
        pytest.raises(UsageError, match="is not an Apache Kafka folder"),
        embedded_broker(Settings(data_dir=tmp_path)),
    ):
        pass
