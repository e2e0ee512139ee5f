"""`surgecast bench swap`: another model takes over in a worker that is busy.

The store holds a made-up history of many series. A worker forecasts them with a first model while
more events come in than it can count; then a second model becomes champion. Measured: how long its
states take to warm up, how long the worker forecasts nothing while it switches, and how much less
it counts meanwhile. Weights are random: what they cost does not depend on what they say, and the
check of a newcomer's forecasts holds two of their like against each other.
"""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from redis import Redis

from model.config import ModelConfig, TrainConfig
from model.contract import FEATURE_NAMES, FeatureSpec
from model.networks.quantile import QuantileNetwork
from model.training import Trained
from stream.app import kafka_client
from stream.control import ModelRecord, announce
from stream.embedded import embedded_broker, embedded_store
from stream.errors import EmbeddedServiceFailed
from stream.features.definitions import N_FEATURES
from stream.jobs.bench.ingest import counted
from stream.jobs.bench.report import Row
from stream.jobs.bench.workload import START_MS, Workload, click_records, order_records
from stream.kafka_admin import create_topics
from stream.processes import ServiceProcess
from stream.registry import Registry
from stream.settings import Settings, child_environment
from stream.sinks.kafka import KafkaSink, partition_of
from stream.state import keys
from stream.state.closed import closed_pages
from stream.state.keys import ROLLUPS, Tag
from stream.supervisor import COMMAND
from stream.topics import CLICKS, ORDERS

HOUR_MS: Final = 3_600_000
_TIMEOUT_S: Final = 420.0
_WINDOW_S: Final = 8.0
_CHUNK: Final = 50_000
_SOLD_SHARE: Final = 0.05


def bench_swap(
    settings: Settings, *, series: int, hours: int, events: int, say: Callable[[str], None]
) -> list[Row]:
    """Swap models in one worker of `series` series with `hours` of history each."""
    with embedded_broker(settings) as broker, embedded_store(settings) as store:
        kafka = {"bootstrap_servers": broker.bootstrap_servers, "session_timeout": 6_000}
        deployed = settings.model_copy(
            update={
                "kafka": settings.kafka.model_copy(update=kafka),
                "redis": settings.redis.model_copy(update={"url": store.url}),
                "data_dir": settings.data_dir / "bench-swap",
            }
        )
        create_topics(deployed)
        client = Redis.from_url(store.url)
        say(f"storing {hours} hours of {series:,} series")
        fill(client, deployed, series=series, hours=hours)
        work = Workload(events=events, skus=series, span_ms=HOUR_MS - 60_000)
        load = [(CLICKS.name, list(click_records(work))), (ORDERS.name, list(order_records(work)))]
        registry = Registry(deployed.registry_path)
        first, second = (registry.publish(random_weights(deployed, seed)) for seed in (1, 2))
        registry.promote(first)
        log = deployed.data_dir / "logs" / "worker.log"
        with ServiceProcess.start(
            "worker", [*COMMAND, "worker"], log_path=log, environment=child_environment(deployed)
        ):
            return _measure(client, deployed, registry, load, models=(first, second), say=say)


def fill(client: Redis, settings: Settings, *, series: int, hours: int) -> None:
    """Closed hours of so many SKUs, up to where the workload begins; one in twenty sells."""
    rng = np.random.default_rng(0)
    by_tag: dict[Tag, list[str]] = {tag: [] for tag in range(settings.kafka.partitions)}
    for number in range(series):
        name = f"SKU{number:05d}"
        by_tag[partition_of(name.encode(), settings.kafka.partitions)].append(name)
    by_tag[ROLLUPS] = ["total"]
    for tag, names in by_tag.items():
        client.rpush(keys.of(tag, "series"), *names)
        for back in range(hours, 0, -1):
            values_SF = np.zeros((len(names), N_FEATURES), np.float32)
            sold = rng.random(len(names)) < _SOLD_SHARE
            values_SF[sold, :4] = rng.integers(1, 9, (int(sold.sum()), 1)) * (1, 0, 9, 1)
            pages = closed_pages(START_MS - back * HOUR_MS, values_SF)
            client.mset({keys.of(tag, *path): page for path, page in pages.items()})
        times: dict[Any, Any] = {
            "first_bucket_ms": START_MS - hours * HOUR_MS,
            "closed_through_ms": START_MS,
            "emitted_through_ms": START_MS,
        }
        client.hset(keys.of(tag, "meta"), mapping=times)
    info = {
        "bucket_ms": HOUR_MS,
        "partitions": settings.kafka.partitions,
        "horizon": settings.model.horizon,
        "quantiles": list(settings.model.quantiles),
        "feature_names": list(FEATURE_NAMES),
        "spec_hash": FeatureSpec().hash,
    }
    client.set(keys.info(), json.dumps(info))


def random_weights(settings: Settings, seed: int) -> Trained:
    """A network of the deployed shape, as training would leave it."""
    torch.manual_seed(seed)
    model = ModelConfig(
        horizon=settings.model.horizon, bucket_ms=HOUR_MS, quantiles=settings.model.quantiles
    )
    span_ms = (START_MS - HOUR_MS, START_MS)
    return Trained(QuantileNetwork(model), TrainConfig(model=model, seed=seed), span_ms)


def _measure(
    client: Redis,
    settings: Settings,
    registry: Registry,
    load: list[tuple[str, list[tuple[str, bytes]]]],
    *,
    models: tuple[str, str],
    say: Callable[[str], None],
) -> list[Row]:
    first, second = models
    say("the first model warms up")
    began_s = time.monotonic()
    while not _served_by(client, settings, first):
        _rest(began_s, "the first model")
    cold_s = time.monotonic() - began_s
    n = sum(len(records) for _, records in load)
    say(f"sending {n:,} events")
    asyncio.run(_send(settings, load))
    say("counting, with the first model")
    before = _rate(client, settings, lambda: False)
    say("the second model becomes champion")
    registry.promote(second, note="bench")
    announce(settings, ModelRecord("promote", second, "bench", time.time_ns() // 1_000_000))
    began_s = time.monotonic()
    during = _rate(client, settings, lambda: _serves(client) == {second})
    turned_s: float | None = None
    while not _served_by(client, settings, second):
        if turned_s is None and _served_by(client, settings, second, some=True):
            turned_s = time.monotonic()
        _rest(began_s, "the second model")
    ended_s = time.monotonic()
    fall = 1 - during / before
    return [
        Row("warm_up", round(ended_s - began_s, 1), "s"),
        Row("switch", round(ended_s - (turned_s or ended_s), 2), "s"),
        Row("cold_start", round(cold_s, 1), "s"),
        Row("ingest_before", round(before), "events/s"),
        Row("ingest_during", round(during), "events/s", {"fall": round(fall, 3)}),
    ]


async def _send(settings: Settings, load: list[tuple[str, list[tuple[str, bytes]]]]) -> None:
    sink = KafkaSink(kafka_client(settings))
    await sink.start()
    for topic, records in load:
        for first in range(0, len(records), _CHUNK):
            await sink.send(topic, records[first : first + _CHUNK])
    await sink.stop()


def _rate(client: Redis, settings: Settings, over: Callable[[], bool]) -> float:
    """Events counted a second, for so long, until it is over or nothing is left to count."""
    began = last = (time.monotonic(), counted(client, settings.kafka.partitions))
    while last[0] - began[0] < _WINDOW_S and not over():
        time.sleep(0.25)
        now = (time.monotonic(), counted(client, settings.kafka.partitions))
        if now[1] == last[1] and now[0] - began[0] > 3:
            break
        last = now
    if last[1] == began[1]:
        raise EmbeddedServiceFailed("all was counted before it could be measured; give more events")
    return (last[1] - began[1]) / (last[0] - began[0])


def _served_by(client: Redis, settings: Settings, model_id: str, *, some: bool = False) -> bool:
    """Whether the forecasts of all partitions (or of one of them) are this model's."""
    tags: list[Tag] = [*range(settings.kafka.partitions), ROLLUPS]
    found: list[Any] = [client.hget(keys.of(tag, "forecast"), "model_id") for tag in tags]
    mine = [name == model_id.encode() for name in found]
    return any(mine) if some else all(mine)


def _serves(client: Redis) -> set[str]:
    reports: list[Any] = [client.get(key) for key in client.scan_iter(keys.stats_pattern())]
    return {json.loads(report)["model_id"] for report in reports if report}


def _rest(began_s: float, what: str) -> None:
    if time.monotonic() - began_s > _TIMEOUT_S:
        raise EmbeddedServiceFailed(f"{what} did not serve within {_TIMEOUT_S:.0f} s")
    time.sleep(0.02)
