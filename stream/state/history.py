"""Reads the closed buckets of a partition from Redis, for warm-up and for training.

`read_history` yields portions and prefetches the next one while the caller works, so weeks of a
large partition are never in memory at once; `load_history` returns one array. The client is
synchronous, because the worker's serving thread and the trainer call this.

Axes: T = buckets, S = series slots, F = features.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from stream.features.definitions import N_FEATURES
from stream.state import keys
from stream.state.closed_buckets import closed_paths, paste_closed
from stream.state.keys import Tag

#: Pages of one round trip at most, 20 MB; no portion is larger.
_CHUNK_PAGES = 256


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """Closed buckets ``[start_ms, end_ms)`` of all series of a partition; zero where silent.

    `is_last` is True if no portion follows.
    """

    start_ms: int
    end_ms: int
    series: list[str]
    values_TSF: NDArray[np.float32]
    is_last: bool = True


@dataclass(frozen=True, slots=True)
class _Span:
    starts: range
    series: list[str]

    @property
    def end_ms(self) -> int:
        return self.starts.stop


def read_history(
    client: redis.Redis,
    tag: Tag,
    *,
    bucket_ms: int,
    from_ms: int | None = None,
    to_ms: int | None = None,
) -> Iterator[StoredHistory]:
    """Stored buckets from `from_ms` to `to_ms` (default: all), oldest first, in portions."""
    span = _span(client, tag, bucket_ms=bucket_ms, from_ms=from_ms, to_ms=to_ms)
    if span is None:
        return
    size = _blocks_per_trip(len(span.series))
    portions = [span.starts[at : at + size] for at in range(0, len(span.starts), size)]

    def fetch(starts: range) -> NDArray[np.float32]:
        values_TSF = np.zeros((len(starts), len(span.series), N_FEATURES), np.float32)
        _read_into(client, tag, starts, values_TSF)
        return values_TSF

    with ThreadPoolExecutor(1, thread_name_prefix="history") as prefetch:
        pending = prefetch.submit(fetch, portions[0])
        for number, starts in enumerate(portions, start=1):
            values_TSF = pending.result()
            if number < len(portions):
                pending = prefetch.submit(fetch, portions[number])
            is_last = number == len(portions)
            yield StoredHistory(starts[0], starts.stop, span.series, values_TSF, is_last)


def load_history(
    client: redis.Redis,
    tag: Tag,
    *,
    bucket_ms: int,
    from_ms: int | None = None,
    to_ms: int | None = None,
) -> StoredHistory | None:
    """Stored buckets from `from_ms` to `to_ms` (default: all); None if none has closed."""
    span = _span(client, tag, bucket_ms=bucket_ms, from_ms=from_ms, to_ms=to_ms)
    if span is None:
        return None
    values_TSF = np.zeros((len(span.starts), len(span.series), N_FEATURES), np.float32)
    size = _blocks_per_trip(len(span.series))
    for at in range(0, len(span.starts), size):
        _read_into(client, tag, span.starts[at : at + size], values_TSF[at : at + size])
    return StoredHistory(span.starts[0], span.end_ms, span.series, values_TSF)


def _span(
    client: redis.Redis, tag: Tag, *, bucket_ms: int, from_ms: int | None, to_ms: int | None
) -> _Span | None:
    """Stored buckets within the given limits, and their series; None if there are none."""
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
    return _Span(range(start_ms, end_ms, bucket_ms), [name.decode() for name in names])


def _blocks_per_trip(n_series: int) -> int:
    return max(1, _CHUNK_PAGES // len(closed_paths(0, n_series)))


def read_blocks(
    client: redis.Redis, tag: Tag, starts: Sequence[int], *, n_series: int
) -> NDArray[np.float32]:
    """Closed buckets [T, S, F] by their starts; zero where not stored."""
    values_TSF = np.zeros((len(starts), n_series, N_FEATURES), np.float32)
    size = _blocks_per_trip(n_series)
    for at in range(0, len(starts), size):
        _read_into(client, tag, starts[at : at + size], values_TSF[at : at + size])
    return values_TSF


def _read_into(
    client: redis.Redis, tag: Tag, starts: Sequence[int], values_TSF: NDArray[np.float32]
) -> None:
    """Read the blocks at `starts` into an array of zeros, in one round trip."""
    n_pages = len(closed_paths(0, values_TSF.shape[1]))
    paths = [path for start in starts for path in closed_paths(start, values_TSF.shape[1])]
    pages: list[Any] = client.mget([keys.of(tag, *path) for path in paths])
    for t, values_SF in enumerate(values_TSF):
        paste_closed(pages[t * n_pages : (t + 1) * n_pages], values_SF)
