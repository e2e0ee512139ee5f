"""A deployment for one test: a broker with fresh topics, an empty store, and roles as processes.

`tests/conftest.py` imports the fixtures. A module overrides `deployment_settings` to change
settings, and `broker_kind` to run on other brokers.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from stream.settings import Settings, child_environment
from tests.support.services import Kind, running_broker

SURGECAST = Path(sys.executable).with_name("surgecast")
PARTITIONS = 4
#: Short timeouts; retention and deduplication for the days that tests send at once.
DEFAULTS: dict[str, dict[str, Any]] = {
    "kafka": {"partitions": PARTITIONS, "session_timeout": "6s"},
    "window": {"idle_timeout": "2s", "dedup": "7d"},
    "state": {"retention": "400d"},
}


class WorkerProcess:
    """`surgecast worker`, or another role, with its log."""

    def __init__(
        self, settings: Settings, log: Path, arguments: Sequence[str] = (), *, role: str = "worker"
    ) -> None:
        self.log = log
        self._file = log.open("ab")
        self.process = subprocess.Popen(
            [str(SURGECAST), role, *arguments],
            env=child_environment(settings),
            stdout=self._file,
            stderr=subprocess.STDOUT,
        )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        self._file.close()

    def stop(self) -> int:
        """SIGTERM; the exit status. An unclean stop prints the end of the log."""
        self.process.terminate()
        try:
            status = self.process.wait(timeout=90)
        finally:
            self.kill()
        if status:
            sys.stdout.write(self.log.read_text(errors="replace")[-40_000:])
        return status


class Deployment:
    """A broker, a store, and the roles that a test starts; `close` kills what still runs."""

    def __init__(self, settings: Settings, redis: Redis, folder: Path) -> None:
        self.settings = settings
        self.redis = redis
        self.folder = folder
        self._running: list[WorkerProcess] = []

    @property
    def servers(self) -> str:
        """Address of the broker."""
        assert self.settings.kafka.bootstrap_servers is not None
        return self.settings.kafka.bootstrap_servers

    @property
    def partitions(self) -> int:
        """Partitions of every topic."""
        return self.settings.kafka.partitions

    def start(
        self, name: str = "worker", arguments: Sequence[str] = (), *, role: str = "worker"
    ) -> WorkerProcess:
        """Start a role; its log is `NAME.log` in the test's folder."""
        process = WorkerProcess(self.settings, self.folder / f"{name}.log", arguments, role=role)
        self._running.append(process)
        return process

    def surgecast(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a command of the command line to its end."""
        return subprocess.run(
            [str(SURGECAST), *arguments],
            env=child_environment(self.settings),
            capture_output=True,
            check=check,
            text=True,
        )

    def close(self) -> None:
        """`kill -9` every role that still runs."""
        for process in self._running:
            process.kill()


@pytest.fixture
def broker_kind() -> Kind:
    """The broker of `deployment`."""
    return "tansu"


@pytest.fixture
def deployment_settings() -> dict[str, dict[str, Any]]:
    """Settings of `deployment` by section, on top of `DEFAULTS`."""
    return {}


@pytest.fixture
def deployment(
    broker_kind: Kind,
    deployment_settings: dict[str, dict[str, Any]],
    tmp_path: Path,
    redis_client: Redis,
    valkey_url: str,
) -> Iterator[Deployment]:
    """A broker with fresh topics and an empty store; no role runs yet."""
    store = {"redis": {"url": valkey_url}}
    with running_broker(broker_kind, tmp_path, merged(store, deployment_settings)) as broker:
        made = Deployment(broker.settings, redis_client, tmp_path)
        try:
            yield made
        finally:
            made.close()


def merged(*changes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`DEFAULTS` with changes by section, the later ones first in rank."""
    values = {section: dict(fields) for section, fields in DEFAULTS.items()}
    for change in changes:
        for section, fields in change.items():
            values[section] = values.get(section, {}) | fields
    return values
