"""Writes the read side in Redis: newest forecasts, one-step-ahead bands, worker statistics.

It is written before the Kafka records, because readers must not wait for their encoding. Writes
have no fence: the forecasts follow from the stored features and are replaced at the next close. The
same transaction stores live scores, calibration levels and samples of past forecasts; these cannot
be recomputed once the registry has pruned their models. Every method raises ServiceUnavailable if
the store does not answer.
"""

import json
from typing import Any, cast

import redis.asyncio as aioredis

from model.config import TARGETS
from model.contract import QuantileForecast
from model.durations import DAY_MS
from stream.state import keys
from stream.state.forecasts import (
    BAND_BYTES,
    pack_bands,
    pack_forecast,
    pack_target,
    row_bytes,
    target_row_bytes,
)
from stream.state.keys import Tag
from stream.state.pages import cut, paths
from stream.state.port import Path, ReadSideWrite
from stream.state.redis import translate_store_errors

STATS_EXPIRE_S = 10
#: Retention of the one-step-ahead bands: as far back as charts go.
AHEAD_RETENTION_MS = 7 * DAY_MS
#: Buckets beyond retention whose bands are deleted at least once, as origins can skip buckets.
_LOOK_BACK = 512
#: Counters of a worker's process that are summed over all workers.
_TOTALS = ("buckets_closed", "forecasts")


class ReadSideWriter:
    """Writer of the read side; `client` must not decode responses."""

    def __init__(self, client: aioredis.Redis, *, ahead_retention_ms: int) -> None:
        self._client = client
        self._ahead_retention_ms = ahead_retention_ms
        self._kept_from_ms: dict[Tag, int] = {}
        self._targets: dict[Tag, frozenset[str]] = {}
        self._counted: dict[str, int] = {}

    async def info(self, info: dict[str, Any]) -> None:
        """Write the description of the deployment; labels of an earlier writer are kept."""
        with translate_store_errors():
            old = json.loads(await self._client.get(keys.info()) or b"{}")
            merged = {"labels": old.get("labels", {}), **info}
            await self._client.set(keys.info(), json.dumps(merged))

    async def forecast(
        self,
        tag: Tag,
        forecast: QuantileForecast,
        *,
        calibrated: bool,
        watermark_ms: int,
        emitted_ms: int,
        write: ReadSideWrite | None = None,
    ) -> None:
        """Replace the newest forecast of a partition, and apply `write` in the same transaction."""
        horizon, n_quantiles = forecast.units_SHQ.shape[1:]
        header: dict[Any, Any] = {
            "origin_ms": forecast.origin_ms,
            "model_id": forecast.model_id,
            "watermark_ms": watermark_ms,
            "emitted_ms": emitted_ms,
            "calibrated": int(calibrated),
            "series": len(forecast.units_SHQ),
            "horizon": horizon,
            "row": row_bytes(horizon, n_quantiles),
        }
        if forecast.extras:
            header["targets"] = ",".join(forecast.extras)
        with translate_store_errors():
            await self._replace(tag, header, forecast, write or ReadSideWrite())

    async def ahead(self, tag: Tag, forecast: QuantileForecast, *, origin_ms: int) -> None:
        """Write the one-step-ahead bands of an earlier origin."""
        with translate_store_errors():
            await self._client.mset(_bands(tag, forecast, origin_ms))

    async def _replace(
        self, tag: Tag, header: dict[Any, Any], forecast: QuantileForecast, write: ReadSideWrite
    ) -> None:
        size, horizon, n_quantiles = forecast.units_SHQ.shape
        pages = _pages(
            tag, ("forecast", "rows"), pack_forecast(forecast), row_bytes(horizon, n_quantiles)
        ) | _bands(tag, forecast, forecast.origin_ms)
        target_row = target_row_bytes(horizon, n_quantiles)
        for target, block_SHQ in forecast.extras.items():
            pages |= _pages(tag, ("forecast", target), pack_target(block_SHQ), target_row)
        # an earlier owner may have written any of them
        dropped = self._targets.get(tag, frozenset(TARGETS)) - forecast.extras.keys()
        expired = [
            path for target in dropped for path in paths(("forecast", target), size, target_row)
        ]
        expired += [
            path
            for start_ms in self._expired(tag, forecast)
            for path in paths(("ahead", start_ms), size, BAND_BYTES)
        ]
        async with self._client.pipeline(transaction=True) as transaction:
            transaction.hset(keys.of(tag, "forecast"), mapping=header)
            if dropped and not forecast.extras:
                transaction.hdel(keys.of(tag, "forecast"), "targets")
            transaction.mset(pages)
            transaction.delete(*(keys.of(tag, *path) for path in expired))
            for path, payload in write.puts.items():
                transaction.set(keys.of(tag, *path), payload)
            for path, fields in write.fields.items():
                transaction.hset(keys.of(tag, *path), mapping=cast("dict[Any, Any]", fields))
            for path in write.deletes:
                transaction.delete(keys.of(tag, *path))
            await transaction.execute()
        self._targets[tag] = frozenset(forecast.extras)

    def _expired(self, tag: Tag, forecast: QuantileForecast) -> range:
        """Starts of the bands that have expired since the last call."""
        kept_from_ms = forecast.origin_ms - self._ahead_retention_ms + forecast.bucket_ms
        default_ms = kept_from_ms - _LOOK_BACK * forecast.bucket_ms
        since_ms = max(self._kept_from_ms.get(tag, default_ms), default_ms)
        self._kept_from_ms[tag] = kept_from_ms
        return range(
            min(since_ms, kept_from_ms - forecast.bucket_ms), kept_from_ms, forecast.bucket_ms
        )

    async def stats(self, worker_id: str, stats: dict[str, Any]) -> None:
        """Write one worker's counters, which expire after it has stopped.

        What does not expire: up to when its partitions are complete, and the totals of all workers.
        """
        counted = {name: int(stats[name]) for name in _TOTALS}
        with translate_store_errors():
            async with self._client.pipeline(transaction=True) as transaction:
                transaction.set(keys.stats(worker_id), json.dumps(stats), ex=STATS_EXPIRE_S)
                if stats["as_of_ms"]:
                    transaction.hset(keys.as_of(), mapping=stats["as_of_ms"])
                for name, count in counted.items():
                    transaction.hincrby(keys.totals(), name, count - self._counted.get(name, 0))
                await transaction.execute()
        self._counted = counted


def _pages(tag: Tag, path: Path, block: bytes, row: int) -> dict[Any, Any]:
    return {keys.of(tag, *page): rows for page, rows in cut(path, block, row).items()}


def _bands(tag: Tag, forecast: QuantileForecast, origin_ms: int) -> dict[Any, Any]:
    return _pages(tag, ("ahead", origin_ms), pack_bands(forecast), BAND_BYTES)
