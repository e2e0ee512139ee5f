"""Answers say when they are not those of now, within seconds, and recover by themselves."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis

from stream.errors import ServiceUnavailable
from stream.ops.doctor import examine
from stream.readside.reader import Reader, connect
from stream.settings import RedisSettings
from tests.support.batches import order
from tests.support.deployments import DEFAULTS, Deployment
from tests.support.samples import START_MS
from tests.support.services import TestBroker, running_broker
from tests.support.stack import produce, wait_until

#: The promise is 15 s; a loaded machine may take longer to notice its own clock.
NOTICED_S = 40


@pytest.fixture
def truth_broker(tmp_path: Path, valkey_url: str) -> Iterator[TestBroker]:
    values = {**DEFAULTS, "redis": {"url": valkey_url}, "kafka": {"partitions": 2}}
    with running_broker("tansu", tmp_path, values) as broker:
        yield broker


@pytest.fixture
def running(truth_broker: TestBroker, redis_client: Redis, tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(truth_broker.settings, redis_client, tmp_path)
    try:
        yield made
    finally:
        made.close()


class Watch:
    """Reads the condition of a deployment, again and again."""

    def __init__(self, redis: Redis) -> None:
        self.reader = Reader(redis)

    def kind(self) -> str | None:
        self.reader.refresh()
        fault = self.reader.fault()
        return None if fault is None else fault.kind

    def becomes(self, kind: str | None) -> None:
        wait_until(lambda: self.kind() == kind, f"the condition {kind}", seconds=NOTICED_S)


def _sell(deployment: Deployment, first: int, n: int = 1, **wrong: Any) -> None:
    lines = [order(f"e{first + i}", START_MS + first + i, **wrong) for i in range(n)]
    rows = [(b"A", json.dumps(line).encode()) for line in lines]
    produce(deployment.servers, "orders", rows)


def test_every_fault_is_named_and_passes(
    running: Deployment, truth_broker: TestBroker, redis_client: Redis
) -> None:
    """A hung worker, a dead broker, a sender whose records are all refused."""
    watch = Watch(redis_client)
    assert watch.kind() == "no-worker"
    _sell(running, 0)
    worker = running.start()
    wait_until(lambda: watch.kind() is None, "an up-to-date worker")
    assert not watch.reader.age("A").stale

    worker.signal(signal.SIGSTOP)
    try:
        watch.becomes("no-worker")
        assert watch.reader.age("A").stale
        assert watch.reader.age("A").age_ms is not None
        assert Reader(redis_client).age("A").age_ms is None  # before its first refresh
        other = Watch(redis_client)
        other.kind()
        assert other.reader.age("A").age_ms is not None
    finally:
        worker.signal(signal.SIGCONT)
    watch.becomes(None)

    broker = psutil.Process(truth_broker.embedded.service.pid)
    broker.suspend()
    try:
        watch.becomes("broker-silent")
        assert watch.reader.age("A").stale
        assert watch.reader.stats().lag is None
    finally:
        broker.resume()
    watch.becomes(None)
    assert watch.reader.stats().lag == 0

    _sell(running, 100, 30, quantity="many")
    watch.becomes("everything-refused")
    data = [check for check in examine(running.settings) if check.name == "data"]
    assert [check.status for check in data] == ["wrong"]
    _sell(running, 200)
    watch.becomes(None)
    assert not watch.reader.age("A").stale

    counted = watch.reader.counters().events["orders"]
    assert worker.stop() == 0
    watch.becomes("no-worker")
    assert watch.reader.counters().events["orders"] == counted
    assert (counted["counted"], counted["rejected"]) == (2, 30)


def test_a_hanging_store_is_found_out_within_seconds(tmp_path: Path) -> None:
    """A reader neither waits for ever nor for minutes, and answers again afterwards."""
    from stream.ops.embedded import embedded_store
    from stream.settings import Settings

    with (
        embedded_store(Settings(data_dir=tmp_path)) as store,
        connect(RedisSettings(url=store.url)) as client,
    ):
        reader = Reader(client)
        reader.refresh()
        process = psutil.Process(store.service.pid)
        process.suspend()
        try:
            began_s = time.monotonic()
            with pytest.raises(ServiceUnavailable):
                reader.refresh()
            assert time.monotonic() - began_s < NOTICED_S
        finally:
            process.resume()
        wait_until(lambda: _answers(reader), "an answer")


def _answers(reader: Reader) -> bool:
    try:
        reader.refresh()
    except ServiceUnavailable:
        return False
    return True
