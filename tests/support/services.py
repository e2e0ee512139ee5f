"""Brokers for the tests: the embedded one always, Apache Kafka too where KAFKA_HOME names one.

`tests/conftest.py` imports the fixtures. A test that takes `broker` runs against every kind.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest

from stream.kafka.admin import create_topics
from stream.ops.embedded import EmbeddedBroker, embedded_broker
from stream.settings import Settings

Kind = Literal["tansu", "kafka"]

#: Kinds of broker this machine can start.
KINDS: tuple[Kind, ...] = ("tansu", "kafka") if os.environ.get("KAFKA_HOME") else ("tansu",)


@dataclass(frozen=True, slots=True)
class TestBroker:
    """A running broker and the settings that name it."""

    __test__ = False

    settings: Settings
    embedded: EmbeddedBroker

    @property
    def bootstrap_servers(self) -> str:
        return self.embedded.bootstrap_servers


def settings_for(broker: EmbeddedBroker, data_dir: Path, **values: Any) -> Settings:
    """Settings of a deployment on `broker`, whatever the environment says."""
    kafka = {"bootstrap_servers": broker.bootstrap_servers, **values.pop("kafka", {})}
    return Settings(data_dir=data_dir, kafka=kafka, **values)


@contextmanager
def running_broker(kind: Kind, folder: Path) -> Iterator[EmbeddedBroker]:
    """A broker of its own, with the product's topics; gone at the end."""
    with embedded_broker(Settings(data_dir=folder), kind=kind) as running:
        create_topics(settings_for(running, folder))
        yield running


@pytest.fixture(scope="session", params=KINDS)
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestBroker]:
    """A broker of each kind with the product's topics, shared by the tests of the run."""
    kind: Kind = request.param
    folder = tmp_path_factory.mktemp(kind)
    with embedded_broker(Settings(data_dir=folder), kind=kind) as running:
        settings = settings_for(running, folder)
        create_topics(settings)
        yield TestBroker(settings, running)


@pytest.fixture
def no_process_left() -> Iterator[None]:
    """Fails the test when a process it started, or a child of one, still runs at its end."""
    before = _children()
    yield
    left = [process for process in _children() if process not in before]
    assert [(process.pid, process.name()) for process in left if _runs(process)] == []


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
