"""The Faust app: which loggers a fatal error silences, and how a forced stop ends."""

import asyncio
import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.transport.drivers.aiokafka import Consumer

from stream.errors import ServiceUnavailable
from stream.kafka.faust_app import SERVICE_LOGS, _force_exit, create_app
from stream.kafka.reading.faust_transport import BatchConsumer
from stream.settings import Settings
from stream.worker import service


@pytest.fixture
def levels_restored() -> Iterator[None]:
    """Leave the levels of the service loggers as they were."""
    levels = {name: logging.getLogger(name).level for name in (*SERVICE_LOGS, service.__name__)}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("name", SERVICE_LOGS)
def test_each_logger_is_the_name_of_a_module(name: str) -> None:
    assert importlib.import_module(name).__name__ == name


@pytest.mark.usefixtures("levels_restored")
def test_the_first_fatal_error_is_kept_and_tracebacks_are_silenced(tmp_path: Path) -> None:
    """The services log their crash with a traceback; the command line prints one line instead."""
    app = create_app(Settings(kafka={"bootstrap_servers": "nowhere:9092"}), data_dir=tmp_path)
    app.service_logs = (service.__name__,)
    first, second = ServiceUnavailable("first"), ServiceUnavailable("second")
    app.set_fatal(first)
    app.set_fatal(second)

    assert app.fatal is first
    for name in (*SERVICE_LOGS, service.__name__):
        assert not logging.getLogger(name).isEnabledFor(logging.CRITICAL)


async def test_a_forced_stop_does_not_depend_on_its_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process ends even if its tasks cannot be described."""
    ended: list[int] = []

    def unreadable(loop: asyncio.AbstractEventLoop) -> list[str]:
        raise RuntimeError

    monkeypatch.setattr("stream.kafka.faust_app.task_stacks", unreadable)
    monkeypatch.setattr("os._exit", ended.append)
    with pytest.raises(RuntimeError):
        _force_exit(asyncio.get_running_loop())
    assert ended == [1]


@pytest.mark.parametrize("stopping", [True, False])
async def test_a_stop_does_not_wait_for_the_batches_under_way(
    stopping: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may wait for room in the output, for as long as a catch-up takes; a rebalance waits."""
    done: list[str] = []

    async def noted(name: str) -> None:
        done.append(name)

    monkeypatch.setattr(Consumer, "wait_empty", lambda _: noted("waited"))
    monkeypatch.setattr(BatchConsumer, "commit_and_end_transactions", lambda _: noted("committed"))
    consumer = object.__new__(BatchConsumer)
    consumer.app = cast(Any, SimpleNamespace(should_stop=stopping))
    await consumer.wait_empty()

    assert done == (["committed"] if stopping else ["waited"])
