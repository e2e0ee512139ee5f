"""Ingest over a real store without a broker, and a model server that reads what it stored."""

import json
from collections.abc import Iterator
from typing import Any

import redis.asyncio as aioredis
from faust.types import TP
from redis import Redis

from model.contract import FeatureSpec
from model.durations import DAY_MS
from model.inference.forecaster import NetworkForecaster
from stream.ingest.pipeline import Pipeline
from stream.serving.model_server import ModelServer
from stream.settings import Settings
from stream.state import keys
from stream.state.history import StoredHistory, read_history
from stream.state.keys import Tag
from stream.state.redis import RedisStore
from tests.support.brokerless import pipeline_of
from tests.support.memory_topics import MemoryTopics
from tests.support.samples import START_MS

HORIZON = 7


class StoredIngest:
    """A worker's ingest of daily buckets that owns all partitions of some topics."""

    def __init__(self, client: Redis, url: str, *topics: str, partitions: int, **ingest: Any):
        self.client = client
        self.topics = MemoryTopics()
        self.settings = Settings(
            kafka={"partitions": partitions},
            model={"horizon": HORIZON},
            window={"bucket": "1d", "idle_timeout": "0ms", "allowed_lateness": "0ms"},
            state={"retention": "400d"},
            ingest=ingest,
        )
        self._url = url
        self._places = {TP(name, number) for name in topics for number in range(partitions)}
        info = {
            "bucket_ms": DAY_MS, "partitions": partitions, "horizon": HORIZON,
            "spec_hash": FeatureSpec().hash,
        }  # fmt: skip
        client.set(keys.info(), json.dumps(info))
        self.connection: aioredis.Redis
        self.pipeline: Pipeline

    async def start(self) -> None:
        """A worker takes all partitions over."""
        self.connection = aioredis.Redis.from_url(self._url)
        self.pipeline = pipeline_of(
            self.settings,
            RedisStore(self.connection),
            self.topics,
            now_ms=START_MS + 10_000 * DAY_MS,
        )
        await self.pipeline.resume_offsets(self._places, 1)

    async def stop(self) -> None:
        """Its connection ends."""
        await self.connection.aclose()

    def server(self, forecaster: NetworkForecaster, **readers: Any) -> ModelServer:
        """A model server that warms up from the stored history."""

        def history(tag: Tag, from_ms: int | None, to_ms: int | None) -> Iterator[StoredHistory]:
            return read_history(self.client, tag, bucket_ms=DAY_MS, from_ms=from_ms, to_ms=to_ms)

        return ModelServer(forecaster, history, **readers)
