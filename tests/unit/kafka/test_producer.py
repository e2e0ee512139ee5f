"""The producer's compression level: set at start, never at import."""

import subprocess
import sys
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.codec import lz4_encode
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from stream.kafka.producer import LZ4_LEVEL, BatchProducer, use_fast_lz4

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
