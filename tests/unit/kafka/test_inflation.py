"""Compressed batches inflate to a limit; what nobody can read becomes one refused record."""

import struct
from typing import Any

import pytest
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from stream.decoding.events import OrderDecoder
from stream.kafka.reading import inflation
from stream.kafka.reading.inflation import DECODERS, BoundedRecords, TooInflated, bound_aiokafka
from stream.kafka.reading.record_batch import RecordBatch, yield_whole_batches

TP = TopicPartition("orders", 0)
#: Encoder, and the number of its codec in a batch.
CODECS: dict[str, tuple[Any, int]] = {
    "gzip": (gzip_encode, 1),
    "snappy": (snappy_encode, 2),
    "lz4": (lz4_encode, 3),
    "zstd": (zstd_encode, 4),
}
HEADER, CRC_AT, ATTRIBUTES_AT = 61, 17, 21


def compressed(payload: bytes, codec: str, *, records: int = 3, first: int = 0) -> bytes:
    """A broker batch with a right checksum whose compressed records are `payload`."""
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, 0, 2**24)
    for i in range(records):
        builder.append(i, 1_000, b"k", b"v", [])
    encode, number = CODECS[codec]
    head = bytearray(builder.build()[:HEADER])
    body: bytes = encode(payload)
    head[:8] = struct.pack("!q", first)
    head[8:12] = struct.pack("!i", HEADER - 12 + len(body))
    head[ATTRIBUTES_AT : ATTRIBUTES_AT + 2] = struct.pack("!h", number)
    head[CRC_AT : CRC_AT + 4] = struct.pack("!I", calc_crc32c(bytes(head[ATTRIBUTES_AT:]) + body))
    return bytes(head) + body


def good(*, first: int) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 1, False, -1, -1, 0, 2**24)
    builder.append(0, 1_000, b"k", b"fine", [])
    raw = bytearray(builder.build())
    raw[:8] = struct.pack("!q", first)
    return bytes(raw)


def source(raw: bytes) -> PartitionRecords:
    bound_aiokafka()
    return PartitionRecords(TP, BoundedRecords(raw), [], 0, None, None, True, READ_COMMITTED)


def whole(raw: bytes) -> RecordBatch:
    """The fetch as the ingest reads it."""
    result = FetchResult(TP, assignment=None, partition_records=source(raw), backoff=0)
    yield_whole_batches(TP, result)
    batches: list[RecordBatch] = list(result._partition_records)
    return batches[0]


@pytest.mark.parametrize("codec", CODECS)
def test_the_bounded_decoders_read_what_the_encoders_wrote(codec: str) -> None:
    payload = bytes(range(256)) * 5_000
    decode = DECODERS[f"{codec}_decode"]

    assert decode(memoryview(CODECS[codec][0](payload))) == payload


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_is_refused_and_what_follows_is_read(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the ingest, which reads whole batches, as by a plain consumer, record by record."""
    monkeypatch.setattr(inflation, "MAX_INFLATED", 2**20)
    raw = compressed(bytes(2**22), codec) + good(first=3)
    batch = whole(raw)

    assert [record.offset for record in batch.records] == [0, 3]
    assert [(r.offset, r.value) for r in source(raw)] == [(0, b""), (3, b"fine")]
    refused = OrderDecoder().columns(batch, latest_ms=1).refused
    assert [one.reason for one in refused] == ["unreadable_batch", "malformed_json"]
    assert "offsets 0 to 2 cannot be read" in refused[0].detail


@pytest.mark.parametrize("codec", CODECS)
def test_a_broken_batch_is_refused_too(codec: str) -> None:
    """Bytes that are not of its codec, or records that end early, under a right checksum."""
    batch = whole(compressed(b"\x7f" * 40, codec) + good(first=3))

    assert [record.offset for record in batch.records] == [0, 3]


def test_a_lying_snappy_header_allocates_nothing() -> None:
    """A block that names four gigabytes is refused by its name."""
    with pytest.raises(TooInflated):
        DECODERS["snappy_decode"](b"\xff\xff\xff\xff\x0f" + bytes(10))
