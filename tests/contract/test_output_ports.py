"""The contracts between ingest, output loop and read side, for the fakes and the real ones."""

import asyncio
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
import redis.asyncio as aioredis
from redis import Redis

from model.baselines.exponential_smoothing import SmoothingForecaster
from model.contract import FEATURE_NAMES, QuantileForecast
from model.durations import HOUR_MS
from stream.partition.closed import Closed, ClosedBuckets, ClosedBucketSink
from stream.serving.close_queue import MAX_WAITING
from stream.serving.model_server import ModelServer
from stream.serving.output_loop import OutputLoop
from stream.serving.ports import BucketServer, ForecastStore
from stream.serving.store_reads import read_forecast
from stream.sinks.readside_writer import ReadSideWriter
from stream.state.keys import Tag
from tests.support.memory_serving import MemoryHistory, ScriptedServer
from tests.support.memory_topics import MemoryCloses, MemoryForecasts, MemoryTopics

HORIZON = 2
QUANTILES = (0.1, 0.5, 0.9)


def closed(tag: Tag, *, buckets: int = 1) -> ClosedBuckets:
    """Closed buckets of one series, from 0 on."""
    values_SF = np.ones((1, len(FEATURE_NAMES)), np.float32)
    made = [Closed(n * HOUR_MS, values_SF, {}) for n in range(buckets)]
    return ClosedBuckets(tag, ["A"], made, buckets * HOUR_MS)


def forecast(origin_ms: int) -> QuantileForecast:
    """A forecast of one series."""
    units = np.full((1, HORIZON, len(QUANTILES)), origin_ms // HOUR_MS, np.float32)
    return QuantileForecast(
        origin_ms=origin_ms,
        bucket_ms=HOUR_MS,
        quantiles=QUANTILES,
        units_SHQ=units,
        cumulative_SHQ=np.cumsum(units, axis=1),
        mean_SH=units[:, :, 0],
        model_id="m",
    )


# -- closed buckets --------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "output loop"])
async def closes(request: pytest.FixtureRequest) -> AsyncIterator[ClosedBucketSink]:
    """A sink of closed buckets of each kind; nothing is taken out of it."""
    if request.param == "memory":
        yield MemoryCloses()
        return
    yield OutputLoop(
        ScriptedServer(),
        MemoryTopics(),
        MemoryForecasts(),
        bucket_ms=HOUR_MS,
        publish_every_ms=0,
        clock_ms=lambda: 0,
    )


async def test_a_few_closed_buckets_do_not_hold_the_input(closes: ClosedBucketSink) -> None:
    """Putting never waits, and there is room while few buckets are queued."""
    closes.put(closed(0, buckets=3))
    closes.put(closed(1, buckets=0))  # a partition that only has to be forecast
    closes.forget(0)
    closes.forget(7)  # of which nothing is known

    async with asyncio.timeout(30):
        await closes.wait_for_room()


async def test_a_long_queue_holds_the_input() -> None:
    """What the fake leaves out: the output loop asks the input to wait."""
    output = OutputLoop(
        ScriptedServer(),
        MemoryTopics(),
        MemoryForecasts(),
        bucket_ms=HOUR_MS,
        publish_every_ms=0,
        clock_ms=lambda: 0,
    )
    output.put(closed(0, buckets=MAX_WAITING + 1))
    waiting = asyncio.create_task(output.wait_for_room())
    await asyncio.sleep(0)
    assert not waiting.done()

    running = asyncio.create_task(output.run())
    async with asyncio.timeout(60):
        await waiting
    running.cancel()


# -- the serving model -----------------------------------------------------------------------------


@pytest.fixture(params=["scripted", "model server"])
def server(request: pytest.FixtureRequest) -> BucketServer:
    """A server of each kind over ten closed buckets of partition 0."""
    if request.param == "scripted":
        return ScriptedServer()
    fallback = SmoothingForecaster(horizon=HORIZON, bucket_ms=HOUR_MS, quantiles=QUANTILES)
    return ModelServer(fallback, MemoryHistory(buckets=10))


def test_a_server_forecasts_once_from_each_newest_bucket(server: BucketServer) -> None:
    """The origin is the end of the newest closed bucket; without a new one there is none."""
    assert server.swap_in() is False
    for hours in (4, 10):
        made = server.advance(0, hours * HOUR_MS)
        assert made is not None
        assert (made.origin_ms, made.model_id) == (hours * HOUR_MS, server.model_id)
    assert server.advance(0, 10 * HOUR_MS) is None


def test_a_forgotten_partition_is_forecast_as_a_new_one(server: BucketServer) -> None:
    """Its states are gone: the same origin can be forecast again."""
    first = server.advance(0, 10 * HOUR_MS)
    server.forget(0)
    again = server.advance(0, 10 * HOUR_MS)

    assert first is not None
    assert again is not None
    np.testing.assert_allclose(again.units_SHQ, first.units_SHQ, rtol=1e-5)


# -- the newest forecast ---------------------------------------------------------------------------

Read = Callable[[Tag], QuantileForecast | None]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
async def forecasts(request: pytest.FixtureRequest) -> AsyncIterator[tuple[ForecastStore, Read]]:
    """A store of forecasts of each kind, and how the newest of a partition is read back."""
    if request.param == "memory":
        kept = MemoryForecasts()
        yield kept, kept.newest.get
        return
    client: Redis = request.getfixturevalue("redis_client")
    connection = aioredis.Redis.from_url(request.getfixturevalue("valkey_url"))
    writer = ReadSideWriter(connection, ahead_retention_ms=9 * HOUR_MS)
    await writer.info({"quantiles": QUANTILES, "horizon": HORIZON, "bucket_ms": HOUR_MS})
    yield writer, lambda tag: read_forecast(client, tag)
    await connection.aclose()


async def test_the_newest_forecast_replaces_the_one_before(
    forecasts: tuple[ForecastStore, Read],
) -> None:
    """A partition has one forecast; others are not touched."""
    store, read = forecasts
    assert read(0) is None
    for tag, hours in ((0, 1), (1, 5), (0, 3)):
        await store.forecast(
            tag, forecast(hours * HOUR_MS), calibrated=False, watermark_ms=0, emitted_ms=0
        )

    newest, other = read(0), read(1)
    assert newest is not None
    assert other is not None
    assert (newest.origin_ms, other.origin_ms) == (3 * HOUR_MS, 5 * HOUR_MS)
    np.testing.assert_allclose(newest.units_SHQ, forecast(3 * HOUR_MS).units_SHQ, rtol=0.01)
