"""Reads of the store for serving: closed buckets, plans, and the newest forecast.

Called from the serving threads, with a blocking client. Every read raises ServiceUnavailable when
the store does not answer.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from redis import Redis

from model.contract import QuantileForecast
from model.inputs.plans import Plans
from stream.serving.stored_plans import StoredPlans
from stream.state import keys
from stream.state.forecasts import row_bytes, unpack_rows
from stream.state.history import StoredHistory, read_history
from stream.state.keys import Tag
from stream.state.pages import join, paths
from stream.state.redis import translate_store_errors


class ServingReads:
    """Reads of one deployment's store."""

    def __init__(self, client: Redis, *, partitions: int, bucket_ms: int) -> None:
        self._client = client
        self._bucket_ms = bucket_ms
        self._plans = StoredPlans(client, partitions, bucket_ms=bucket_ms)

    def history(self, tag: Tag, from_ms: int | None, to_ms: int | None) -> Iterator[StoredHistory]:
        """Closed buckets of a partition or of the roll-ups, oldest first, in portions."""
        with translate_store_errors():
            yield from read_history(
                self._client, tag, bucket_ms=self._bucket_ms, from_ms=from_ms, to_ms=to_ms
            )

    def plans(self, tag: Tag, series: Sequence[str], start_ms: int, buckets: int) -> Plans | None:
        """Plans of series in `buckets` buckets from `start_ms` on; None if there are none."""
        with translate_store_errors():
            return self._plans(tag, series, start_ms, buckets)

    def forecast(self, tag: Tag) -> QuantileForecast | None:
        """The newest stored forecast of a partition; None before the first."""
        with translate_store_errors():
            return read_forecast(self._client, tag)


def count_series(client: Redis, tag: Tag) -> int:
    """Number of series of a partition."""
    with translate_store_errors():
        found: Any = client.llen(keys.of(tag, "series"))
        return int(found)


def forecast_versions(client: Redis, *, partitions: int) -> tuple[bytes | None, ...]:
    """When the newest forecast of each partition was stored."""
    with translate_store_errors():
        pipe = client.pipeline(transaction=False)
        for tag in range(partitions):
            pipe.hget(keys.of(tag, "forecast"), "emitted_ms")
        return tuple(pipe.execute())


def read_forecast(client: Redis, tag: Tag) -> QuantileForecast | None:
    """The newest forecast of a partition, units only; None if there is none."""
    found: Any = client.get(keys.info())  # on a cluster in another slot
    if found is None:
        return None
    info = json.loads(found)
    quantiles = tuple(info["quantiles"])
    count: Any = client.hget(keys.of(tag, "forecast"), "series")
    if count is None:
        return None
    size = row_bytes(info["horizon"], len(quantiles))
    row_paths = paths(("forecast", "rows"), int(count), size)
    with client.pipeline(transaction=True) as block:
        block.hgetall(keys.of(tag, "forecast"))
        block.mget([keys.of(tag, *path) for path in row_paths])
        header, pages = block.execute()
    rows = join(pages, size)
    if not header or not rows or len(rows) % size or int(header.get(b"row", b"0")) != size:
        return None
    units_SHQ, cumulative_SHQ, mean_SH = unpack_rows(
        rows, horizon=info["horizon"], n_quantiles=len(quantiles)
    )
    return QuantileForecast(
        origin_ms=int(header[b"origin_ms"]),
        bucket_ms=int(info["bucket_ms"]),
        quantiles=quantiles,
        units_SHQ=units_SHQ,
        cumulative_SHQ=cumulative_SHQ,
        mean_SH=mean_SH,
        model_id=header[b"model_id"].decode(),
    )
