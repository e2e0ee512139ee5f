"""`surgecast bench ingest`: events per second and CPU per event of one worker and its peers.

All events are in the broker before anything starts. The worker is a separate process and does all
decoding, checks, deduplication, feature counting and flushing to a real store. Its time runs from
the first to the last counted event, without the start-up. The peers (`benchmarks/ingest/*.py` of a
checkout) read the same topics in the same run, each with a time limit.
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

#: Upper limit: a bare consumer that only decodes, measured next to the worker in every round.
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
    notify: Callable[[str], None],
) -> list[Row]:
    """Measure the worker, with batched and unbatched producers, and the peers found in `peers`.

    Worker and upper limit alternate for `rounds` rounds, and the median counts. A shared machine
    may change its speed by half within a minute, but the ratio of two consecutive runs hardly
    changes.
    """
    load = Workload(events=events)
    few = Workload(events=min(events, UNBATCHED_EVENTS))
    with embedded_broker(settings) as broker:
        deployed = _prepared(settings, broker.bootstrap_servers, load, batched=True, notify=notify)

        def peer_rows(name: str) -> list[Row]:
            if peers is None or not (script := peers / f"{name}.py").is_file():
                return []
            notify(f"{name}: reading the same topics for at most {peer_seconds:.0f} s")
            return [_peer_row(name, script, deployed, load, peer_seconds)]

        own: list[Row] = []
        limit: list[Row] = []
        for number in range(rounds):
            notify(f"surgecast: counting, round {number + 1} of {rounds}")
            group = deployed.kafka.model_copy(update={"group": f"bench-{number}"})
            own.append(_counting("surgecast", deployed.model_copy(update={"kafka": group}), load))
            limit += peer_rows(LIMIT)
        rows = [_median(own), *([_median(limit)] if limit else [])]
        rows[0].facts["broker"] = broker.kind
        for name in PEERS:
            rows += peer_rows(name)
    with embedded_broker(settings, folder=settings.data_dir / "unbatched") as broker:
        deployed = _prepared(settings, broker.bootstrap_servers, few, batched=False, notify=notify)
        rows.append(_counting("surgecast_unbatched", deployed, few))
    return rows


def _prepared(
    settings: Settings,
    servers: str,
    load: Workload,
    *,
    batched: bool,
    notify: Callable[[str], None],
) -> Settings:
    """Send the load to a broker; return the settings for that broker."""
    notify(f"sending {load.events:,} events{'' if batched else ', one record per batch'}")
    update = {"bootstrap_servers": servers, "session_timeout": 6_000}
    deployed = settings.model_copy(update={"kafka": settings.kafka.model_copy(update=update)})
    create_topics(deployed)
    send(aiokafka_config(deployed), load, batched=batched)
    return deployed


def _counting(name: str, settings: Settings, load: Workload) -> Row:
    """Measure a worker on an empty store."""
    with embedded_store(settings) as store:
        redis = settings.redis.model_copy(update={"url": store.url})
        return _worker_row(name, settings.model_copy(update={"redis": redis}), load)


def _median(rows: list[Row]) -> Row:
    """The median row, with the values of all rounds."""
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
                raise EmbeddedServiceFailed(
                    f"{name}: counted only {last[1]} of {load.events} events in {_TIMEOUT_S:.0f} s"
                )
            worker.require_alive()
            now_counted = counted(client, settings.kafka.partitions)
            cpu = process.cpu_times()
            if now_counted > last[1]:
                last = (time.monotonic(), now_counted, cpu.user + cpu.system)
                first = first or last
            time.sleep(0.02)
        memory = process.memory_info().rss
    if first is None or last[1] == first[1]:
        raise EmbeddedServiceFailed(
            f"{name}: all {load.events} events were counted in one flush; give more --events"
        )
    n = last[1] - first[1]
    facts = {
        "events": n,
        "cpu_us_per_event": round((last[2] - first[2]) / n * 1e6, 3),
        "rss_mb": round(memory / 2**20),
    }
    return Row(name, round(n / (last[0] - first[0])), "events/s", facts)


def counted(client: Redis, partitions: int) -> int:
    """Events with any verdict, by the counters in the store."""
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
    # Frameworks may print other lines too: the result is the last line with an object.
    results = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not results:
        return Row(name, 0.0, "events/s", {"error": "ended without a result"})
    measured: dict[str, Any] = json.loads(results[-1])
    n = measured["events"]
    facts = {"events": n, "cpu_us_per_event": round(measured["cpu_seconds"] / n * 1e6, 3)}
    return Row(name, round(n / measured["seconds"]), "events/s", facts)
