"""Ingest over a real store, without a broker: batches are handed to it as they would be fetched."""

from typing import Any, cast

import redis.asyncio as aioredis

from stream.ingest.pipeline import Pipeline
from stream.kafka.producer import BatchProducer
from stream.privacy import Pseudonyms
from stream.serving.output_loop import ClosedBuckets, OutputLoop
from stream.settings import Settings
from stream.state.keys import Tag
from stream.state.redis import RedisStore


class _NoOutput:
    """Takes what has closed and does nothing."""

    def put(self, closed: ClosedBuckets) -> None: ...

    def forget(self, tag: Tag) -> None: ...

    async def wait_for_room(self) -> None: ...


class Letters:
    """Keeps dead letters."""

    def __init__(self) -> None:
        self.letters: list[Any] = []

    async def send(self, topic: str, records: Any) -> int:
        self.letters += list(records)
        return len(self.letters)


def pipeline_of(
    settings: Settings, connection: aioredis.Redis, letters: Letters, *, now_ms: int
) -> Pipeline:
    """A pipeline whose inputs are always read to their end, at a fixed time."""
    return Pipeline(
        settings,
        RedisStore(connection),
        cast(BatchProducer, letters),
        cast(OutputLoop, _NoOutput()),
        Pseudonyms(b"key"),
        clock_ms=lambda: now_ms,
        lag=lambda _: 0,
        answered=lambda _: None,
    )
