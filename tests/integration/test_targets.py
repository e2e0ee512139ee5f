"""Revenue and visitors, from a model to the topic, the store, its reader and HTTP."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import redis.asyncio as aioredis
from redis import Redis

from model.baselines.exponential_smoothing import SmoothingForecaster
from model.config import TARGETS, Target
from model.contract import FEATURE_NAMES
from model.durations import HOUR_MS
from model.inference.forecaster import Forecaster, NetworkForecaster
from stream.api.forecasts import forecast_body
from stream.partition.closed import Closed, ClosedBuckets
from stream.readside.reader import Reader
from stream.readside.series_answers import SeriesForecast
from stream.serving.model_server import ModelServer
from stream.serving.output_loop import OutputLoop
from stream.sinks.readside_writer import ReadSideWriter
from stream.state import keys
from stream.state.history import StoredHistory, load_history
from tests.support.memory_topics import MemoryTopics
from tests.support.model_cases import random_model
from tests.support.seeding import QUANTILES, Shop, stocked


class Worker:
    """The output side of a worker over a seeded shop, with one model serving."""

    def __init__(self, shop: Shop, valkey_url: str) -> None:
        self.shop, self.topics = shop, MemoryTopics()
        self.store = aioredis.Redis.from_url(valkey_url)
        self.read_side = ReadSideWriter(self.store, ahead_retention_ms=9 * HOUR_MS)

    def history(
        self, tag: keys.Tag, from_ms: int | None, to_ms: int | None
    ) -> Iterator[StoredHistory]:
        """All stored buckets in one portion."""
        whole = load_history(self.shop.redis, tag, bucket_ms=HOUR_MS, from_ms=from_ms, to_ms=to_ms)
        if whole is not None:
            yield StoredHistory(
                whole.start_ms, whole.end_ms, whole.series, whole.values_TSF, is_last=True
            )

    async def serve(self, forecaster: Forecaster) -> None:
        """Close a bucket and pass it through the output loop."""
        self.shop.close()
        output = OutputLoop(
            ModelServer(forecaster, self.history),
            self.topics,
            self.read_side,
            bucket_ms=HOUR_MS,
            publish_every_ms=0,
            clock_ms=lambda: 0,
        )
        names = [name for name, tag, _ in self.reader().series() if tag == 0]
        through_ms = self.shop.closed_through_ms
        block_SF = np.zeros((len(names), len(FEATURE_NAMES)), np.float32)
        running = asyncio.create_task(output.run())
        closed = [Closed(through_ms - HOUR_MS, block_SF, {})]
        output.put(ClosedBuckets(0, names, closed, through_ms))
        while not output.idle:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
        assert not running.done()
        running.cancel()

    def reader(self) -> Reader:
        """A reader with the present state."""
        reader = Reader(self.shop.redis)
        reader.refresh()
        return reader


def network(targets: tuple[Target, ...]) -> NetworkForecaster:
    """A network with random weights."""
    return NetworkForecaster(random_model(3, span_end_ms=0, targets=targets).network, "n")


@pytest.fixture
async def worker(redis_client: Redis, valkey_url: str) -> AsyncIterator[Worker]:
    """A worker over a shop of twelve series in two partitions."""
    worker = Worker(stocked(redis_client, days=2, n_series=12, partitions=2, horizon=6), valkey_url)
    yield worker
    await worker.store.aclose()


def body(forecast: SeriesForecast) -> dict[str, Any]:
    """Body of the HTTP answer."""
    return forecast_body(forecast, horizon=2, quantiles=[0.1, 0.9]).model_dump(exclude_unset=True)


async def test_the_targets_of_a_model_reach_topic_store_and_api(worker: Worker) -> None:
    """The numbers are the same, in the precision of each place."""
    await worker.serve(network(TARGETS))

    reader = worker.reader()
    sent = worker.topics.read("forecasts")
    assert len(sent) == sum(tag == 0 for _, tag, _ in reader.series())
    for record in sent:
        found = reader.forecast(record["series_id"])
        assert found is not None
        assert set(found.targets) == set(TARGETS)
        for target in TARGETS:
            block_HQ = np.array(record[target])
            assert block_HQ.shape == (6, 9)
            assert (np.diff(block_HQ, axis=1) >= 0).all()
            np.testing.assert_allclose(found.targets[target], block_HQ, rtol=1e-3, atol=2e-3)
            answer = np.array(body(found)[target])
            np.testing.assert_array_equal(answer, found.targets[target][:2, [0, 8]])
    assert max(np.max(record["revenue"]) for record in sent) > 1


async def test_a_single_target_is_published_alone(worker: Worker) -> None:
    await worker.serve(network(("visitors",)))

    [first, *_] = worker.topics.read("forecasts")
    found = worker.reader().forecast(first["series_id"])
    assert found is not None
    assert ("visitors" in first, "revenue" in first) == (True, False)
    assert list(found.targets) == ["visitors"]


async def test_a_model_without_targets_removes_those_of_the_model_before(worker: Worker) -> None:
    """Also if another worker served that model."""
    fallback = SmoothingForecaster(horizon=6, bucket_ms=HOUR_MS, quantiles=QUANTILES)
    reader = worker.reader()
    await worker.serve(network(TARGETS))
    name = worker.topics.read("forecasts")[0]["series_id"]
    before = reader.forecast(name)
    worker.read_side = ReadSideWriter(worker.store, ahead_retention_ms=9 * HOUR_MS)

    await worker.serve(fallback)

    after = reader.forecast(name)
    assert before is not None
    assert after is not None
    assert (set(before.targets), set(after.targets)) == (set(TARGETS), set())
    assert not set(worker.topics.read("forecasts")[-1]) & set(TARGETS)
    assert not set(body(after)) & set(TARGETS)
    stored = {key.decode() for key in worker.shop.redis.keys(keys.of(0, "forecast", "*"))}
    assert stored == {keys.of(0, "forecast", "rows")}
    assert worker.shop.redis.hget(keys.of(0, "forecast"), "targets") is None
