"""Batches of fetched records of one partition, parsed on first access.

CRC checks, control batches, aborted transactions and compaction gaps are handled as in aiokafka,
but per broker batch instead of per record. Values are not decoded here.
"""

from collections.abc import Iterator
from typing import Any, Final

from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.structs import TopicPartition

#: Offsets per batch. The objects of a few thousand events fit the processor's cache during all
#: passes over them; those of a whole compressed fetch do not.
PORTION: Final = 4_096


class RecordBatch:
    """Records of one partition, in log order, as fetched.

    `records` are aiokafka's parsed records (`offset`, `timestamp`, `key`, `value`, `headers`).
    They are parsed on first access: they are then still in the processor's cache when read, and a
    waiting batch is a few bytes objects instead of thousands.
    The batch covers the offsets ``[from_offset, next_offset)``, with fewer records than offsets
    after compaction and around control records.
    `newest_timestamp_ms` is the broker-side time of the newest record.

    >>> batch = RecordBatch("orders", 0, [], from_offset=4, next_offset=6, newest_timestamp_ms=0)
    >>> len(batch), batch.next_offset
    (0, 6)
    """

    __slots__ = (
        "_records", "_unparsed", "from_offset", "newest_timestamp_ms", "next_offset", "partition",
        "topic",
    )  # fmt: skip

    def __init__(
        self, topic: str, partition: int, records: list[Any], *,
        from_offset: int, next_offset: int, newest_timestamp_ms: int,
    ) -> None:  # fmt: skip
        self.topic = topic
        self.partition = partition
        self._records = records
        self._unparsed: list[Any] = []
        self.from_offset = from_offset
        self.next_offset = next_offset
        self.newest_timestamp_ms = newest_timestamp_ms

    def append(self, broker_batch: Any, *, next_offset: int) -> None:
        """Append a broker batch, without records below the current `next_offset`."""
        self._unparsed.append((broker_batch, self.next_offset))
        self.next_offset = next_offset
        self.newest_timestamp_ms = max(self.newest_timestamp_ms, broker_batch.max_timestamp or 0)

    @property
    def records(self) -> list[Any]:
        """The parsed records."""
        for broker_batch, first_offset in self._unparsed:
            parsed = list(broker_batch)
            if parsed and parsed[0].offset < first_offset:
                parsed = [record for record in parsed if record.offset >= first_offset]
            if self._records:
                self._records += parsed
            else:
                self._records = parsed
        self._unparsed = []
        return self._records

    @records.setter
    def records(self, records: list[Any]) -> None:
        self._records, self._unparsed = records, []

    def release(self) -> None:
        """Drop the counted records, since Faust keeps references to past messages for a while.

        Otherwise a dozen batches stay in memory: too much for the processor's cache, and more for
        the garbage collector to visit.
        """
        self.records = []

    @property
    def values(self) -> list[bytes | None]:
        """Values in log order; None is a tombstone."""
        return [record.value for record in self.records]

    @property
    def keys(self) -> list[bytes | None]:
        """Keys in log order."""
        return [record.key for record in self.records]

    def __iter__(self) -> Iterator[Any]:
        """The parsed records, in log order."""
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


def yield_whole_batches(tp: TopicPartition, result: FetchResult) -> None:
    """Make a fetch result yield whole batches. Call it before the first record is read.

    A second call changes nothing.
    """
    source = result._partition_records
    if source is not None and not hasattr(source, "_whole"):
        source._whole = True
        source._records_iterator = _batches(source, topic=tp.topic, partition=tp.partition)


def _batches(source: PartitionRecords, *, topic: str, partition: int) -> Iterator[RecordBatch]:
    """Yield the fetch in batches of `PORTION` offsets; moves `next_fetch_offset` as aiokafka does.

    If a fetch ends in control batches or aborted transactions, the last batch covers their offsets.
    """

    def empty_batch() -> RecordBatch:
        at = source.next_fetch_offset
        return RecordBatch(
            topic, partition, [], from_offset=at, next_offset=at, newest_timestamp_ms=0
        )

    batches = source._records
    fetched = empty_batch()
    while batches.has_next():
        batch = batches.next_batch()
        if source._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC in {topic}-{partition}")
        end = max(fetched.next_offset, batch.next_offset)
        if _holds_records(source, batch):
            fetched.append(batch, next_offset=end)
        else:
            fetched.next_offset = end
        if not batches.has_next() or end - fetched.from_offset >= PORTION:
            source.next_fetch_offset = end
            if end > fetched.from_offset:
                yield fetched
            fetched = empty_batch()


def _holds_records(source: PartitionRecords, batch: Any) -> bool:
    """True if a broker batch holds records of no aborted transaction."""
    if source._isolation_level == READ_COMMITTED and batch.producer_id is not None:
        source._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and source._contains_abort_marker(batch):
            source._aborted_producers.discard(batch.producer_id)
        if batch.is_transactional and batch.producer_id in source._aborted_producers:
            return False
    return not batch.is_control_batch
