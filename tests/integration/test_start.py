"""The start of a worker: fresh folders, missing topics, settings that the broker refuses."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from stream.kafka.admin import create_topics
from stream.ops.embedded import EmbeddedBroker, embedded_broker
from stream.settings import Settings
from tests.support.deployments import WorkerProcess
from tests.support.services import KINDS, needs_kafka
from tests.support.stack import produce, stored_counts, wait_until


@pytest.fixture(params=KINDS)
def empty_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """A broker without topics."""
    with embedded_broker(Settings(data_dir=tmp_path), kind=request.param) as broker:
        yield broker


def settings_of(broker: EmbeddedBroker, valkey_url: str, folder: Path, **kafka: object) -> Settings:
    """Settings of a worker whose data folder does not exist."""
    address = {"bootstrap_servers": broker.bootstrap_servers, "session_timeout": "6s"}
    return Settings(
        data_dir=folder / "not" / "there", kafka=address | kafka, redis={"url": valkey_url}
    )


def order(number: int) -> tuple[bytes, bytes]:
    """An order line of now."""
    now_ms = time.time_ns() // 1_000_000
    line = b'{"event_id":"%d","ts":%d,"sku":"A","quantity":1,"unit_price":1}'
    return b"A", line % (number, now_ms)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[WorkerProcess]]:
    """Processes to kill at the end."""
    processes: list[WorkerProcess] = []
    yield processes
    for process in processes:
        process.kill()


def test_a_worker_before_its_topics_waits_and_then_counts(
    empty_broker: EmbeddedBroker,
    valkey_url: str,
    redis_client: Redis,
    tmp_path: Path,
    started: list[WorkerProcess],
) -> None:
    """In a fresh folder; it says what it waits for, and counts soon after they are created."""
    settings = settings_of(empty_broker, valkey_url, tmp_path)
    worker = WorkerProcess(settings, tmp_path / "worker.log")
    started.append(worker)
    wait_until(lambda: "topics_missing" in worker.log.read_text(), "the line on missing topics")
    create_topics(settings)
    produce(empty_broker.bootstrap_servers, "orders", map(order, range(3)))

    wait_until(lambda: stored_counts(redis_client, 4)["counted"] == 3, "counting", seconds=60)
    assert worker.log.read_text().count("topics_missing") == 1
    assert worker.stop() == 0


def test_a_worker_that_waits_for_topics_can_be_stopped(
    empty_broker: EmbeddedBroker, valkey_url: str, tmp_path: Path, started: list[WorkerProcess]
) -> None:
    worker = WorkerProcess(settings_of(empty_broker, valkey_url, tmp_path), tmp_path / "log")
    started.append(worker)
    wait_until(lambda: "topics_missing" in worker.log.read_text(), "the line on missing topics")

    assert worker.stop() == 0


def test_topics_with_other_partitions_are_refused(
    empty_broker: EmbeddedBroker, valkey_url: str, tmp_path: Path, started: list[WorkerProcess]
) -> None:
    """Roll-ups would lack the series of the partitions that the settings do not know."""
    settings = settings_of(empty_broker, valkey_url, tmp_path)
    create_topics(settings)
    worker = WorkerProcess(
        settings_of(empty_broker, valkey_url, tmp_path, partitions=8), tmp_path / "log"
    )
    started.append(worker)

    assert worker.process.wait(60) == 1
    [line] = worker.log.read_text().splitlines()
    assert "orders has 4 partitions, but kafka.partitions is 8" in line


@needs_kafka
def test_a_session_timeout_that_the_broker_refuses_ends_the_worker(
    valkey_url: str, tmp_path: Path, started: list[WorkerProcess]
) -> None:
    """aiokafka only logs the refusal; the worker had run on and read nothing."""
    with embedded_broker(Settings(data_dir=tmp_path), kind="kafka") as broker:
        settings = settings_of(broker, valkey_url, tmp_path, session_timeout="1h")
        create_topics(settings)
        worker = WorkerProcess(settings, tmp_path / "worker.log")
        started.append(worker)

        assert worker.process.wait(60) == 1
    last = worker.log.read_text().splitlines()[-1]
    assert last.startswith("surgecast: the broker refuses this consumer")
    assert "SURGECAST_KAFKA__SESSION_TIMEOUT" in last


@pytest.mark.parametrize("blocked", ["folder", "parent"])
def test_a_data_folder_that_cannot_be_made_is_one_line(
    blocked: str,
    empty_broker: EmbeddedBroker,
    valkey_url: str,
    tmp_path: Path,
    started: list[WorkerProcess],
) -> None:
    """A file is in its place, or in that of its parent."""
    file = tmp_path / "file"
    file.touch()
    folder = file if blocked == "folder" else file / "var"
    settings = settings_of(empty_broker, valkey_url, tmp_path)
    worker = WorkerProcess(settings.model_copy(update={"data_dir": folder}), tmp_path / "log")
    started.append(worker)

    assert worker.process.wait(60) == 1
    [line] = worker.log.read_text().splitlines()
    assert line.startswith(f"surgecast: data directory {folder} cannot be written")
