"""`surgecast bench ingest`: events a second and CPU an event of one worker, next to its peers.

The load lies in the broker before anything starts. A worker is a process of its own: decode,
checks, deduplication, features and flush into a real store. It is timed from its first counted
event to its last, so that starting up does not count. The peers (`benchmarks/ingest/*.py`, where
this runs from a checkout) read the same topics in the same run, each for at most a set time.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from redis import Redis

from stream.bench.report import Row
from stream.bench.workload import Workload, send
from stream.errors import EmbeddedServiceFailed
from stream.kafka.admin import create_topics
from stream.kafka.clients import aiokafka_config
from stream.ops.embedded import embedded_broker, embedded_store
from stream.processes.child import ServiceProcess
from stream.settings import Settings, child_environment
from stream.state import keys

#: Measured beside the worker in every round: how near it comes says what all the rest costs.
LIMIT = "aiokafka_decode"
PEERS = ("faust_record_table", "faust_raw_take", "quix")
UNBATCHED_EVENTS = 100_000
_TIMEOUT_S = 240.0


def bench_ingest(
    settings: Settings,
    *,
    events: int,
    rounds: int,
    peers: Path | None,
    peer_seconds: float,
    say: Callable[[str], None],
) -> list[Row]:
    """Measure the worker, batched and unbatched producers, and the peers found in `peers`.

    The worker and the limiting peer take turns, `rounds` of them; the median is their figure. A
    shared machine changes its speed by half within a minute, a ratio of neighbours hardly.
    """
    load = Workload(events=events)
    few = Workload(events=min(events, UNBATCHED_EVENTS))
    with embedded_broker(settings) as broker:
        deployed = _prepared(settings, broker.bootstrap_servers, load, batched=True, say=say)

        def peer_rows(name: str) -> list[Row]:
            if peers is None or not (script := peers / f"{name}.py").is_file():
                return []
            say(f"{name}: reading the same topics for {peer_seconds:.0f} s at most")
            return [_peer_row(name, script, deployed, load, peer_seconds)]

        own: list[Row] = []
        limit: list[Row] = []
        for number in range(rounds):
            say(f"surgecast: counting, round {number + 1} of {rounds}")
            group = deployed.kafka.model_copy(update={"group": f"bench-{number}"})
            own.append(_counting("surgecast", deployed.model_copy(update={"kafka": group}), load))
            limit += peer_rows(LIMIT)
        rows = [_median(own), *([_median(limit)] if limit else [])]
        rows[0].facts["broker"] = broker.kind
        for name in PEERS:
            rows += peer_rows(name)
    with embedded_broker(settings, folder=settings.data_dir / "unbatched") as broker:
        deployed = _prepared(settings, broker.bootstrap_servers, few, batched=False, say=say)
        rows.append(_counting("surgecast_unbatched", deployed, few))
    return rows


def _prepared(
    settings: Settings, servers: str, load: Workload, *, batched: bool, say: Callable[[str], None]
) -> Settings:
    """Settings of a broker in which the load lies."""
    say(f"sending {load.events:,} events{'' if batched else ', one record a batch'}")
    update = {"bootstrap_servers": servers, "session_timeout": 6_000}
    deployed = settings.model_copy(update={"kafka": settings.kafka.model_copy(update=update)})
    create_topics(deployed)
    send(aiokafka_config(deployed), load, batched=batched)
    return deployed


def _counting(name: str, settings: Settings, load: Workload) -> Row:
    """A worker on an empty store."""
    with embedded_store(settings) as store:
        redis = settings.redis.model_copy(update={"url": store.url})
        return _worker_row(name, settings.model_copy(update={"redis": redis}), load)


def _median(rows: list[Row]) -> Row:
    """The row in the middle, with the values of all rounds."""
    middle = sorted(rows, key=lambda row: row.value)[len(rows) // 2]
    return replace(middle, facts=middle.facts | {"rounds": [row.value for row in rows]})


def _worker_row(name: str, settings: Settings, load: Workload) -> Row:
    client = Redis.from_url(str(settings.redis.url))
    command = [sys.executable, "-P", "-c", "from stream.cli import main; main()", "worker"]
    log = settings.data_dir / "logs" / f"bench-{name}.log"
    with ServiceProcess.start(
        "worker", command, log_path=log, environment=child_environment(settings)
    ) as worker:
        process = psutil.Process(worker.pid)
        first: tuple[float, int, float] | None = None
        last = (0.0, 0, 0.0)
        deadline = time.monotonic() + _TIMEOUT_S
        while last[1] < load.events:
            if time.monotonic() > deadline:
                raise EmbeddedServiceFailed(f"{name}: only {last[1]} events in {_TIMEOUT_S:.0f} s")
            worker.require_alive()
            now_counted = counted(client, settings.kafka.partitions)
            cpu = process.cpu_times()
            if now_counted > last[1]:
                last = (time.monotonic(), now_counted, cpu.user + cpu.system)
                first = first or last
            time.sleep(0.02)
        memory = process.memory_info().rss
    if first is None or last[1] == first[1]:
        raise EmbeddedServiceFailed(f"{name}: all events came in one flush; give more --events")
    n = last[1] - first[1]
    facts = {
        "events": n,
        "cpu_us_per_event": round((last[2] - first[2]) / n * 1e6, 3),
        "rss_mb": round(memory / 2**20),
    }
    return Row(name, round(n / (last[0] - first[0])), "events/s", facts)


def counted(client: Redis, partitions: int) -> int:
    """Events of any verdict that are stored as such."""
    total = 0
    with client.pipeline(transaction=False) as batch:
        for number in range(partitions):
            batch.hgetall(keys.of(number, "meta"))
        for meta in batch.execute():
            total += sum(int(value) for name, value in meta.items() if name.startswith(b"count:"))
    return total


def _peer_row(name: str, script: Path, settings: Settings, load: Workload, seconds: float) -> Row:
    command = [
        sys.executable, str(script), str(settings.kafka.bootstrap_servers),
        str(load.events), str(seconds),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + 120, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip() or "no output").splitlines()[-1]
        return Row(name, 0.0, "events/s", {"error": reason})
    # A framework may print around it: the result is the last line that is an object.
    results = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not results:
        return Row(name, 0.0, "events/s", {"error": "it ended without a result"})
    measured: dict[str, Any] = json.loads(results[-1])
    n = measured["events"]
    facts = {"events": n, "cpu_us_per_event": round(measured["cpu_seconds"] / n * 1e6, 3)}
    return Row(name, round(n / measured["seconds"]), "events/s", facts)
