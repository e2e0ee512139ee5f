"""Closed buckets of a partition out of Redis, as one array: what a model is warmed up with.

One pipelined read a call. Used by the worker's serving thread and by the trainer, so the client is
synchronous. Axes: T = buckets, S = series slots, F = features.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from stream.features.block import unpack_into
from stream.features.definitions import N_FEATURES
from stream.state import keys
from stream.state.keys import Tag

#: Blocks fetched in one round trip.
_CHUNK = 256


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
    for at in range(0, len(starts), _CHUNK):
        chunk = starts[at : at + _CHUNK]
        blobs: list[Any] = client.mget([keys.of(tag, "closed", start) for start in chunk])
        for t, blob in enumerate(blobs, start=at):
            if blob:
                unpack_into(values_TSF[t], blob)
    return StoredHistory(start_ms, end_ms, series, values_TSF)
