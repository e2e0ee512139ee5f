"""Brokers and stores for tests: Tansu and Valkey, and Apache Kafka where KAFKA_HOME names one.

`tests/conftest.py` imports the fixtures. A test that takes `broker` runs against every kind.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
from redis import Redis

from stream.kafka.admin import create_topics
from stream.ops.embedded import EmbeddedBroker, embedded_broker, embedded_store
from stream.settings import Settings

Kind = Literal["tansu", "kafka"]

#: Kinds of broker this machine can start; the last one supports the most of the protocol.
KINDS: tuple[Kind, ...] = ("tansu", "kafka") if os.environ.get("KAFKA_HOME") else ("tansu",)
needs_kafka = pytest.mark.skipif("kafka" not in KINDS, reason="KAFKA_HOME names no Apache Kafka")

#: Fixtures that start a service or a browser; no test under `tests/unit` takes one.
SERVICE_FIXTURES = frozenset(
    {"broker", "browser", "deployment", "broker_settings", "redis_client", "tap", "valkey_url"}
)


@dataclass(frozen=True, slots=True)
class TestBroker:
    """A running broker and the settings that name it."""

    __test__ = False

    settings: Settings
    embedded: EmbeddedBroker

    @property
    def bootstrap_servers(self) -> str:
        """Address for clients."""
        return self.embedded.bootstrap_servers


def settings_for(broker: EmbeddedBroker, data_dir: Path, **values: Any) -> Settings:
    """Settings of a deployment on `broker`; the environment has no part in them."""
    kafka = {"bootstrap_servers": broker.bootstrap_servers, **values.pop("kafka", {})}
    return Settings(data_dir=data_dir, kafka=kafka, **values)


@contextmanager
def running_broker(
    kind: Kind, folder: Path, values: Mapping[str, Any] | None = None, *, port: int = 0
) -> Iterator[TestBroker]:
    """A broker with the product's topics, stopped at the end; `values` are further settings."""
    with embedded_broker(Settings(data_dir=folder), kind=kind, port=port) as embedded:
        settings = settings_for(embedded, folder, **(values or {}))
        create_topics(settings)
        yield TestBroker(settings, embedded)


@pytest.fixture(scope="session", params=KINDS)
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestBroker]:
    """A broker of each kind with the product's topics, shared by the tests of the run."""
    kind: Kind = request.param
    with running_broker(kind, tmp_path_factory.mktemp(kind)) as running:
        yield running


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Valkey server shared by the tests of the run."""
    with embedded_store(Settings(data_dir=tmp_path_factory.mktemp("valkey"))) as store:
        yield store.url


@pytest.fixture
def redis_client(valkey_url: str) -> Iterator[Redis]:
    """Client of an empty store; answers are bytes."""
    client = Redis.from_url(valkey_url)
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def no_process_left() -> Iterator[None]:
    """Fails the test when a process it started, or a child of one, still runs at its end."""
    before = _children()
    yield
    left = [process for process in _children() if process not in before]
    assert [(process.pid, process.name()) for process in left if runs(process)] == []


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def runs(process: psutil.Process) -> bool:
    """True until the process has ended, reaped or not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
