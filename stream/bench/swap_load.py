"""Inputs of `surgecast bench swap`: a synthetic history, random networks, and a backlog."""

import json
from typing import Any, Final

import numpy as np
import torch
from redis import Redis

from model.config import ModelConfig, TrainConfig
from model.contract import FEATURE_NAMES, FeatureSpec
from model.durations import HOUR_MS
from model.networks.quantile_network import QuantileNetwork
from model.training.train import Trained
from stream.bench.workload import START_MS
from stream.features.definitions import N_FEATURES
from stream.kafka.clients import aiokafka_config
from stream.kafka.partitioner import partition_of
from stream.kafka.producer import BatchProducer
from stream.series_ids import TOTAL
from stream.settings import Settings
from stream.state import keys
from stream.state.closed_buckets import closed_pages
from stream.state.keys import ROLLUPS, Tag

_CHUNK: Final = 50_000
_SOLD_SHARE: Final = 0.05

#: Records by topic, sorted by event time.
Load = list[tuple[str, list[tuple[str, bytes]]]]


def fill(client: Redis, settings: Settings, *, series: int, hours: int) -> None:
    """Store closed hours of `series` SKUs up to the start of the workload; one in twenty sells."""
    rng = np.random.default_rng(0)
    by_tag: dict[Tag, list[str]] = {tag: [] for tag in range(settings.kafka.partitions)}
    for number in range(series):
        name = f"SKU{number:05d}"
        by_tag[partition_of(name.encode(), settings.kafka.partitions)].append(name)
    by_tag[ROLLUPS] = [TOTAL]
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
    """A network with the deployed horizon and random weights, as a training result."""
    torch.manual_seed(seed)
    model = ModelConfig(
        horizon=settings.model.horizon, bucket_ms=HOUR_MS, quantiles=settings.model.quantiles
    )
    span_ms = (START_MS - HOUR_MS, START_MS)
    return Trained(QuantileNetwork(model), TrainConfig(model=model, seed=seed), span_ms)


def halves(load: Load) -> tuple[Load, Load]:
    """The earlier and the later half of each topic's records.

    >>> halves([("orders", [("a", b""), ("b", b"")])])
    ([('orders', [('a', b'')])], [('orders', [('b', b'')])])
    """
    return (
        [(topic, records[: len(records) // 2]) for topic, records in load],
        [(topic, records[len(records) // 2 :]) for topic, records in load],
    )


async def send(settings: Settings, load: Load) -> None:
    """Send a load topic by topic."""
    sink = BatchProducer(aiokafka_config(settings))
    await sink.start()
    for topic, records in load:
        for first in range(0, len(records), _CHUNK):
            await sink.send(topic, records[first : first + _CHUNK])
    await sink.stop()
