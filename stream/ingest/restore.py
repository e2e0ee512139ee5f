"""A partition as the store has it: the way back from `Partition.take_write`."""

import json

import numpy as np

from stream.decoding.catalog import Listing
from stream.features.definitions import N_FEATURES
from stream.partition.open_bucket import OpenBucket
from stream.partition.partition import Partition
from stream.partition.state import DEDUPED, INPUTS, Closed
from stream.settings import WindowSettings
from stream.state.closed_buckets import closed_paths, paste_closed
from stream.state.keys import Tag
from stream.state.port import Path, StateStore


async def restore(
    store: StateStore, number: int, window: WindowSettings, *, retention_ms: int
) -> Partition:
    """Load a partition; an empty one when the store has none. Acquire it before."""
    partition = Partition(number, window, retention_ms=retention_ms)
    meta = await store.meta(number)
    for sku, category in (await store.fields_of(number, ("categories",))).items():
        partition.series.categorise(sku, category)
    listings = await store.fields_of(number, ("listings",))
    partition.listings = {sku: Listing.read(stored) for sku, stored in listings.items()}
    partition.series.slots(await store.items(number, ("series",)))
    partition.listed = int(meta.get("listed", "0"))
    partition.saved_series = len(partition.series)
    for name in ("first_bucket_ms", "closed_through_ms", "emitted_through_ms", "heartbeat_ms"):
        if name in meta:
            setattr(partition, name, int(meta[name]))
    if partition.first_bucket_ms is not None and partition.closed_through_ms is not None:
        span_ms = partition.first_bucket_ms, partition.closed_through_ms
        partition.saved_span = range(*span_ms, window.bucket)
    for name, value in meta.items():
        if name.startswith("offset:"):
            partition.positions[name.removeprefix("offset:")] = int(value)
        elif name.startswith("count:"):
            _, topic, verdict = name.split(":")
            partition.counts[topic, verdict] = int(value)
    open_starts: list[int] = json.loads(meta.get("open", "[]"))
    segments: list[tuple[str, int]] = []
    for topic in INPUTS:
        if f"newest_ms:{topic}" in meta:
            partition.watermarks[topic].newest_ms = int(meta[f"newest_ms:{topic}"])
    for topic in DEDUPED:
        segments += [(topic, start) for start in json.loads(meta.get(f"segments:{topic}", "[]"))]
    reading_starts: list[int] = json.loads(meta.get("readings", "[]"))
    paths: list[Path] = [("open", start) for start in open_starts]
    paths += [("visitors", start) for start in open_starts]
    paths += [("ids", topic, start) for topic, start in segments]
    paths += [("plans",), ("levels",), *(("readings", start) for start in reading_starts)]
    blobs = [blob or b"" for blob in await store.blobs(number, paths)]
    n_open = len(open_starts)
    for start, block, visitors in zip(open_starts, blobs, blobs[n_open:], strict=False):
        partition.open[start] = OpenBucket.from_bytes(block, visitors, len(partition.series))
    for (topic, start), packed in zip(segments, blobs[2 * n_open :], strict=False):
        partition.dedup[topic].load(start, np.frombuffer(packed, "<u8"))
    plans, levels, *readings = blobs[2 * n_open + len(segments) :]
    partition.plans.load(plans)
    partition.stock.load(levels, dict(zip(reading_starts, readings, strict=True)))
    return partition


async def stored_closes(store: StateStore, tag: Tag, n_series: int, starts: range) -> list[Closed]:
    """Closed buckets as stored, for publishing them again; equal to what was published before."""
    closed = []
    for start in starts:
        values_SF = np.zeros((n_series, N_FEATURES), np.float32)
        paste_closed(await store.blobs(tag, closed_paths(start, n_series)), values_SF)
        closed.append(Closed(start, values_SF, {}))
    return closed
