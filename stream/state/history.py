"""Closed buckets of a partition out of Redis, as one array: what a model is warmed up with.

One pipelined read a call. Used by the worker's serving thread and by the trainer, so the client is
synchronous. Axes: T = buckets, S = series slots, F = features.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from stream.features.definitions import N_FEATURES
from stream.state import keys
from stream.state.closed import closed_paths, paste_closed
from stream.state.keys import Tag

#: Pages fetched in one round trip: 20 MB at most.
_CHUNK_PAGES = 256


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """Closed buckets ``[start_ms, end_ms)`` of all series of a partition; silent ones are zero."""

    start_ms: int
    end_ms: int
    series: list[str]
    values_TSF: NDArray[np.float32]


def load_history(
    client: redis.Redis,
    tag: Tag,
    *,
    bucket_ms: int,
    from_ms: int | None = None,
    to_ms: int | None = None,
) -> StoredHistory | None:
    """Stored buckets from `from_ms` to `to_ms` (default: all); None when nothing has closed yet."""
    with client.pipeline(transaction=True) as block:
        block.hmget(keys.of(tag, "meta"), "first_bucket_ms", "closed_through_ms")
        block.lrange(keys.of(tag, "series"), 0, -1)
        (first, through), names = block.execute()
    if first is None or through is None:
        return None
    start_ms = int(first) if from_ms is None else max(int(first), from_ms)
    end_ms = int(through) if to_ms is None else min(int(through), to_ms)
    if end_ms <= start_ms:
        return None
    series = [name.decode() for name in names]
    starts = range(start_ms, end_ms, bucket_ms)
    values_TSF = np.zeros((len(starts), len(series), N_FEATURES), np.float32)
    paths_T = [closed_paths(start, len(series)) for start in starts]
    blocks = max(1, _CHUNK_PAGES // max(1, len(closed_paths(0, len(series)))))
    for at in range(0, len(starts), blocks):
        chunk = paths_T[at : at + blocks]
        stored: list[Any] = client.mget([keys.of(tag, *path) for paths in chunk for path in paths])
        for t, paths in enumerate(chunk, start=at):
            paste_closed(stored[: len(paths)], values_TSF[t])
            del stored[: len(paths)]
    return StoredHistory(start_ms, end_ms, series, values_TSF)
