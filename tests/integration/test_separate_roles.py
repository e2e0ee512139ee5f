"""Separate roles, started by commands alone, on a plain redis-server."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import polars as pl
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from model.durations import HOUR_MS
from stream.jobs.files.sample import sample_orders
from stream.ops.embedded import embedded_broker
from stream.processes.child import ServiceProcess
from stream.processes.ports import free_port
from stream.settings import Settings
from stream.topics import TOPICS
from tests.support.deployments import Deployment
from tests.support.services import KINDS, settings_for
from tests.support.stack import (
    drained,
    order_records,
    produce,
    read_topic,
    recount,
    statistics,
    wait_until,
)


@pytest.fixture
def plain_redis(tmp_path: Path) -> Iterator[str]:
    """URL of the distribution's redis-server with its defaults, on a free port."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    url = f"redis://127.0.0.1:{port}/0"
    with ServiceProcess.start("redis-server", command, log_path=tmp_path / "redis.log") as server:
        server.wait_ready(lambda: answers(url), timeout_s=20)
        yield url


def answers(url: str) -> bool:
    """True if the store answers."""
    try:
        with Redis.from_url(url) as client:
            return bool(client.ping())
    except RedisConnectionError:
        return False


def test_topics_create_and_a_worker_make_the_features_of_a_recount(
    plain_redis: str, tmp_path: Path, no_process_left: None
) -> None:
    """A broker, `topics create`, `worker`, then a producer: `features` equals a recount."""
    lines = pl.read_parquet(sample_orders()).sort("ts", "event_id").tail(6_000)
    with embedded_broker(Settings(data_dir=tmp_path), kind=KINDS[-1]) as broker:
        port = free_port()
        settings = settings_for(
            broker,
            tmp_path,
            redis={"url": plain_redis},
            window={"idle_timeout": "1s"},  # without clicks; orders must not wait for them
            worker={"metrics_port": port},
        )
        with (
            Redis.from_url(plain_redis) as redis,
            closing(Deployment(settings, redis, tmp_path)) as deployment,
        ):
            created = deployment.surgecast("topics", "create", "--json")
            assert json.loads(created.stdout)["created"] == [topic.name for topic in TOPICS]

            worker = deployment.start()
            produce(deployment.servers, "orders", order_records(lines))
            wait_until(lambda: all_closed(redis, lines), "closing the last full hour")
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                metrics = answer.read().decode()
            assert worker.stop() == 0
        records = read_topic(broker.bootstrap_servers, "features")

    published: dict[tuple[str, int], list[float]] = {}
    for record in records:
        document = json.loads(record.value)
        values = document["values"]
        row = [
            float(np.float32(values[name])) for name in ("units", "returns", "revenue", "orders")
        ]
        if any(row) and ":" not in document["series_id"] and document["series_id"] != "total":
            published[document["series_id"], document["bucket_start_ms"]] = row
    expected = recount(lines, bucket_ms=HOUR_MS)
    last_ms = max(start for _, start in expected)  # no later event closes it

    assert 'surgecast_events_total{topic="orders",verdict="counted"} 6000.0' in metrics
    assert published == {place: row for place, row in expected.items() if place[1] < last_ms}


def all_closed(redis: Redis, lines: pl.DataFrame) -> bool:
    """True if the worker has counted all lines and published every bucket that they close."""
    documents = statistics(redis)
    counted = sum(d["events"].get("orders", {}).get("counted", 0) for d in documents)
    last_ms = int(lines["ts"].to_numpy().max()) // HOUR_MS * HOUR_MS
    return (
        counted == lines.height
        and drained(redis)
        and all((document["watermark_ms"] or 0) >= last_ms for document in documents)
    )
