"""Bounds what compressed batches may inflate to, in every Kafka client of this process.

The clients inflate a fetched batch whole before its first record: 200 KB of gzip become 200 MB.
Here they stop at `MAX_INFLATED`. In aiokafka an `Unreadable` value then takes the place of the
batch's records, and of those after a broken one, so that their reader refuses it with a reason and
reads on; kafka-python raises `TooInflated`.
"""

import gzip
import importlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from typing import Any, Final

import cramjam
import lz4.frame
import zstandard
from aiokafka.errors import CorruptRecordException, KafkaError

#: Inflated bytes of one batch at most. Brokers accept 1 MB compressed, unless they are told to.
MAX_INFLATED: Final = 64 * 2**20
_PIECE: Final = 2**20
_XERIAL: Final = b"\x82SNAPPY\0"
_XERIAL_HEADER: Final = 16
#: Errors of the decompressors for bytes that are not theirs.
_BROKEN: Final = (
    OSError, EOFError, RuntimeError, ValueError, zlib.error, zstandard.ZstdError,
    cramjam.DecompressionError,
)  # fmt: skip


class TooInflated(Exception):
    """A compressed batch exceeds `MAX_INFLATED`."""

    def __init__(self, compressed: int) -> None:
        super().__init__(
            f"a batch of {compressed} compressed bytes inflates to more than {MAX_INFLATED}"
        )


class Unreadable(bytes):
    """Stands for records that could not be read: empty, with the reason as `detail`.

    >>> Unreadable.because("broken").detail, len(Unreadable.because("broken"))
    ('broken', 0)
    """

    detail: str = ""

    @classmethod
    def because(cls, detail: str) -> "Unreadable":
        """Return a value with a reason."""
        value = cls()
        value.detail = detail
        return value


#: Errors of a batch whose checksum is right, and which nobody can read.
UNREADABLE_BATCH: Final = (TooInflated, KafkaError, ValueError, RuntimeError, OverflowError)


@dataclass(slots=True)
class _Placeholder:
    """A record in the shape of the clients' own."""

    offset: int
    timestamp: int
    value: Unreadable
    timestamp_type: int = 0
    key: bytes | None = None
    headers: list[Any] = field(default_factory=list)
    checksum: int | None = None


class BoundedBatch:
    """A broker batch whose records are read at once, up to the first that cannot be."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self._records: Iterator[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._records is None:
            self._records = iter(self._read())
        return next(self._records)

    def _read(self) -> list[Any]:
        batch, records = self._batch, []
        try:
            records.extend(batch)  # keeps what came before an error
        except UNREADABLE_BATCH as error:
            last = batch.next_offset - 1
            at = min(records[-1].offset + 1, last) if records else batch.base_offset
            reason = f"offsets {at} to {last} cannot be read: {error}"
            records.append(_Placeholder(at, batch.max_timestamp or 0, Unreadable.because(reason)))
        return records


class BoundedRecords:
    """aiokafka's `MemoryRecords`, of bounded batches."""

    def __init__(self, raw: bytes) -> None:
        from aiokafka.record.memory_records import MemoryRecords

        self._records = MemoryRecords(raw)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    def next_batch(self) -> BoundedBatch | None:
        """Return the next batch; None at the end."""
        batch = self._records.next_batch()
        return None if batch is None else BoundedBatch(batch)


@cache
def bound_aiokafka() -> None:
    """Bound all aiokafka consumers of this process."""
    from aiokafka.consumer import fetcher
    from aiokafka.record.default_records import DefaultRecordBatch
    from aiokafka.record.legacy_records import LegacyRecordBatch

    for batch in (DefaultRecordBatch, LegacyRecordBatch):
        _replace_decoders(batch.__module__)
    vars(fetcher)["MemoryRecords"] = BoundedRecords


@cache
def bound_kafka_python() -> None:
    """Bound all kafka-python consumers of this process."""
    for module in ("kafka.record.default_records", "kafka.record.legacy_records"):
        _replace_decoders(module)


def _replace_decoders(module_name: str) -> None:
    module = importlib.import_module(module_name)
    for name, decoder in DECODERS.items():
        if hasattr(module, name):
            setattr(module, name, decoder)


def _bounded(stream: Any, compressed: int) -> bytes:
    """Read a decompressing stream to its end. Raises TooInflated, or CorruptRecordException."""
    pieces, size = [], 0
    try:
        while piece := stream.read(_PIECE):
            size += len(piece)
            if size > MAX_INFLATED:
                raise TooInflated(compressed)
            pieces.append(piece)
    except _BROKEN as error:
        raise CorruptRecordException(f"a compressed batch is broken: {error}") from None
    return b"".join(pieces)


def _gzip(payload: Any) -> bytes:
    return _bounded(gzip.GzipFile(fileobj=BytesIO(payload)), len(payload))


def _lz4(payload: Any) -> bytes:
    return _bounded(lz4.frame.LZ4FrameFile(BytesIO(payload)), len(payload))


def _zstd(payload: Any) -> bytes:
    reader = zstandard.ZstdDecompressor().stream_reader(BytesIO(payload), read_across_frames=True)
    return _bounded(reader, len(payload))


def _snappy(payload: Any) -> bytes:
    """Blocks name their inflated size at the start: it is checked before anything is allocated."""
    raw = bytes(payload)
    blocks = []
    try:
        if raw[: len(_XERIAL)] == _XERIAL:
            at = _XERIAL_HEADER
            while at < len(raw):
                size = int.from_bytes(raw[at : at + 4])
                blocks.append(raw[at + 4 : at + 4 + size])
                at += 4 + size
        else:
            blocks.append(raw)
        if sum(map(_snappy_size, blocks)) > MAX_INFLATED:
            raise TooInflated(len(raw))
        return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)
    except (*_BROKEN, IndexError) as error:
        raise CorruptRecordException(f"a compressed batch is broken: {error}") from None


def _snappy_size(block: bytes) -> int:
    """Return the inflated size that a snappy block names: a varint.

    >>> _snappy_size(bytes(cramjam.snappy.compress_raw(bytes(300))))
    300
    """
    size = 0
    for position in range(5):
        size |= (block[position] & 0x7F) << (7 * position)
        if block[position] < 0x80:
            break
    return size


#: Bounded decoders by the name that both clients import them under.
DECODERS: Final = {
    "gzip_decode": _gzip,
    "lz4_decode": _lz4,
    "zstd_decode": _zstd,
    "snappy_decode": _snappy,
}
