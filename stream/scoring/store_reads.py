"""Reads of the live scoring from Redis: one round trip each, on the serving thread."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from stream.state import keys
from stream.state.history import read_blocks
from stream.state.keys import Tag
from stream.state.port import Path
from stream.state.redis import translate_store_errors


class StoreReads:
    """`ScoringReads` on Redis; `client` is synchronous and must not decode responses."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client  # the stubs mix synchronous and asynchronous results

    def blobs(self, tag: Tag, paths: Sequence[Path]) -> list[bytes | None]:
        """Blobs in one round trip; None where absent."""
        if not paths:
            return []
        with translate_store_errors():
            return list(self._client.mget([keys.of(tag, *path) for path in paths]))

    def hash(self, tag: Tag, path: Path) -> dict[bytes, bytes]:
        """A whole hash."""
        with translate_store_errors():
            return dict(self._client.hgetall(keys.of(tag, *path)))

    def closed(self, tag: Tag, starts: Sequence[int]) -> tuple[int, NDArray[np.float32]]:
        """Start of the first stored bucket, and the closed buckets [T, slots, F] at `starts`."""
        with translate_store_errors():
            pipe = self._client.pipeline(transaction=True)
            pipe.hget(keys.of(tag, "meta"), "first_bucket_ms")
            pipe.llen(keys.of(tag, "series"))
            first, n_series = pipe.execute()
            return int(first or 0), read_blocks(self._client, tag, starts, n_series=n_series)
