"""The fakes of the ports between ingest, serving and the outside: topics, closes, forecasts."""

import json
from collections.abc import Iterable
from typing import Any

from model.contract import QuantileForecast
from stream.errors import ServiceUnavailable
from stream.partition.closed import ClosedBuckets
from stream.state.keys import Tag


class MemoryTopics:
    """A `RecordSink` that keeps what it is sent, by topic and in order; `away` refuses all."""

    def __init__(self) -> None:
        self.records: dict[str, list[tuple[str, bytes]]] = {}
        self.away = False

    async def send(self, topic: str, records: Iterable[tuple[str, bytes]]) -> int:
        if self.away:
            raise ServiceUnavailable("the broker does not answer")
        sent = list(records)
        self.records.setdefault(topic, []).extend(sent)
        return len(sent)

    def read(self, topic: str) -> list[Any]:
        """Records of a topic, decoded from JSON."""
        return [json.loads(value) for _, value in self.records.get(topic, [])]


class MemoryCloses:
    """A `ClosedBucketSink` that keeps closed buckets, but those of forgotten partitions."""

    def __init__(self) -> None:
        self.queued: list[ClosedBuckets] = []

    def put(self, closed: ClosedBuckets) -> None:
        self.queued.append(closed)

    def forget(self, tag: Tag) -> None:
        self.queued = [closed for closed in self.queued if closed.tag != tag]

    async def wait_for_room(self) -> None: ...


class MemoryForecasts:
    """A `ForecastStore` that keeps the newest forecast of each partition."""

    def __init__(self) -> None:
        self.newest: dict[Tag, QuantileForecast] = {}

    async def forecast(self, tag: Tag, forecast: QuantileForecast, **more: Any) -> None:
        self.newest[tag] = forecast
