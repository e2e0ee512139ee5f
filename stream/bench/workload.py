"""Events of the ingest benchmark: orders and clicks of a seeded shop, 1 : 20, sorted by event time.

20,000 SKUs with Zipf popularity, JSON records keyed by SKU. They are sent to the broker before
anything is measured.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.durations import HOUR_MS
from stream.kafka.producer import BatchProducer
from stream.topics import CLICKS, ORDERS

START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS
_ACTIONS = ("view", "view", "view", "view", "view", "view", "view", "cart", "remove", "purchase")
_CHUNK = 50_000


@dataclass(frozen=True, slots=True)
class Workload:
    """Size of the load: `events` in all, over `span_ms` of event time."""

    events: int = 2_000_000
    skus: int = 20_000
    span_ms: int = 2 * HOUR_MS
    seed: int = 0

    @property
    def orders(self) -> int:
        """Order lines among the events."""
        return self.events // 21

    @property
    def clicks(self) -> int:
        """Clicks among the events."""
        return self.events - self.orders


def _times(rng: np.random.Generator, n: int, span_ms: int) -> list[int]:
    times: list[int] = (START_MS + np.sort(rng.integers(0, span_ms, n))).tolist()
    return times


def _skus(rng: np.random.Generator, n: int, skus: int) -> list[str]:
    popularity = 1 / np.arange(1, skus + 1) ** 1.1
    chosen = rng.choice(skus, n, p=popularity / popularity.sum())
    return [f"SKU{number:05d}" for number in chosen.tolist()]


def order_records(load: Workload) -> Iterator[tuple[str, bytes]]:
    """SKU and JSON of every order line.

    >>> next(order_records(Workload(events=21, skus=3)))[1][:16]
    b'{"event_id":"o-0'
    """
    rng = np.random.default_rng(load.seed)
    n = load.orders
    quantity = rng.geometric(0.4, n).tolist()
    price = (rng.integers(100, 9_900, n) / 100).tolist()
    for i, (ts, sku) in enumerate(
        zip(_times(rng, n, load.span_ms), _skus(rng, n, load.skus), strict=True)
    ):
        yield (
            sku,
            b'{"event_id":"o-%d","ts":%d,"sku":"%b","quantity":%d,"unit_price":%b,'
            b'"order_id":"%d","customer_id":"c%d"}'
            % (
                i, ts, sku.encode(), quantity[i], repr(price[i]).encode(), i // 3, i % 5_000,
            ),
        )  # fmt: skip


def click_records(load: Workload) -> Iterator[tuple[str, bytes]]:
    """SKU and JSON of every click."""
    rng = np.random.default_rng(load.seed + 1)
    n = load.clicks
    visitor = rng.integers(0, 200_000, n).tolist()
    action = rng.integers(0, len(_ACTIONS), n).tolist()
    for i, (ts, sku) in enumerate(
        zip(_times(rng, n, load.span_ms), _skus(rng, n, load.skus), strict=True)
    ):
        yield (
            sku,
            b'{"event_id":"c-%d","ts":%d,"sku":"%b","action":"%b","visitor_id":"v%d","price":9.5}'
            % (i, ts, sku.encode(), _ACTIONS[action[i]].encode(), visitor[i]),
        )


async def _send(client: dict[str, Any], load: Workload, *, batched: bool) -> None:
    sink = BatchProducer(client) if batched else BatchProducer(client, max_batch_bytes=1)
    await sink.start()
    for topic, records in ((ORDERS, order_records(load)), (CLICKS, click_records(load))):
        chunk: list[tuple[str, bytes]] = []
        for record in records:
            chunk.append(record)
            if len(chunk) == _CHUNK:
                await sink.send(topic.name, chunk)
                chunk = []
        await sink.send(topic.name, chunk)
    await sink.stop()


def send(client: dict[str, Any], load: Workload, *, batched: bool = True) -> None:
    """Send the load to the topics `orders` and `clicks`; unbatched: one record per broker batch."""
    asyncio.run(_send(client, load, batched=batched))
