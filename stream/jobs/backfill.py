"""Writes the closed buckets of files into an empty store, before any worker runs.

The result equals what a worker would have stored had it read the files live: series registries,
closed blocks, partial roll-ups, the catalog and the close of each partition, in the layout of
`stream/state/keys.py`. The stock is unknown in these buckets, since files have none. Workers
continue after the last bucket; earlier events are late. Each partition becomes visible in one
transaction, after its blocks are stored.

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

_BLOCKS_PER_REQUEST: Final = 64


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """Counts of what was written: buckets of ``[start_ms, end_ms)``, series, roll-ups."""

    start_ms: int
    end_ms: int
    buckets: int
    series: int
    rollups: int


@dataclass(slots=True)
class _Part:
    """A partition to be written: its series, closed blocks, partial roll-ups and catalog."""

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

    `client` must not decode responses; frames are those of `stream.jobs.files.event_files`.
    `labels` describe the inputs (`sc2:info`). Raises IncompatibleState if the store is not empty,
    unless `force`, which deletes its state and fences its workers out; ServiceUnavailable if it
    does not answer; UsageError if there are no order lines.
    """
    width = settings.window.bucket
    count = partitions or settings.kafka.partitions
    end_ms = until_ms // width * width
    if not orders.height:
        raise UsageError("there are no order lines; history needs at least one")
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
        raise ServiceUnavailable(
            f"the store failed while history was written: {error}; "
            "start it, then run the command again with --force"
        ) from None
    return BackfillReport(
        start_ms=start_ms,
        end_ms=end_ms,
        buckets=(end_ms - start_ms) // width,
        series=len(history.series),
        rollups=len(rollups.series),
    )


def claim(client: Any, tags: list[Tag], *, force: bool) -> None:
    """Check that the store is empty; with `force`, empty it and fence its workers out.

    Raises IncompatibleState if it is not empty.
    """
    if force:
        client.delete(keys.archive())
    for tag in tags:
        state = {name.decode() for name in client.hkeys(keys.of(tag, "meta"))} - {"fence"}
        if not state:
            continue
        if not force:
            raise IncompatibleState(
                f"the store already has state of partition {tag}, but history needs an empty "
                "store: empty it, or use --force to delete its state"
            )
        fence = client.hincrby(keys.of(tag, "meta"), "fence", 1)
        for found in _portions(client.scan_iter(match=keys.of(tag, "*"), count=10_000), 1_000):
            client.unlink(*found)
        client.hset(keys.of(tag, "meta"), "fence", fence)


def write_info(client: Any, settings: Settings, partitions: int, labels: Mapping[str, str]) -> None:
    """Write the deployment's layout to the store, as a worker does when it starts."""
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
    """Build partition `number` of a history; its series are in order of first appearance."""
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
    """Start and sums [S, F] of the buckets in which any of the series `slots` has an event."""
    place_S = np.full(len(history.series), -1, np.int64)
    place_S[slots] = np.arange(len(slots))
    rows_R = np.flatnonzero(place_S[history.slot_R] >= 0)
    buckets, firsts = np.unique(history.bucket_R[rows_R], return_index=True)
    for bucket, rows in zip(buckets.tolist(), np.split(rows_R, firsts[1:]), strict=False):
        sums_SF = np.zeros((len(slots), N_SUMS), np.int64)
        sums_SF[place_S[history.slot_R[rows]]] = history.sums_RF[rows]
        yield history.start_ms + bucket * history.bucket_ms, sums_SF


def _rollups(parts: list[_Part]) -> _Part:
    """Sum the partial roll-ups of all partitions, as `stream.ingest.rollups` does."""
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
    """Write the blocks in portions, then make them visible in one transaction."""
    blobs = {keys.of(part.tag, *path): page for path, page in part.closed.items()}
    blobs |= {keys.of(part.tag, "partial", at): blob for at, blob in part.partial.items()}
    for portion in _portions(blobs.items(), _BLOCKS_PER_REQUEST):
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
