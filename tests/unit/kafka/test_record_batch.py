"""Fetched broker batches: yielded in portions, parsed on first access."""

import pytest
from aiokafka.codec import lz4_encode
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from stream.decoding.formats import JsonFormat
from stream.kafka.producer import LZ4_LEVEL, use_fast_lz4
from stream.kafka.reading.record_batch import PORTION, RecordBatch, yield_whole_batches

TP = TopicPartition("orders", 0)
PLAIN, LZ4 = 0, 3
#: Bytes of a broker batch before its records.
HEADER = 61


def log(*sizes: int, first: int = 0, compression: int = PLAIN) -> bytes:
    """A log of broker batches of these sizes; the value of a record is its offset."""
    out = b""
    for size in sizes:
        builder = DefaultRecordBatchBuilder(2, compression, False, -1, -1, 0, 2**24)
        for i in range(size):
            builder.append(i, 1_000 + first + i, b"k", b"%d" % (first + i), [])
        batch = bytearray(builder.build())
        batch[:8] = first.to_bytes(8)
        out += batch
        first += size
    return out


def reading(raw: bytes, *, at: int = 0) -> PartitionRecords:
    """A fetch from offset `at`, prepared as the transport does."""
    source = PartitionRecords(TP, MemoryRecords(raw), [], at, None, None, True, READ_COMMITTED)
    result = FetchResult(TP, assignment=None, partition_records=source, backoff=0)
    yield_whole_batches(TP, result)
    yield_whole_batches(TP, result)  # a second call changes nothing
    return source


def fetched(raw: bytes, *, at: int = 0) -> list[RecordBatch]:
    """The portions of a fetch; after each the next fetch offset is its end."""
    source = reading(raw, at=at)
    portions = []
    for portion in source:
        assert source.next_fetch_offset == portion.next_offset
        portions.append(portion)
    return portions


def test_portions_join_without_gap_and_hold_every_record_once() -> None:
    portions = fetched(log(*[1_000] * 11, 10, first=50), at=50)

    assert len(portions) == 3
    assert [p.from_offset for p in portions] == [50, *(p.next_offset for p in portions[:-1])]
    assert all(p.next_offset - p.from_offset >= PORTION for p in portions[:-1])
    values = [int(value or b"") for p in portions for value in p.values]
    assert values == list(range(50, 11_060))
    assert portions[-1].newest_timestamp_ms == 1_000 + 11_059


def test_records_before_the_fetch_offset_are_skipped() -> None:
    """The broker sends whole batches: the first may begin before the requested offset."""
    (portion,) = fetched(log(100, 100), at=30)

    assert (portion.from_offset, portion.next_offset, len(portion)) == (30, 200, 170)


def test_a_damaged_batch_raises_and_intact_batches_before_it_are_kept() -> None:
    raw = bytearray(log(PORTION, 100))
    raw[-1] ^= 1
    source = reading(bytes(raw))
    portions = iter(source)

    assert next(portions).next_offset == PORTION
    with pytest.raises(CorruptRecordException):
        next(portions)
    assert source.next_fetch_offset == PORTION


async def test_json_is_not_parsed_before_it_is_counted() -> None:
    """A batch that waits for another input stays in the fetched bytes."""
    (portion,) = fetched(log(10))
    await JsonFormat().prepare(portion)
    assert portion._unparsed

    assert len(portion) == 10
    assert not portion._unparsed
    portion.release()
    assert len(portion) == 0
    assert portion.next_offset == 10


def test_compressed_outputs_are_compressed_fast_and_read_back() -> None:
    """At aiokafka's own level 9 a batch is smaller and takes forty times as long."""
    use_fast_lz4()
    raw, plain = log(3_000, compression=LZ4), log(3_000)
    (portion,) = fetched(raw)

    assert [int(value or b"") for value in portion.values] == list(range(3_000))
    assert raw[HEADER:] == lz4_encode(plain[HEADER:], level=LZ4_LEVEL)
    assert raw[HEADER:] != lz4_encode(plain[HEADER:], level=9)
