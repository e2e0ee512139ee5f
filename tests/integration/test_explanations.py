"""Explanations from a worker's states over the store to HTTP."""

import asyncio
import threading
import urllib.error
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import redis.asyncio as aioredis
from redis import Redis

from model.baselines.exponential_smoothing import SmoothingForecaster
from model.contract import FEATURE_NAMES
from model.durations import HOUR_MS
from model.inference.forecaster import Forecaster, NetworkForecaster
from stream.partition.closed import Closed, ClosedBuckets
from stream.processes.ports import free_port
from stream.readside.explanations import ExplanationReads
from stream.serving.model_server import ModelServer
from stream.serving.output_loop import OutputLoop
from stream.settings import load_settings
from stream.sinks.explanations import RedisExplanations
from stream.sinks.readside_writer import ReadSideWriter
from stream.state import keys
from stream.state.history import StoredHistory, load_history
from stream.worker.explanation_desk import ExplanationDesk
from tests.support.api_client import KEY, Api, ApiClient
from tests.support.deployments import Deployment
from tests.support.memory_topics import MemoryTopics
from tests.support.model_cases import random_model
from tests.support.samples import START_MS, small_orders
from tests.support.seeding import QUANTILES, Shop, stocked
from tests.support.stack import order_records, produce, statistics, wait_until

TAGS: list[keys.Tag] = [0, 1, keys.ROLLUPS]


class Worker:
    """The output side of a worker over a seeded shop, and its explanation desk."""

    def __init__(self, shop: Shop, valkey_url: str, forecaster: Forecaster) -> None:
        self.shop = shop
        self.store = aioredis.Redis.from_url(valkey_url)
        server = ModelServer(forecaster, self.history)
        self.output = OutputLoop(
            server,
            MemoryTopics(),
            ReadSideWriter(self.store, ahead_retention_ms=9 * HOUR_MS),
            bucket_ms=HOUR_MS,
            publish_every_ms=0,
            clock_ms=lambda: 0,
        )
        self.desk = ExplanationDesk(
            server,
            RedisExplanations(self.store),
            tags=lambda: TAGS,
            between_steps=self.output.between_steps,
        )
        self.tasks: list[asyncio.Task[None]] = []

    def history(
        self, tag: keys.Tag, from_ms: int | None, to_ms: int | None
    ) -> Iterator[StoredHistory]:
        """All stored buckets in one portion."""
        whole = load_history(self.shop.redis, tag, bucket_ms=HOUR_MS, from_ms=from_ms, to_ms=to_ms)
        if whole is not None:
            yield StoredHistory(
                whole.start_ms, whole.end_ms, whole.series, whole.values_TSF, is_last=True
            )

    async def start(self) -> None:
        """Serve, and answer requests."""
        self.tasks = [
            asyncio.create_task(self.output.run()),
            asyncio.create_task(self.desk.run(every_s=0.02)),
        ]

    async def close_bucket(self) -> None:
        """Close a bucket of every partition and serve it."""
        self.shop.close()
        through_ms = self.shop.closed_through_ms
        for tag in TAGS:
            names = [
                name.decode() for name in self.shop.redis.lrange(keys.of(tag, "series"), 0, -1)
            ]
            block_SF = np.zeros((len(names), len(FEATURE_NAMES)), np.float32)
            closed = [Closed(through_ms - HOUR_MS, block_SF, {})]
            self.output.put(ClosedBuckets(tag, names, closed, through_ms))
        while not self.output.idle:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Stop all tasks."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.store.aclose()


def network() -> NetworkForecaster:
    """A network with random weights."""
    return NetworkForecaster(random_model(3, span_end_ms=0).network, "n")


@pytest.fixture
def shop(redis_client: Redis) -> Shop:
    return stocked(redis_client, days=2, n_series=12, partitions=2, horizon=6)


@pytest.fixture
async def worker(shop: Shop, valkey_url: str) -> AsyncIterator[Worker]:
    """A worker that has served one close with a network."""
    worker = Worker(shop, valkey_url, network())
    await worker.start()
    await worker.close_bucket()
    yield worker
    await worker.stop()


@pytest.fixture
def api(shop: Shop) -> Iterator[Api]:
    with Api(shop.redis, load_settings(api={"keys": [KEY]}).api) as api:
        yield api


def path_of(series_id: str) -> str:
    return f"/v1/explanations/{urllib.parse.quote(series_id, safe='')}"


def require_explained(answer: Any, forecast: Any) -> None:
    """Fail unless the parts sum to the published medians of this very forecast."""
    for name in ("series_id", "origin_ms", "model_id", "bucket_ms"):
        assert answer[name] == forecast[name]
    middle = forecast["quantiles"].index(answer["quantile"])
    for block in ("units", "cumulative_units"):
        total_H = np.sum([part[block] for part in answer["contributions"]], axis=0)
        median_H = [row[middle] for row in forecast[block]]
        assert answer[block] == median_H
        np.testing.assert_allclose(total_H, median_H, rtol=1e-3, atol=1e-3)


async def test_the_parts_of_a_served_forecast_sum_to_its_median(worker: Worker, api: Api) -> None:
    """For a SKU and a roll-up; without calibration almost nothing is left for the adjustment."""
    for series_id in (worker.shop.names[3], "total"):
        answer = await asyncio.to_thread(api.get, path_of(series_id))
        forecast = await asyncio.to_thread(api.get, f"/v1/forecasts/{series_id}")

        require_explained(answer, forecast)
        parts = {part["name"]: part for part in answer["contributions"]}
        assert {"level", "week", "history", "network", "adjustment"} <= set(parts)
        assert len(parts["week"]["factors"]) == len(answer["special_days"]) == 6
        assert parts["history"]["factors"] is None
    busy = np.array(answer["units"]) > 0
    assert busy.any()
    assert np.abs(np.array(parts["adjustment"]["units"])[busy]).max() < 0.01 * max(answer["units"])


async def test_an_explanation_follows_the_newest_forecast(worker: Worker, api: Api) -> None:
    """A watched series is explained after every close, without another request."""
    name = worker.shop.names[5]
    before = await asyncio.to_thread(api.get, path_of(name))
    await worker.close_bucket()
    after = await asyncio.to_thread(api.get, path_of(name))
    await worker.close_bucket()
    forecast = await asyncio.to_thread(api.get, f"/v1/forecasts/{name}")
    reads, found = ExplanationReads(worker.shop.redis), (1, 2)
    for _ in range(500):
        [stored] = await asyncio.to_thread(reads.read, [found])
        if stored is not None and stored.origin_ms == forecast["origin_ms"]:
            break
        await asyncio.sleep(0.02)

    assert after["origin_ms"] == before["origin_ms"] + HOUR_MS
    assert stored is not None
    assert (stored.origin_ms, stored.model_id) == (forecast["origin_ms"], "n")
    assert worker.shop.redis.smembers(keys.of(1, "asked")) == set()


async def test_the_fallback_has_no_explanation(shop: Shop, valkey_url: str, api: Api) -> None:
    """The answer is a 404 that says why."""
    fallback = SmoothingForecaster(horizon=6, bucket_ms=HOUR_MS, quantiles=QUANTILES)
    worker = Worker(shop, valkey_url, fallback)
    await worker.start()
    await worker.close_bucket()

    problem = await asyncio.to_thread(api.problem, path_of("total"))

    assert problem["type"].endswith(":no-explanation")
    assert "fallback" in problem["detail"]
    await worker.stop()


def test_a_silent_worker_is_a_503_to_try_again(shop: Shop, api: Api) -> None:
    """Nobody answers the request, which expires."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        api.get(path_of("total"))
    with caught.value as error:
        assert (error.code, error.headers["Retry-After"]) == (503, "1")
    ttl: Any = shop.redis.ttl(keys.of(keys.ROLLUPS, "asked"))
    assert 0 < ttl <= 30
    problem = api.problem(path_of("total"))
    assert problem["type"].endswith(":explanation-not-ready")


def test_other_problems_are_those_of_forecasts(shop: Shop, api: Api) -> None:
    """An unknown series, a missing key, a horizon that is no number of buckets."""
    assert api.problem(path_of("no such"))["type"].endswith(":unknown-series")
    assert api.problem(path_of("total"), key=None)["status"] == 401
    assert api.problem(path_of("total") + "?horizon=0")["status"] == 422


def test_waiting_requests_do_not_hold_the_reader(shop: Shop, api: Api) -> None:
    """Fifty of them, and a forecast is answered before the first gives up."""
    waiting = [threading.Thread(target=api.problem, args=(path_of("total"),)) for _ in range(50)]
    for thread in waiting:
        thread.start()

    assert api.get("/v1/forecasts/total")["series_id"] == "total"
    assert any(thread.is_alive() for thread in waiting)
    for thread in waiting:
        thread.join()


@pytest.fixture
def deployment_settings() -> dict[str, dict[str, Any]]:
    return {"model": {"horizon": 6, "device": "cpu"}, "api": {"port": free_port()}}


def test_a_real_worker_explains_its_forecasts(deployment: Deployment) -> None:
    """Also after a restart, without waiting for the next bucket."""
    worker = deployment.start("worker")
    deployment.start("api", role="api")
    lines = small_orders(1_240, seed=1, skus=5, hours=31, start_ms=START_MS)
    produce(deployment.servers, "orders", order_records(lines))

    def champion_serves() -> bool:
        reports = statistics(deployment.redis)
        return any("pretrained" in one["model_id"] and one["forecasts"] for one in reports)

    wait_until(champion_serves, "forecasts of the pretrained network")
    client = ApiClient(f"http://127.0.0.1:{deployment.settings.api.port}")
    name = str(lines["sku"][0])

    def explained() -> Any:
        try:
            return client.get(path_of(name), key=None)
        except (urllib.error.HTTPError, urllib.error.URLError):
            return None

    wait_until(lambda: explained() is not None, "an explanation")
    require_explained(explained(), client.get(f"/v1/forecasts/{name}", key=None))
    assert worker.stop() == 0
    deployment.redis.delete(*deployment.redis.keys("sc2:*:explained:*"))
    deployment.start("worker-again")
    wait_until(lambda: explained() is not None, "an explanation by the next worker")
    require_explained(explained(), client.get(f"/v1/forecasts/{name}", key=None))
