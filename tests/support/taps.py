"""A tap on a broker: the records that arrive on its inputs while a test runs.

`tests/conftest.py` imports the fixtures.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaConsumer, TopicPartition

from stream.settings import Settings
from tests.support.services import TestBroker

TOPICS = ("orders", "clicks", "catalog", "inventory", "plans", "heartbeats")


@dataclass
class Tap:
    """Reads the records that arrive after it was made."""

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
        # Tansu reports the base offset of the last batch plus 1 as the end: read past that batch.
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
            assert time.monotonic() < deadline_s, "the broker did not return all its records"

    def values(self, topic: str) -> list[dict[str, object]]:
        """Values of a topic's records, partition by partition."""
        return [
            value
            for place, records in sorted(self.seen.items())
            if place.topic == topic
            for _, _, value in records
        ]


@pytest.fixture
def broker_settings(broker: TestBroker, tmp_path: Path) -> Settings:
    """Settings of the shared broker, with a data folder for one test."""
    return broker.settings.model_copy(update={"data_dir": tmp_path})


@pytest.fixture
def tap(broker_settings: Settings) -> Iterator[Tap]:
    """A tap on the shared broker."""
    tap = Tap(broker_settings)
    yield tap
    tap.consumer.close()


def check_heartbeats(tap: Tap) -> dict[int, list[int]]:
    """Event times of the heartbeats by partition; no older event follows their offsets."""
    times: dict[int, list[int]] = {}
    for place, records in tap.seen.items():
        if place.topic != "heartbeats":
            continue
        for _, key, value in records:
            assert key == str(place.partition).encode()
            moment, offsets = value["event_time_ms"], value["offsets"]
            assert isinstance(moment, int)
            assert isinstance(offsets, dict)
            assert set(offsets) == {"orders", "clicks", "inventory"}
            times.setdefault(place.partition, []).append(moment)
            for topic, next_offset in offsets.items():
                for offset, _, event in tap.seen.get(TopicPartition(topic, place.partition), []):
                    older = int(str(event["ts"])) < moment
                    assert not (offset >= next_offset and older), "an older event followed"
                    assert offset >= next_offset or int(str(event["ts"])) <= moment
    return times


def _document(value: bytes | None) -> Any:
    """JSON, or the bytes: other tests write Avro to the same topics."""
    try:
        return msgspec.json.decode(value or b"")
    except msgspec.DecodeError:
        return value
