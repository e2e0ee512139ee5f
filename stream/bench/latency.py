"""`surgecast bench latency`: time from producing an event until its features are in the store.

A producer sends clicks at a steady rate. Every few milliseconds one click is for a probe SKU, whose
count in the store's open bucket is polled. Latency runs from sending a probe until a reader sees it
counted, so it includes broker, worker, flush and read.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import redis.asyncio as aioredis
from aiokafka import AIOKafkaProducer

from model.durations import HOUR_MS
from stream.bench.report import Row
from stream.clock import wall_clock_ms
from stream.errors import EmbeddedServiceFailed
from stream.features.definitions import VIEWS
from stream.features.packed_block import ROW_BYTES
from stream.kafka.admin import create_topics
from stream.kafka.clients import aiokafka_config
from stream.kafka.partitioner import partition_of
from stream.ops.embedded import embedded_broker, embedded_store
from stream.processes.child import ServiceProcess
from stream.settings import Settings, child_environment
from stream.state import keys
from stream.topics import CLICKS

PROBE = "PROBE"
_SKUS = 20_000
_WARM_UP_S = 5.0
_START_S = 60.0
_TICK_S = 0.01


def bench_latency(
    settings: Settings, *, rate: int, seconds: float, notify: Callable[[str], None]
) -> list[Row]:
    """p50, p90 and p99 at `rate` events per second over `seconds`, after the worker's start-up."""
    with embedded_broker(settings) as broker, embedded_store(settings) as store:
        kafka = settings.kafka.model_copy(
            update={"bootstrap_servers": broker.bootstrap_servers, "session_timeout": 6_000}
        )
        redis = settings.redis.model_copy(update={"url": store.url})
        deployed = settings.model_copy(update={"kafka": kafka, "redis": redis})
        create_topics(deployed)
        command = [sys.executable, "-P", "-c", "from stream.cli import main; main()", "worker"]
        log = settings.data_dir / "logs" / "bench-latency.log"
        with ServiceProcess.start(
            "worker", command, log_path=log, environment=child_environment(deployed)
        ):
            notify(f"latency: {rate:,} events/s for {seconds:.0f} s")
            delays_s, sent = asyncio.run(_measure(deployed, rate, seconds))
    p50, p90, p99 = (float(q) * 1000 for q in np.quantile(delays_s, (0.5, 0.9, 0.99)))
    facts = {"probes": len(delays_s), "events_per_s": round(sent), "broker": broker.kind}
    return [
        Row("event_to_features_p50", round(p50, 1), "ms", facts),
        Row("event_to_features_p90", round(p90, 1), "ms", facts),
        Row("event_to_features_p99", round(p99, 1), "ms", facts),
    ]


async def _measure(settings: Settings, rate: int, seconds: float) -> tuple[list[float], float]:
    producer = AIOKafkaProducer(**aiokafka_config(settings), linger_ms=0, acks=1)
    await producer.start()
    client = aioredis.Redis.from_url(str(settings.redis.url))
    sent_at: list[float] = []
    seen_at: list[float] = []
    watching = asyncio.create_task(_watch(client, settings.kafka.partitions, seen_at))
    rng = np.random.default_rng(0)
    began = time.monotonic()
    settled_at: float | None = None  # when the worker has started and caught up
    count = 0
    while (now := time.monotonic()) < began + seconds + _START_S:
        if settled_at is None and seen_at:
            settled_at = seen_at[0] + _WARM_UP_S
        if settled_at is not None and now >= settled_at + seconds:
            break
        due = int((now - began) * rate) - count
        skus = rng.integers(0, _SKUS, max(due, 0)).tolist()
        for number in skus:
            await _click(producer, f"SKU{number:05d}", f"c{count}", f"v{number}")
            count += 1
        sent_at.append(time.monotonic())
        await _click(producer, PROBE, f"p{len(sent_at)}", f"p{len(sent_at)}")
        await asyncio.sleep(_TICK_S)
    sent_per_s = count / (time.monotonic() - began)
    deadline = time.monotonic() + 30
    while len(seen_at) < len(sent_at):
        if time.monotonic() > deadline:
            raise EmbeddedServiceFailed(
                f"{len(sent_at) - len(seen_at)} of {len(sent_at)} probes did not reach the store "
                "within 30 s; lower --rate"
            )
        await asyncio.sleep(0.05)
    watching.cancel()
    await producer.stop()
    await client.aclose()
    if settled_at is None:
        raise EmbeddedServiceFailed(f"the worker counted nothing within {_START_S:.0f} s")
    settled = [place for place, at in enumerate(sent_at) if at >= settled_at]
    return [seen_at[place] - sent_at[place] for place in settled], sent_per_s


async def _click(producer: AIOKafkaProducer, sku: str, event_id: str, visitor: str) -> None:
    value = {
        "event_id": event_id, "ts": wall_clock_ms(), "sku": sku, "action": "view",
        "visitor_id": visitor,
    }  # fmt: skip
    await producer.send(CLICKS.name, key=sku.encode(), value=json.dumps(value).encode())


async def _watch(client: aioredis.Redis, partitions: int, seen_at: list[float]) -> None:
    """Append the time of every increase of the probe's count, summed over all buckets."""
    number = partition_of(PROBE.encode(), partitions)
    slot: int | None = None
    by_bucket: dict[int, int] = {}
    while True:
        await asyncio.sleep(0.002)
        if slot is None:
            names = await client.lrange(keys.of(number, "series"), 0, -1)
            slot = names.index(PROBE.encode()) if PROBE.encode() in names else None
            continue
        start = wall_clock_ms() // HOUR_MS * HOUR_MS
        at = slot * ROW_BYTES + VIEWS * 8
        blob: Any = await client.getrange(keys.of(number, "open", start), at, at + 7)
        if len(blob) == 8:
            by_bucket[start] = int.from_bytes(blob, "little")
            now = time.monotonic()
            seen_at += [now] * (sum(by_bucket.values()) - len(seen_at))
