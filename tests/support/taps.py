"""A tap on the broker: what arrives on the inputs from the moment it is opened.

`tests/conftest.py` imports the fixture `tap`; the test's own fixture `settings` says which broker.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from kafka import KafkaConsumer, TopicPartition

from stream.settings import Settings

TOPICS = ("orders", "clicks", "catalog", "inventory", "plans", "heartbeats")


@dataclass
class Tap:
    """Reads what arrives on the broker from the moment it is made."""

    settings: Settings
    seen: dict[TopicPartition, list[tuple[int, bytes | None, dict[str, object]]]] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        self.consumer = KafkaConsumer(bootstrap_servers=self.settings.kafka.bootstrap_servers)
        places = [
            TopicPartition(topic, partition)
            for topic in TOPICS
            for partition in range(self.settings.kafka.partitions)
        ]
        self.consumer.assign(places)
        # Tansu calls the base offset of the last batch, plus 1, the end: read past that batch.
        for place, offset in self.consumer.end_offsets(places).items():
            self.consumer.seek(place, max(offset - 1, 0))
        self.read()
        self.seen.clear()

    def read(self) -> None:
        """Read to the end of every partition."""
        ends = self.consumer.end_offsets(list(self.consumer.assignment()))
        deadline_s = time.monotonic() + 60
        while True:
            polled = self.consumer.poll(timeout_ms=200, max_records=5_000)
            for place, records in polled.items():
                self.seen.setdefault(place, []).extend(
                    (record.offset, record.key, _document(record.value)) for record in records
                )
            if not polled and all(self.consumer.position(p) >= end for p, end in ends.items()):
                return
            assert time.monotonic() < deadline_s, "the broker does not hand out what it has"

    def values(self, topic: str) -> list[dict[str, object]]:
        return [
            value
            for place, records in sorted(self.seen.items())
            if place.topic == topic
            for _, _, value in records
        ]


@pytest.fixture
def tap(settings: Settings) -> Iterator[Tap]:
    tap = Tap(settings)
    yield tap
    tap.consumer.close()


def check_promises(tap: Tap) -> dict[int, list[int]]:
    """No heartbeat is broken by an event behind its offsets; the times promised, by partition."""
    promised: dict[int, list[int]] = {}
    for place, records in tap.seen.items():
        if place.topic != "heartbeats":
            continue
        for _, key, value in records:
            assert key == str(place.partition).encode()
            moment, offsets = value["event_time_ms"], value["offsets"]
            assert isinstance(moment, int)
            assert isinstance(offsets, dict)
            assert set(offsets) == {"orders", "clicks", "inventory"}
            promised.setdefault(place.partition, []).append(moment)
            for topic, next_offset in offsets.items():
                for offset, _, event in tap.seen.get(TopicPartition(topic, place.partition), []):
                    older = int(str(event["ts"])) < moment
                    assert not (offset >= next_offset and older), "an older event followed"
                    assert offset >= next_offset or int(str(event["ts"])) <= moment
    return promised


def _document(value: bytes | None) -> Any:
    """JSON, or the bytes themselves: other tests put Avro into the same topics."""
    try:
        return msgspec.json.decode(value or b"")
    except msgspec.DecodeError:
        return value
