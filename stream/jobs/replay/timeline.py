"""Merges orders and clicks into one sequence in event-time order, and encodes them for Kafka.

Events with equal times stay in the order of the files, orders before clicks. Missing values are
left out of the JSON, so that the worker, not the replay, rejects an invalid record.

Axes: N = events of both files in event-time order.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import repeat
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream.kafka.partitioner import partition_of
from stream.topics import CATALOG, CLICKS, ORDERS

Ints = NDArray[np.int64]

#: Topic, key, value, partition.
Record = tuple[str, bytes | None, bytes, int]


class _OrderRecord(msgspec.Struct, omit_defaults=True, gc=False):
    event_id: str | None = None
    ts: int | None = None
    sku: str | None = None
    quantity: int | None = None
    unit_price: float | None = None
    order_id: str | None = None
    customer_id: str | None = None
    location: str | None = None
    currency: str | None = None


class _ClickRecord(msgspec.Struct, omit_defaults=True, gc=False):
    event_id: str | None = None
    ts: int | None = None
    sku: str | None = None
    action: str | None = None
    visitor_id: str | None = None
    price: float | None = None
    location: str | None = None


class _CatalogRecord(msgspec.Struct, omit_defaults=True, gc=False):
    sku: str | None = None
    category: str | None = None
    brand: str | None = None
    price: float | None = None
    launched_at: int | None = None


_SHAPES: Final[dict[str, type[msgspec.Struct]]] = {
    ORDERS.name: _OrderRecord,
    CLICKS.name: _ClickRecord,
    CATALOG.name: _CatalogRecord,
}
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Encoder:
    """Encodes rows of a frame as records of a topic; caches each SKU's key and partition."""

    partitions: int
    _known: dict[str | None, tuple[bytes | None, int]] = field(default_factory=dict)

    def records(self, topic: str, rows: pl.DataFrame) -> Iterator[Record]:
        """Yield the records of `rows` in order. A row without SKU goes to partition 0."""
        shape = _SHAPES[topic]
        columns = [
            rows[name].to_list() if name in rows.columns else repeat(None, rows.height)
            for name in shape.__struct_fields__
        ]
        known = self._known
        for sku, record in zip(rows["sku"].to_list(), map(shape, *columns), strict=True):
            try:
                key, partition = known[sku]
            except KeyError:
                key, partition = known[sku] = self._key(sku)
            yield topic, key, _encode(record), partition

    def _key(self, sku: str | None) -> tuple[bytes | None, int]:
        if sku is None:
            return None, 0
        key = sku.encode()
        return key, partition_of(key, self.partitions)


class Timeline:
    """Orders and clicks, each sorted by time, as one sequence of N events.

    >>> orders = pl.DataFrame({"event_id": ["o"], "ts": [5], "sku": ["1"]})
    >>> clicks = pl.DataFrame({"event_id": ["a", "b"], "ts": [4, 5], "sku": ["1", "1"]})
    >>> timeline = Timeline(orders, clicks)
    >>> [record[0] for record in timeline.records(0, 3, Encoder(4))]
    ['clicks', 'orders', 'clicks']
    """

    def __init__(self, orders: pl.DataFrame, clicks: pl.DataFrame | None = None) -> None:
        self.orders = orders
        self.clicks = clicks if clicks is not None else pl.DataFrame({"ts": []}, {"ts": pl.Int64})
        times = np.concatenate([self.orders["ts"].to_numpy(), self.clicks["ts"].to_numpy()])
        order_N = np.argsort(times, kind="stable")
        self.event_time_N: Ints = times[order_N].astype(np.int64)
        self.is_click_N = order_N >= self.orders.height
        self._clicks_before = np.concatenate([[0], np.cumsum(self.is_click_N)])
        self.fingerprint = _fingerprint(self.event_time_N, (self.orders, self.clicks))

    def __len__(self) -> int:
        return len(self.event_time_N)

    def records(self, first: int, stop: int, encoder: Encoder) -> Iterator[Record]:
        """Yield the records of events ``[first, stop)``."""
        clicked, clicked_stop = (int(self._clicks_before[at]) for at in (first, stop))
        ordered, ordered_stop = first - clicked, stop - clicked_stop
        lines = encoder.records(ORDERS.name, self.orders[ordered:ordered_stop])
        if clicked == clicked_stop:
            yield from lines
            return
        seen = encoder.records(CLICKS.name, self.clicks[clicked:clicked_stop])
        for is_click in self.is_click_N[first:stop].tolist():
            yield next(seen) if is_click else next(lines)

    def counts(self, first: int, stop: int) -> dict[str, int]:
        """Number of events ``[first, stop)`` by topic."""
        clicks = int(self._clicks_before[stop] - self._clicks_before[first])
        return {ORDERS.name: stop - first - clicks, CLICKS.name: clicks}


def _fingerprint(event_time_N: Ints, frames: tuple[pl.DataFrame, ...]) -> str:
    """Sixteen hex digits that identify these events."""
    digest = blake2b(event_time_N.tobytes(), digest_size=8)
    for frame in frames:
        ids = frame["event_id"].to_list() if frame.height else []
        digest.update("\0".join([str(len(ids)), *map(str, ids[:1] + ids[-1:])]).encode())
    return digest.hexdigest()


def cut(
    frame: pl.DataFrame, *, start_ms: int | None, end_ms: int | None, limit: int | None = None
) -> pl.DataFrame:
    """Rows of a sorted frame in ``[start_ms, end_ms)``, at most `limit`."""
    times = frame["ts"].to_numpy()
    first = 0 if start_ms is None else int(np.searchsorted(times, start_ms))
    stop = len(times) if end_ms is None else int(np.searchsorted(times, end_ms))
    return frame[first : stop if limit is None else min(stop, first + limit)]
