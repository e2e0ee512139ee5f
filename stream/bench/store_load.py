"""Fills the store for `bench store` with the state of weeks, written as workers write it.

Series appear and sell by Zipf's law, and most sell nothing in most hours. Every block goes through
`Partition`, its store writes and the state port. It then adds an open bucket of real events, with
visitors and the deduplication window, roll-ups, forecasts, and the stored parts of past
forecasts: bands, samples to be scored, calibration levels.

Axes: S = slots of a partition, F = features, N = events.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import redis
import redis.asyncio as aioredis
from numpy.typing import NDArray

from model.durations import DAY_MS
from model.inference.forecaster import Forecaster
from stream.decoding.columns import ClickColumns, OrderColumns
from stream.decoding.inventory import InventoryColumns
from stream.features.definitions import (
    CARTS,
    MONEY_TICKS,
    ORDERS,
    PURCHASES,
    REMOVES,
    REVENUE,
    UNITS,
    VIEWS,
    VISITORS,
)
from stream.ingest.rollups import Rollups
from stream.jobs.backfill import write_info
from stream.kafka.partitioner import partition_of
from stream.partition.open_bucket import OpenBucket
from stream.partition.partition import Partition
from stream.privacy import Pseudonyms
from stream.scoring.live_scoring import LiveScoring
from stream.scoring.store_reads import StoreReads
from stream.settings import Settings
from stream.sinks.readside_writer import AHEAD_RETENTION_MS, ReadSideWriter
from stream.state.history import load_history
from stream.state.keys import ROLLUPS, Tag
from stream.state.redis import RedisStore

Ints = NDArray[np.int64]
#: Receives the number of written blocks and of all blocks.
Show = Callable[[int, int], None]

START_MS = 1_700_000_000_000 // DAY_MS * DAY_MS
CATEGORIES = 50
#: Distinct hours per partition; they repeat, since the store does not compress.
_HOURS = 24
#: Closed buckets per flush, as many as a restarted worker closes at once.
_BUCKETS_PER_FLUSH = 8
_CLICKS_PER_ORDER = 20


@dataclass(frozen=True, slots=True)
class StoreLoad:
    """Size of the store: `series` in all, `buckets` closed of `bucket_ms`, half a bucket open."""

    series: int
    buckets: int
    partitions: int
    bucket_ms: int
    seed: int = 0

    @property
    def events_per_s(self) -> float:
        """Events per second: eleven per hour and series."""
        return 0.003 * self.series

    @property
    def end_ms(self) -> int:
        """End of the last closed bucket."""
        return START_MS + self.buckets * self.bucket_ms


class Shop:
    """The series of one partition in order of appearance, and their sales."""

    def __init__(self, load: StoreLoad, number: int) -> None:
        self.load = load
        popularity = 1 / np.arange(1, load.series + 1) ** 1.1
        popularity /= popularity.sum()
        skus = [f"SKU{n:07d}" for n in range(load.series)]
        home = np.array([partition_of(sku.encode(), load.partitions) for sku in skus])
        mine = np.flatnonzero(home == number)
        self.rng = np.random.default_rng([load.seed, number])
        first_S = self.rng.exponential(size=len(mine)) / popularity[mine]
        mine = mine[np.argsort(first_S)]
        self.names = [skus[n] for n in mine.tolist()]
        self.share_S = popularity[mine]
        self.price_S = np.exp(self.rng.normal(1.0, 0.7, len(mine)))
        self.category_S = self.rng.integers(0, CATEGORIES, len(mine))

    def hour(self, hour: int, sums_SF: Ints) -> None:
        """Draw one bucket's sums at an hour of the day, into `sums_SF`."""
        rng, load = self.rng, self.load
        busy = 1 + 0.8 * np.sin((hour - 8) * np.pi / 12)
        mean_S = self.share_S * load.events_per_s * load.bucket_ms / 1_000 * busy
        orders_S = rng.poisson(mean_S / (_CLICKS_PER_ORDER + 1))
        clicks_S = rng.poisson(mean_S)
        carts_S = rng.binomial(clicks_S, 0.1)
        sums_SF[:, ORDERS] = orders_S
        sums_SF[:, UNITS] = orders_S + rng.poisson(orders_S * 0.8)
        sums_SF[:, REVENUE] = np.rint(sums_SF[:, UNITS] * self.price_S * MONEY_TICKS)
        sums_SF[:, VIEWS] = clicks_S - carts_S
        sums_SF[:, CARTS] = carts_S
        sums_SF[:, REMOVES] = rng.binomial(carts_S, 0.2)
        sums_SF[:, PURCHASES] = orders_S
        sums_SF[:, VISITORS] = rng.binomial(clicks_S, 0.7)

    def readings(self) -> InventoryColumns:
        """Columns of one stock reading for every series, at the start."""
        n = len(self.names)
        units_N, unknown_N = self.rng.integers(0, 500, n), np.full(n, -1)
        times_N = np.full(n, START_MS)
        return InventoryColumns(np.arange(n), times_N, self.names, units_N, units_N, unknown_N, [])

    def events(self, n_orders: int, n_clicks: int) -> tuple[OrderColumns, ClickColumns]:
        """Columns of the open bucket's events, sorted by event time."""
        rng, load = self.rng, self.load
        share_S = self.share_S / self.share_S.sum()

        def common(n: int) -> tuple[Ints, Ints, list[str], NDArray[np.uint64]]:
            times_N = load.end_ms + np.sort(rng.integers(0, load.bucket_ms // 2, n))
            names = [self.names[slot] for slot in rng.choice(len(share_S), n, p=share_S).tolist()]
            return np.arange(n), times_N, names, rng.integers(0, 2**63, n).astype(np.uint64)

        quantity_N = rng.geometric(0.5, n_orders)
        orders = OrderColumns(*common(n_orders), [], quantity_N, np.full(n_orders, 9.5))
        visitors = [f"v{n}" for n in rng.integers(0, 200_000, n_clicks).tolist()]
        clicks = ClickColumns(*common(n_clicks), [], np.full(n_clicks, VIEWS), visitors)
        return orders, clicks


async def _fill_partition(store: RedisStore, load: StoreLoad, shop: Shop, partition: Partition,
                          written: Callable[[], None]) -> None:  # fmt: skip
    token = await store.acquire(partition.state.number)
    for name, category in zip(shop.names, shop.category_S.tolist(), strict=True):
        partition.categorise(name, f"Category {category}")
    partition.state.series.slots(shop.names)
    partition.state.moved_to("orders", 0)
    partition.take_readings(shop.readings())
    buckets = [OpenBucket(len(shop.names)) for _ in range(min(_HOURS, load.buckets))]
    for hour, bucket in enumerate(buckets):
        shop.hour(hour, bucket.sums_SF)
    for t in range(load.buckets):
        start_ms = START_MS + t * load.bucket_ms
        partition.state.open[start_ms] = buckets[t % len(buckets)]
        partition.close_through(start_ms + load.bucket_ms)
        if (t + 1) % _BUCKETS_PER_FLUSH == 0 or t + 1 == load.buckets:
            write, _ = partition.state.take_write()
            await store.apply(partition.state.number, token, write)
        written()
    n_events = load.events_per_s * load.bucket_ms / 2_000 * shop.share_S.sum()
    n_orders = int(n_events / (_CLICKS_PER_ORDER + 1))
    orders, clicks = shop.events(n_orders, int(n_events) - n_orders)
    partition.count_orders(orders)
    partition.count_clicks(clicks, Pseudonyms(b"bench"))
    write, _ = partition.state.take_write()
    await store.apply(partition.state.number, token, write)


async def _fill(url: str, settings: Settings, load: StoreLoad, show: Show) -> None:
    client = aioredis.Redis.from_url(url)
    store = RedisStore(client)
    retention_ms = settings.state.retention
    done = 0

    def written() -> None:
        nonlocal done
        done += 1
        show(done, load.buckets * load.partitions)

    for number in range(load.partitions):
        partition = Partition(number, settings.window, retention_ms=retention_ms)
        await _fill_partition(store, load, Shop(load, number), partition, written)
    rollups = Rollups(store, load.partitions, bucket_ms=load.bucket_ms, retention_ms=retention_ms)
    await rollups.acquire()
    while await rollups.close():
        pass
    await client.aclose()


async def _forecast(
    url: str, blocking: redis.Redis, settings: Settings, load: StoreLoad, forecaster: Forecaster
) -> None:
    """Write the newest forecast of every partition, and the stored parts of earlier ones.

    These are bands, samples not yet scored, calibration levels and scores.
    """
    scoring = LiveScoring(settings.calibration, StoreReads(blocking))
    client = aioredis.Redis.from_url(url)
    read_side = ReadSideWriter(client, ahead_retention_ms=AHEAD_RETENTION_MS)
    tags: list[Tag] = [*range(load.partitions), ROLLUPS]
    for tag in tags:
        last_ms = load.end_ms - load.bucket_ms
        newest = load_history(blocking, tag, bucket_ms=load.bucket_ms, from_ms=last_ms)
        if newest is None:
            continue
        states = forecaster.new_states(len(newest.series))
        forecast = forecaster.step(states, newest.values_TSF[-1], last_ms)
        for back in range(1, min(AHEAD_RETENTION_MS // load.bucket_ms, load.buckets)):
            await read_side.ahead(tag, forecast, origin_ms=load.end_ms - back * load.bucket_ms)
        for back in reversed(range(min(forecaster.horizon, load.buckets))):
            origin_ms = load.end_ms - back * load.bucket_ms
            scored = scoring.score_and_correct(tag, replace(forecast, origin_ms=origin_ms))
            await read_side.forecast(
                tag, scored.forecast, calibrated=scored.calibrated,
                watermark_ms=origin_ms, emitted_ms=origin_ms, write=scored.write,
            )  # fmt: skip
    await client.aclose()


def fill(
    url: str, settings: Settings, load: StoreLoad, forecaster: Forecaster, *, show: Show
) -> None:
    """Fill an empty store."""
    asyncio.run(_fill(url, settings, load, show))
    with redis.Redis.from_url(url) as blocking:
        write_info(
            blocking, settings, load.partitions, {"orders": "synthetic", "clicks": "synthetic"}
        )
        asyncio.run(_forecast(url, blocking, settings, load, forecaster))
