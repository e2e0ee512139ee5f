"""A worker stops within its grace period, even when store and broker are gone."""

import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from redis import Redis

from stream.ops.embedded import embedded_store
from stream.settings import Settings
from tests.support.deployments import Deployment
from tests.support.services import running_broker
from tests.support.stack import (
    order_records,
    produce,
    real_lines,
    stored_counts,
    wait_until,
)

LINES = 2_000
#: The grace period of orchestrators before they kill.
GRACE_S = 30


@pytest.mark.parametrize("gone", ["store", "store and broker"])
def test_a_worker_stops_without_store_and_broker(tmp_path: Path, gone: str) -> None:
    """Events that it cannot store are read again by its successor."""
    with ExitStack() as store, ExitStack() as broker, ExitStack() as stack:
        url = store.enter_context(embedded_store(Settings(data_dir=tmp_path))).url
        values = {"redis": {"url": url}, "window": {"idle_timeout": "1s"}}
        settings = broker.enter_context(running_broker("tansu", tmp_path, values)).settings
        client = stack.enter_context(Redis.from_url(url))
        deployment = stack.enter_context(closing(Deployment(settings, client, tmp_path)))
        worker = deployment.start()
        produce(deployment.servers, "orders", order_records(real_lines(LINES)))
        wait_until(
            lambda: stored_counts(client, deployment.partitions)["counted"] == LINES, "counting"
        )
        store.close()
        if "broker" in gone:
            broker.close()
        time.sleep(1)  # so that the worker has noticed: it flushes ten times a second
        worker.process.terminate()
        worker.process.wait(timeout=GRACE_S)
        log = worker.log.read_text()
    if gone == "store":
        assert "left_unstored" in log
        assert "Traceback" not in log  # without a broker Faust's consumer thread leaves one
    else:
        assert "stop_forced" in log


def test_a_worker_stops_quietly_while_it_starts(deployment: Deployment) -> None:
    """There is no consumer yet, and nothing to commit."""
    worker = deployment.start()
    deadline_s = time.monotonic() + 90
    while "UnusedProducer]: Starting" not in worker.log.read_text():
        assert time.monotonic() < deadline_s, "the worker did not start"
        time.sleep(0.002)
    worker.process.terminate()
    status = worker.process.wait(timeout=GRACE_S)
    log = worker.log.read_text()
    assert "Traceback" not in log, log
    assert status == 0
