"""The producer: its compression level, set at start, never at import; its turns on the loop."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.codec import lz4_encode
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from stream.kafka.producer import LZ4_LEVEL, PORTION, BatchProducer, use_fast_lz4

#: Bytes of a broker batch before its records.
HEADER = 61

IMPORT = """
import sys
from aiokafka.record.default_records import DefaultRecordBatchBuilder
module = sys.modules[DefaultRecordBatchBuilder.__module__]
before = module.lz4_encode
import stream.kafka.producer
assert module.lz4_encode is before
"""


@pytest.fixture
def builders(monkeypatch: pytest.MonkeyPatch) -> Any:
    """aiokafka's module of batch builders, with its own compression."""
    module: Any = sys.modules[DefaultRecordBatchBuilder.__module__]
    monkeypatch.setattr(module, "lz4_encode", lz4_encode)
    return module


def test_importing_the_module_changes_nothing() -> None:
    subprocess.run([sys.executable, "-c", IMPORT], check=True, timeout=60)


def test_setting_the_level_twice_is_setting_it_once(builders: Any) -> None:
    use_fast_lz4()
    use_fast_lz4()

    assert builders.lz4_encode.keywords == {"level": LZ4_LEVEL}
    assert builders.lz4_encode.func is lz4_encode


async def test_a_started_producer_compresses_at_the_level(
    builders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connected(_: AIOKafkaProducer) -> None:
        """Connect to no broker."""

    monkeypatch.setattr(AIOKafkaProducer, "start", connected)
    producer = BatchProducer({"bootstrap_servers": "nowhere:9092"})
    await producer.start()
    assert producer._producer is not None
    batch = producer._producer.create_batch()
    plain = DefaultRecordBatchBuilder(2, 0, False, -1, -1, 0, 2**20)
    for i in range(500):
        batch.append(key=b"k", value=b'{"units":%d}' % i, timestamp=1_000)
        plain.append(i, 1_000, b"k", b'{"units":%d}' % i, [])
    records = bytes(plain.build())[HEADER:]
    compressed = bytes(batch._build())[HEADER:]
    await producer.stop()

    assert compressed == lz4_encode(records, level=LZ4_LEVEL)
    assert compressed != lz4_encode(records, level=9)


class Acknowledging(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka ships no types
    """A producer without a broker: every batch is acknowledged at once."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []

    async def partitions_for(self, topic: str) -> set[int]:
        return {0, 1, 2}

    def create_batch(self) -> Any:
        return Batch()

    async def send_batch(self, batch: "Batch", topic: str, *, partition: int) -> Any:
        self.keys += batch.keys
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    def __del__(self) -> None:
        """Nothing was opened."""


class Batch:
    """Up to 1,000 keys."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []

    def append(self, *, key: bytes, value: bytes, timestamp: int | None) -> bool | None:
        if len(self.keys) == 1_000:
            return None
        self.keys.append(key)
        return True

    def record_count(self) -> int:
        return len(self.keys)


async def test_other_tasks_get_their_turn_while_many_records_are_built() -> None:
    """Each portion is built when the one before is sent, so a stop is not held up by millions."""
    producer = BatchProducer({})
    producer._producer = acknowledging = Acknowledging()
    made, turns = 0, []

    def records() -> Iterator[tuple[str, bytes]]:
        nonlocal made
        for made in range(1, 3 * PORTION + 2):
            yield f"S{made}", b"{}"

    async def watch() -> None:
        while True:
            turns.append(made)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    sent = await producer.send("features", records())
    watching.cancel()

    assert sent == 3 * PORTION + 1
    assert sorted(acknowledging.keys) == sorted(b"S%d" % n for n in range(1, sent + 1))
    assert {PORTION, 2 * PORTION, 3 * PORTION} <= set(turns)
