"""What a fetch brings: whole broker batches of one partition, parsed when they are read.

CRC checks, control batches, aborted transactions and compaction gaps are handled as aiokafka does,
but by broker batch and not by record. Values are not decoded here.
"""

from collections.abc import Iterator
from typing import Any, Final

from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.structs import TopicPartition

#: Offsets after which a batch is handed on. What is built of a few thousand events fits the
#: processor's cache through all the passes over them; a whole compressed fetch does not.
PORTION: Final = 4_096


class RecordBatch:
    """Records of one partition, in log order, as fetched.

    `records` are aiokafka's parsed records (`offset`, `timestamp`, `key`, `value`, `headers`).
    They are parsed when they are first asked for: whoever reads them next finds them in the
    processor's cache, and what waits in a queue is a few bytes objects instead of thousands.
    `from_offset` is where reading stood before and `next_offset` where it goes on; between them
    there may be fewer records than offsets (compaction, control records).
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
        """Append a broker batch; its records below `next_offset` as it was are not taken."""
        self._unparsed.append((broker_batch, self.next_offset))
        self.next_offset = next_offset
        self.newest_timestamp_ms = max(self.newest_timestamp_ms, broker_batch.max_timestamp or 0)

    @property
    def records(self) -> list[Any]:
        """The parsed records."""
        for broker_batch, wanted in self._unparsed:
            fresh = list(broker_batch)
            if fresh and fresh[0].offset < wanted:
                fresh = [record for record in fresh if record.offset >= wanted]
            if self._records:
                self._records += fresh
            else:
                self._records = fresh
        self._unparsed = []
        return self._records

    @records.setter
    def records(self, records: list[Any]) -> None:
        self._records, self._unparsed = records, []

    def release(self) -> None:
        """Let go of the records, all of them counted: Faust keeps what it was handed for a while.

        Without it the memory of a dozen batches is in use where that of one would do, which the
        processor's cache cannot hold and the collector walks.
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
    """Make a fetch result yield whole batches; done once, before its first record is taken."""
    source = result._partition_records
    if source is not None and not hasattr(source, "_whole"):
        source._whole = True
        source._records_iterator = _portions(source, topic=tp.topic, partition=tp.partition)


def _portions(source: PartitionRecords, *, topic: str, partition: int) -> Iterator[RecordBatch]:
    """All that was fetched, a `PORTION` at a time; `source.next_fetch_offset` moves as in aiokafka.

    Where a fetch ends in what is no record (control batches, aborted transactions), the last one
    tells how far reading has come all the same.
    """

    def fresh() -> RecordBatch:
        at = source.next_fetch_offset
        return RecordBatch(
            topic, partition, [], from_offset=at, next_offset=at, newest_timestamp_ms=0
        )

    batches = source._records
    fetched = fresh()
    while batches.has_next():
        batch = batches.next_batch()
        if source._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC in {topic}-{partition}")
        end = max(fetched.next_offset, batch.next_offset)
        if _is_taken(source, batch):
            fetched.append(batch, next_offset=end)
        else:
            fetched.next_offset = end
        if not batches.has_next() or end - fetched.from_offset >= PORTION:
            source.next_fetch_offset = end
            if end > fetched.from_offset:
                yield fetched
            fetched = fresh()


def _is_taken(source: PartitionRecords, batch: Any) -> bool:
    """Whether a broker batch holds records, and nobody took them back."""
    if source._isolation_level == READ_COMMITTED and batch.producer_id is not None:
        source._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and source._contains_abort_marker(batch):
            source._aborted_producers.discard(batch.producer_id)
        if batch.is_transactional and batch.producer_id in source._aborted_producers:
            return False
    return not batch.is_control_batch
