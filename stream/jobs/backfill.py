"""Closed buckets of files into the store, before any worker runs: a warm start.

What a worker would have stored had it seen the files live: series registries, closed blocks,
partial roll-ups, the catalog, and how far each partition has closed, in the layout of
`stream/state/keys.py`. Files tell nothing of the stock: it is not known in these buckets. A worker
that takes a partition over goes on behind the last bucket written; events before it are late. Each
partition becomes visible in one transaction, after its blocks are there.

Axes: R = rows of a history, S = series slots, F = features.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from redis import Redis
from redis.exceptions import RedisError

from model.contract import FEATURE_NAMES, FeatureSpec
from stream.clock import wall_clock_ms
from stream.errors import IncompatibleState, ServiceUnavailable, UsageError
from stream.features.definitions import N_SUMS, closed_block
from stream.jobs.history.from_files import build_history
from stream.jobs.history.sparse_history import SparseHistory
from stream.kafka.partitioner import partition_of
from stream.partition.series_index import SeriesIndex
from stream.settings import Settings
from stream.state import keys
from stream.state.closed_buckets import closed_pages, pack_partial, unpack_partial
from stream.state.keys import ROLLUPS, Tag
from stream.state.port import Path

Ints = NDArray[np.int64]
T = TypeVar("T")

_BLOCKS_A_TRIP: Final = 64


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """What was written: buckets ``[start_ms, end_ms)``, series without roll-ups, roll-ups."""

    start_ms: int
    end_ms: int
    buckets: int
    series: int
    rollups: int


@dataclass(slots=True)
class _Part:
    """A partition about to be written: its series, closed blocks, and blobs beside them."""

    tag: Tag
    series: list[str]
    closed: dict[Path, bytes]
    partial: dict[int, bytes]
    categories: dict[str, str]
    listings: dict[str, str]


def backfill(
    settings: Settings,
    client: "Redis",
    orders: pl.DataFrame,
    clicks: pl.DataFrame | None = None,
    catalog: pl.DataFrame | None = None,
    *,
    until_ms: int,
    partitions: int | None = None,
    labels: Mapping[str, str] | None = None,
    force: bool = False,
) -> BackfillReport:
    """Write the last `state.retention` of closed buckets that end at or before `until_ms`.

    `client` must not decode responses; frames are as `stream.jobs.files.event_files` reads them.
    `labels` say what the inputs are (`sc2:info`). Raises IncompatibleState when the store has state
    already, unless `force`, which drops it and shuts out its workers; ServiceUnavailable when it
    does not answer; UsageError when there is no order line at all.
    """
    width = settings.window.bucket
    count = partitions or settings.kafka.partitions
    end_ms = until_ms // width * width
    if not orders.height:
        raise UsageError("there is no order line to make history of")
    first_ms = int(orders["ts"].to_numpy().min()) // width * width
    start_ms = max(first_ms, end_ms - settings.state.retention // width * width)
    try:
        claim(client, [*range(count), ROLLUPS], force=force)
        write_info(client, settings, count, labels or {})
        if start_ms >= end_ms:
            return BackfillReport(end_ms, end_ms, 0, 0, 0)
        history = build_history(
            orders, clicks, catalog,
            bucket_ms=width, start_ms=start_ms, end_ms=end_ms, rollups=False,
        )  # fmt: skip
        numbers = {
            sku: partition_of(sku.encode(), count)
            for sku in {*history.skus, *history.categories, *history.listings}
        }
        parts = [_part(history, number, numbers) for number in range(count)]
        rollups = _rollups(parts)
        for part in [*parts, rollups]:
            _write(client, part, start_ms=start_ms, end_ms=end_ms)
    except RedisError as error:
        raise ServiceUnavailable(f"the store failed while history was written: {error}") from None
    return BackfillReport(
        start_ms=start_ms,
        end_ms=end_ms,
        buckets=(end_ms - start_ms) // width,
        series=len(history.series),
        rollups=len(rollups.series),
    )


def claim(client: Any, tags: list[Tag], *, force: bool) -> None:
    """Refuse a store that has state; with `force`, empty it and fence its owners out."""
    for tag in tags:
        state = {name.decode() for name in client.hkeys(keys.of(tag, "meta"))} - {"fence"}
        if not state:
            continue
        if not force:
            raise IncompatibleState(
                f"the store has state of partition {tag} already; history can only be written "
                "into an empty one (empty it, or use --force to drop what it holds)"
            )
        fence = client.hincrby(keys.of(tag, "meta"), "fence", 1)
        for found in _portions(client.scan_iter(match=keys.of(tag, "*"), count=10_000), 1_000):
            client.unlink(*found)
        client.hset(keys.of(tag, "meta"), "fence", fence)


def write_info(client: Any, settings: Settings, partitions: int, labels: Mapping[str, str]) -> None:
    """Say what the store holds, as a worker does when it starts."""
    old = json.loads(client.get(keys.info()) or b"{}")
    info = {
        "started_ms": wall_clock_ms(),
        **old,
        "labels": {**old.get("labels", {}), **labels},
        "bucket_ms": settings.window.bucket,
        "partitions": partitions,
        "horizon": settings.model.horizon,
        "quantiles": list(settings.model.quantiles),
        "feature_names": list(FEATURE_NAMES),
        "spec_hash": FeatureSpec().hash,
    }
    client.set(keys.info(), json.dumps(info))


def _part(history: SparseHistory, number: int, numbers: Mapping[str, int]) -> _Part:
    """Partition `number` of a history: its series in order of first appearance."""
    slots = [slot for slot, sku in enumerate(history.skus) if numbers[sku] == number]
    categories = {sku: name for sku, name in history.categories.items() if numbers[sku] == number}
    series = SeriesIndex()
    for sku, name in categories.items():
        series.categorise(sku, name)
    series.slots([history.series[slot] for slot in slots])
    listings = {
        sku: listing.stored() for sku, listing in history.listings.items() if numbers[sku] == number
    }
    part = _Part(number, series.ids, {}, {}, categories, listings)
    for start_ms, sums_SF in _buckets(history, slots):
        part.closed |= closed_pages(start_ms, closed_block(sums_SF))
        part.partial[start_ms] = pack_partial(series.rollups(sums_SF))
    return part


def _buckets(history: SparseHistory, slots: list[int]) -> Iterator[tuple[int, Ints]]:
    """Start and sums [S, F] of the buckets in which one of the series `slots` has an event."""
    place_S = np.full(len(history.series), -1, np.int64)
    place_S[slots] = np.arange(len(slots))
    rows_R = np.flatnonzero(place_S[history.slot_R] >= 0)
    buckets, firsts = np.unique(history.bucket_R[rows_R], return_index=True)
    for bucket, rows in zip(buckets.tolist(), np.split(rows_R, firsts[1:]), strict=False):
        sums_SF = np.zeros((len(slots), N_SUMS), np.int64)
        sums_SF[place_S[history.slot_R[rows]]] = history.sums_RF[rows]
        yield history.start_ms + bucket * history.bucket_ms, sums_SF


def _rollups(parts: list[_Part]) -> _Part:
    """Add up the partitions' partial sums, as `stream.ingest.rollups` does."""
    series = SeriesIndex()
    rollups = _Part(ROLLUPS, series.ids, {}, {}, {}, {})
    for start_ms in sorted({start for part in parts for start in part.partial}):
        by_name: dict[str, Ints] = {}
        for part in parts:
            for name, row in unpack_partial(part.partial.get(start_ms)).items():
                by_name[name] = by_name.get(name, np.zeros(N_SUMS, np.int64)) + np.array(row)
        names = sorted(by_name)
        slot_N = series.slots(names)
        sums_SF = np.zeros((len(series), N_SUMS), np.int64)
        for slot, name in zip(slot_N.tolist(), names, strict=True):
            sums_SF[slot] = by_name[name]
        rollups.closed |= closed_pages(start_ms, closed_block(sums_SF))
    return rollups


def _write(client: Any, part: _Part, *, start_ms: int, end_ms: int) -> None:
    """Blocks first, in portions; then, in one transaction, all that makes them known."""
    blobs = {keys.of(part.tag, *path): page for path, page in part.closed.items()}
    blobs |= {keys.of(part.tag, "partial", at): blob for at, blob in part.partial.items()}
    for portion in _portions(blobs.items(), _BLOCKS_A_TRIP):
        client.mset(dict(portion))
    with client.pipeline(transaction=True) as block:
        for name in ("series", "categories", "listings"):
            block.delete(keys.of(part.tag, name))
        if part.series:
            block.rpush(keys.of(part.tag, "series"), *part.series)
        if part.categories:
            block.hset(keys.of(part.tag, "categories"), mapping=part.categories)
        if part.listings:
            block.hset(keys.of(part.tag, "listings"), mapping=part.listings)
        times = {
            "first_bucket_ms": start_ms,
            "closed_through_ms": end_ms,
            "emitted_through_ms": end_ms,
        }
        block.hset(keys.of(part.tag, "meta"), mapping=times)
        block.execute()


def _portions(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split into lists of at most `size`.

    >>> list(_portions("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    iterator = iter(items)
    while portion := list(islice(iterator, size)):
        yield portion
