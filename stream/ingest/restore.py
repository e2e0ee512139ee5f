"""Restores a partition, and the closed buckets that may be unpublished, from the store."""

import json

import numpy as np

from stream.decoding.catalog import Listing
from stream.features.definitions import N_FEATURES
from stream.partition.closed import Closed
from stream.partition.open_bucket import OpenBucket
from stream.partition.partition import Partition
from stream.partition.state import DEDUPED, INPUTS
from stream.settings import WindowSettings
from stream.state.closed_buckets import closed_paths, paste_closed
from stream.state.keys import Tag
from stream.state.port import Path, StateStore


async def restore(
    store: StateStore, number: int, window: WindowSettings, *, retention_ms: int
) -> Partition:
    """Load partition `number`, which must be acquired; an empty one if the store has none."""
    partition = Partition(number, window, retention_ms=retention_ms)
    state = partition.state
    meta = await store.meta(number)
    for sku, category in (await store.fields_of(number, ("categories",))).items():
        state.series.categorise(sku, category)
    listings = await store.fields_of(number, ("listings",))
    state.listings = {sku: Listing.read(stored) for sku, stored in listings.items()}
    state.series.slots(await store.items(number, ("series",)))
    state.listed = int(meta.get("listed", "0"))
    state.saved_series = len(state.series)
    for name in ("first_bucket_ms", "closed_through_ms", "emitted_through_ms", "heartbeat_ms"):
        if name in meta:
            setattr(state, name, int(meta[name]))
    if state.first_bucket_ms is not None and state.closed_through_ms is not None:
        span_ms = state.first_bucket_ms, state.closed_through_ms
        state.saved_span = range(*span_ms, window.bucket)
    for name, value in meta.items():
        if name.startswith("offset:"):
            state.positions[name.removeprefix("offset:")] = int(value)
        elif name.startswith("count:"):
            _, topic, verdict = name.split(":")
            state.counts[topic, verdict] = int(value)
    open_starts: list[int] = json.loads(meta.get("open", "[]"))
    segments: list[tuple[str, int]] = []
    for topic in INPUTS:
        if f"newest_ms:{topic}" in meta:
            state.watermarks[topic].newest_ms = int(meta[f"newest_ms:{topic}"])
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
        state.open[start] = OpenBucket.from_bytes(block, visitors, len(state.series))
    for (topic, start), packed in zip(segments, blobs[2 * n_open :], strict=False):
        state.dedup[topic].load(start, np.frombuffer(packed, "<u8"))
    plans, levels, *readings = blobs[2 * n_open + len(segments) :]
    state.plans.load(plans)
    state.stock.load(levels, dict(zip(reading_starts, readings, strict=True)))
    return partition


async def stored_closes(store: StateStore, tag: Tag, n_series: int, starts: range) -> list[Closed]:
    """Stored closed buckets, to publish again; bit for bit equal to the first publication."""
    closed = []
    for start in starts:
        values_SF = np.zeros((n_series, N_FEATURES), np.float32)
        paste_closed(await store.blobs(tag, closed_paths(start, n_series)), values_SF)
        closed.append(Closed(start, values_SF, {}))
    return closed
