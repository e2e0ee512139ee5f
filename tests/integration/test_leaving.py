"""A worker that is told to stop ends in time, also where nobody answers it any more."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis

from stream.ops.embedded import embedded_store
from stream.settings import Settings
from tests.support.services import running_broker, settings_for
from tests.support.stack import (
    WorkerProcess,
    order_records,
    produce,
    real_lines,
    stored_counts,
    wait_until,
)

pytestmark = pytest.mark.integration

LINES = 2_000
#: What orchestrators grant before they kill.
GRACE_S = 30


@pytest.mark.parametrize("gone", ["store", "store and broker"])
def test_a_worker_ends_although_what_it_waits_for_is_gone(tmp_path: Path, gone: str) -> None:
    """What is not stored is read again; nothing is gained by waiting for it."""
    with ExitStack() as broker, ExitStack() as store:
        servers = broker.enter_context(running_broker("tansu", tmp_path))
        url = store.enter_context(embedded_store(Settings(data_dir=tmp_path))).url
        settings = settings_for(
            servers, tmp_path, redis={"url": url}, window={"idle_timeout": "1s"}
        )
        worker = WorkerProcess(settings, tmp_path / "worker.log")
        try:
            produce(servers.bootstrap_servers, "orders", order_records(real_lines(LINES)))
            with Redis.from_url(url) as client:
                wait_until(
                    lambda: stored_counts(client, settings.kafka.partitions)["counted"] == LINES,
                    "counting",
                )
            store.close()
            if "broker" in gone:
                broker.close()
            time.sleep(1)  # so that the worker has noticed: it flushes ten times a second
            worker.process.terminate()
            worker.process.wait(timeout=GRACE_S)
        finally:
            worker.kill()
    log = (tmp_path / "worker.log").read_text()
    if gone == "store":
        assert "left_unstored" in log
        assert "Traceback" not in log  # without a broker Faust's consumer thread leaves one
    else:
        assert "stop_forced" in log


def test_a_worker_ends_quietly_before_it_has_begun(tmp_path: Path) -> None:
    """Told to stop while it starts, with no consumer yet: there is nothing to commit."""
    log_path = tmp_path / "worker.log"
    with (
        running_broker("tansu", tmp_path) as servers,
        embedded_store(Settings(data_dir=tmp_path)) as store,
    ):
        settings = settings_for(servers, tmp_path, redis={"url": store.url})
        worker = WorkerProcess(settings, log_path)
        try:
            deadline_s = time.monotonic() + GRACE_S
            while "UnusedProducer]: Starting" not in log_path.read_text():
                assert time.monotonic() < deadline_s, "the worker did not start"
                time.sleep(0.002)
            worker.process.terminate()
            status = worker.process.wait(timeout=GRACE_S)
        finally:
            worker.kill()
    log = log_path.read_text()
    assert "Traceback" not in log, log
    assert status == 0
