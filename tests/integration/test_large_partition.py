"""A partition with several pages per block in a real store: readers find every series."""

from collections.abc import AsyncIterator

import numpy as np
import pytest
import redis.asyncio as aioredis
from redis import Redis

from model.contract import QuantileForecast
from model.durations import HOUR_MS
from stream.features.definitions import N_FEATURES, N_SUMS, UNITS
from stream.features.packed_block import PACKED_BYTES
from stream.ingest.restore import stored_closes
from stream.ingest.rollups import Rollups
from stream.jobs.backfill import write_info
from stream.partition.open_bucket import OpenBucket
from stream.partition.partition import Partition
from stream.readside.reader import Reader
from stream.settings import Settings
from stream.sinks.readside_writer import ReadSideWriter
from stream.state import history, pages
from stream.state.closed_buckets import closed_paths
from stream.state.history import load_history, read_history
from stream.state.keys import of
from stream.state.redis import RedisStore

START_MS = 472_000 * HOUR_MS
PAGE = pages.rows_per_page(PACKED_BYTES)
SERIES = 2 * PAGE + 7
#: Series join one after the other: the first bucket has fewer rows and pages.
SIZES = (PAGE - 1, PAGE, SERIES, SERIES)
SETTINGS = Settings(kafka={"partitions": 1})
LEVELS = len(SETTINGS.model.quantiles)


@pytest.fixture
async def client(valkey_url: str, redis_client: Redis) -> AsyncIterator[aioredis.Redis]:
    """Client of an empty store."""
    made = aioredis.Redis.from_url(valkey_url)
    yield made
    await made.aclose()


def close(partition: Partition, start_ms: int, sums_SF: np.ndarray) -> None:
    """Close the bucket at `start_ms` with these sums."""
    bucket = OpenBucket(len(sums_SF))
    bucket.sums_SF[:] = sums_SF
    partition.state.open[start_ms] = bucket
    partition.close_through(start_ms + HOUR_MS)


@pytest.fixture
async def values_TSF(client: aioredis.Redis, redis_client: Redis) -> np.ndarray:
    """Closed and stored buckets of a partition with `SERIES` series, with roll-ups."""
    rng = np.random.default_rng(0)
    values_TSF = np.zeros((len(SIZES), SERIES, N_FEATURES), np.float32)
    store = RedisStore(client)
    token = await store.acquire(0)
    partition = Partition(0, SETTINGS.window, retention_ms=SETTINGS.state.retention)
    for t, size in enumerate(SIZES):
        partition.state.series.slots([f"S{slot}" for slot in range(size)])
        sums_SF = rng.integers(1, 9, (size, N_SUMS))
        close(partition, START_MS + t * HOUR_MS, sums_SF)
        values_TSF[t, :size] = partition.state.closed_unsaved[-1].values_SF
    await store.apply(0, token, partition.state.take_write()[0])
    rollups = Rollups(store, 1, bucket_ms=HOUR_MS, retention_ms=SETTINGS.state.retention)
    await rollups.acquire()
    await rollups.close()
    write_info(redis_client, SETTINGS, 1, {})
    return values_TSF


async def test_every_reader_finds_every_row(
    redis_client: Redis, client: aioredis.Redis, values_TSF: np.ndarray
) -> None:
    """Series by series, as one array, and as closed buckets to publish again."""
    reader = Reader(redis_client)
    reader.refresh()
    for slot in (0, PAGE - 2, PAGE - 1, PAGE, 2 * PAGE - 1, 2 * PAGE, SERIES - 1):
        read = reader.history(f"S{slot}", 0, 2**62)
        assert read.values_TF.tolist() == values_TSF[:, slot].tolist()
    loaded = load_history(redis_client, 0, bucket_ms=HOUR_MS)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.values_TSF, values_TSF)
    again = await stored_closes(
        RedisStore(client), 0, SERIES, range(START_MS, START_MS + 4 * HOUR_MS, HOUR_MS)
    )
    np.testing.assert_array_equal([closed.values_SF for closed in again], values_TSF)
    assert not redis_client.exists(of(0, *closed_paths(START_MS, SERIES)[1]))


def test_movers_count_the_series_of_every_page(redis_client: Redis, values_TSF: np.ndarray) -> None:
    """Series are ordered by the units in their blocks."""
    reader = Reader(redis_client)
    reader.refresh()
    reader.movers(1)
    by_volume = [name for name in reader.by_volume() if name.startswith("S")]
    units_S = values_TSF[:, :, UNITS].sum(axis=0)

    assert [units_S[int(name[1:])] for name in by_volume] == sorted(units_S, reverse=True)


@pytest.mark.parametrize("pages_a_trip", [1, 4, 100])
def test_portions_add_up_to_the_history(
    redis_client: Redis, values_TSF: np.ndarray, monkeypatch: pytest.MonkeyPatch, pages_a_trip: int
) -> None:
    """They are in order without a gap; only the last one is marked as the last."""
    monkeypatch.setattr(history, "_CHUNK_PAGES", pages_a_trip)
    portions = list(read_history(redis_client, 0, bucket_ms=HOUR_MS, from_ms=START_MS + HOUR_MS))

    joined_TSF = np.concatenate([portion.values_TSF for portion in portions])
    np.testing.assert_array_equal(joined_TSF, values_TSF[1:])
    assert [portion.start_ms for portion in portions[1:]] == [p.end_ms for p in portions[:-1]]
    assert [portion.is_last for portion in portions] == [False] * (len(portions) - 1) + [True]
    assert len(portions) == {1: 3, 4: 3, 100: 1}[pages_a_trip]


async def test_a_forecast_is_read_from_its_page(
    redis_client: Redis, client: aioredis.Redis, values_TSF: np.ndarray
) -> None:
    """Newest forecast and past band of a series on a later page."""
    units_SHQ = np.zeros((SERIES, 24, LEVELS), np.float32) + np.arange(SERIES)[:, None, None]
    forecast = QuantileForecast(
        START_MS + 4 * HOUR_MS, HOUR_MS, SETTINGS.model.quantiles, units_SHQ, 2 * units_SHQ,
        3 * units_SHQ[..., 0], "m",
    )  # fmt: skip
    read_side = ReadSideWriter(client, ahead_retention_ms=9 * HOUR_MS)
    await read_side.ahead(0, forecast, origin_ms=START_MS + 2 * HOUR_MS)
    await read_side.forecast(0, forecast, calibrated=False, watermark_ms=0, emitted_ms=0)
    reader = Reader(redis_client)
    reader.refresh()

    found = reader.forecast("S2048")
    assert found is not None
    assert (found.units_HQ[0, 0], found.cumulative_HQ[23, 8]) == (2_048, 4_096)
    assert found.mean_H[0] == 3 * 2_048
    ahead_T3 = reader.ahead("S2048", START_MS + HOUR_MS, START_MS + 4 * HOUR_MS)
    assert np.isnan(ahead_T3[[0, 2]]).all()
    np.testing.assert_allclose(ahead_T3[1], 2_048, rtol=0.012)


async def test_the_store_does_not_grow_after_the_retention(
    redis_client: Redis, client: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expired pages are deleted with their roll-ups and bands."""
    monkeypatch.setattr(pages, "PAGE_BYTES", 8 * PACKED_BYTES)
    retention_ms = 24 * HOUR_MS
    store = RedisStore(client)
    token = await store.acquire(0)
    partition = Partition(0, SETTINGS.window, retention_ms=retention_ms)
    partition.state.series.slots([f"S{slot}@B" for slot in range(20)])
    rollups = Rollups(store, 1, bucket_ms=HOUR_MS, retention_ms=retention_ms)
    await rollups.acquire()
    read_side = ReadSideWriter(client, ahead_retention_ms=retention_ms)
    units_SHQ = np.ones((20, 2, LEVELS), np.float32)
    keys: list[int] = []
    sizes: list[int] = []
    for t in [*range(200), *range(230, 330, 3), *range(600, 602)]:
        close(partition, START_MS + t * HOUR_MS, np.full((20, N_SUMS), t + 1))
        await store.apply(0, token, partition.state.take_write()[0])
        for closed in await rollups.close():
            forecast = QuantileForecast(
                closed.start_ms, HOUR_MS, SETTINGS.model.quantiles, units_SHQ, units_SHQ,
                units_SHQ[..., 0], "m",
            )  # fmt: skip
            await read_side.forecast(0, forecast, calibrated=False, watermark_ms=0, emitted_ms=0)
        keys.append(redis_client.dbsize())
        if t in {49, 199}:
            sizes.append(
                sum(len(redis_client.dump(key) or b"") for key in redis_client.scan_iter())
            )

    assert len(set(keys[50:200])) == 1
    assert keys[50] > 24 * (3 + 1 + 1)
    assert max(keys[200:]) <= keys[50]
    assert abs(sizes[1] - sizes[0]) < 0.02 * sizes[0]
