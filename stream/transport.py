"""Faust's Kafka transport, handing an agent whole fetched batches instead of single messages.

First station of the path: broker batches come in here, `stream/codecs.py` reads them. The cost of
a stream processor in Python is the object built for each message, so the thread unpacks every
broker batch at once and gives Faust *one* message per fetch and partition, whose value is a
`RecordBatch`. CRC checks, control batches, aborted transactions and compaction gaps are handled as
aiokafka does. Which offsets are committed, and where reading starts, is decided by the owner of the
state (`OffsetAuthority`), because offsets live beside the values computed from them.

It does not decode values and knows nothing of what they mean.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, cast

import aiokafka
import structlog
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.serializers.codecs import Codec
from faust.transport.drivers.aiokafka import (
    AIOKafkaConsumerThread,
    Consumer,
    Producer,
    Transport,
)
from faust.types import TP, ConsumerMessage

from stream.errors import ServiceUnavailable, SurgecastError

log = structlog.get_logger(__name__)


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

    @property
    def values(self) -> list[bytes | None]:
        """Values in log order; None is a tombstone."""
        return [record.value for record in self.records]

    @property
    def keys(self) -> list[bytes | None]:
        """Keys in log order."""
        return [record.key for record in self.records]

    def __len__(self) -> int:
        return len(self.records)


class AsFetched(Codec):
    """The Faust codec of our topics: the value is handed on untouched."""

    def _loads(self, s: Any) -> Any:
        return s

    def _dumps(self, obj: Any) -> Any:
        return obj


class OffsetAuthority(Protocol):
    """Who knows which offsets are safe: the state, not the acknowledgements."""

    async def resume_offsets(self, assigned: set[TP], generation: int) -> Mapping[TP, int]:
        """Take over partitions; where to go on reading. Those left out start as committed."""

    def flushed_offset(self, tp: TP) -> int | None:
        """Next offset after all that is safely stored, or None."""

    async def flush(self) -> None:
        """Store everything that was read so far."""

    @property
    def held(self) -> frozenset[TP]:
        """Topic partitions that are not to be fetched for now."""


def _whole_fetch(source: PartitionRecords, *, topic: str, partition: int) -> Iterator[RecordBatch]:
    """One `RecordBatch` of all that was fetched; `source.next_fetch_offset` moves as in aiokafka.

    Where a fetch ends in what is no record (control batches, aborted transactions), it tells how
    far reading has come all the same.
    """
    batches = source._records
    start = source.next_fetch_offset
    fetched = RecordBatch(
        topic, partition, [], from_offset=start, next_offset=start, newest_timestamp_ms=0
    )
    while batches.has_next():
        batch = batches.next_batch()
        if source._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC in {topic}-{partition}")
        end = max(fetched.next_offset, batch.next_offset)
        if _is_taken(source, batch):
            fetched.append(batch, next_offset=end)
        else:
            fetched.next_offset = end
    source.next_fetch_offset = fetched.next_offset
    if fetched.next_offset > start:
        yield fetched


def _is_taken(source: PartitionRecords, batch: Any) -> bool:
    """Whether a broker batch holds records, and nobody took them back."""
    if source._isolation_level == READ_COMMITTED and batch.producer_id is not None:
        source._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and source._contains_abort_marker(batch):
            source._aborted_producers.discard(batch.producer_id)
        if batch.is_transactional and batch.producer_id in source._aborted_producers:
            return False
    return not batch.is_control_batch


@contextmanager
def _explained(app: Any) -> Iterator[None]:
    """Say in a line that the broker is away, where Faust connects to it."""
    try:
        yield
    except KafkaError as error:
        explained = ServiceUnavailable(f"the broker did not answer: {error}")
        app.explain(explained)
        raise explained from error


class BatchConsumerThread(AIOKafkaConsumerThread):
    """Faust's consumer thread, fetching per broker batch, with co-partitioned assignment."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Range assignment gives one worker the same partition number of every topic, which
        # orders, clicks and catalog of a SKU need.
        consumer._partition_assignment_strategy = (RangePartitionAssignor,)
        consumer._fetch_max_wait_ms = 100
        # Faust has no setting for it: what a producer took back must not be counted.
        consumer._isolation_level = "read_committed"
        return consumer

    async def on_start(self) -> None:
        """Connect; a broker that is away is said in a line, and the worker ends."""
        with _explained(self.app):
            await super().on_start()

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 - Faust's signature
        max_records: int | None = None,
    ) -> Mapping[TP, list[RecordBatch]]:
        if not self.consumer.flow_active:
            return {}
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        deadline = time.monotonic() + (timeout or 0.0)
        held = self.authority.held
        if held:
            active_partitions = active_partitions - held
            if not active_partitions:  # aiokafka takes none for all
                await asyncio.sleep(min(0.05, timeout or 0.0))
                return {}
            deadline = min(deadline, time.monotonic() + 0.05)  # held ones may be free by then
        with fetcher._subscriptions.fetch_context():
            while True:
                for tp, result in fetcher._records.items():
                    if isinstance(result, FetchResult):
                        _hand_over(tp, result)
                drained = await fetcher.fetched_records(active_partitions, timeout=0)
                remaining = deadline - time.monotonic()
                if drained or remaining <= 0:
                    return {cast(TP, tp): fetches for tp, fetches in drained.items() if fetches}
                if not await _another_fetch(fetcher, remaining) or not self.consumer.flow_active:
                    return {}

    @property
    def authority(self) -> OffsetAuthority:
        """The owner of the state."""
        return cast(BatchConsumer, self.consumer).authority

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Tell Kafka what is stored; when it cannot be told now, the next commit will do.

        Nothing depends on it: reading resumes where the store says.
        """
        wanted = {
            TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in self.assignment()
        }
        if not wanted:
            return False
        try:
            await self._ensure_consumer().commit(wanted)
        except KafkaError as error:
            log.warning("commit_waits", reason=repr(error))
            return False
        self.tp_last_committed_at.update(dict.fromkeys(offsets, time.monotonic()))
        return True

    def rejoin(self) -> None:
        """Make the group assign partitions once more; may be called from another thread."""
        coordinator = self._ensure_consumer()._coordinator
        self.thread_loop.call_soon_threadsafe(coordinator.request_rejoin)


def _hand_over(tp: TopicPartition, result: FetchResult) -> None:
    """Make a fetch result yield whole batches; done once, before its first record is taken."""
    source = result._partition_records
    if source is not None and not hasattr(source, "_whole"):
        source._whole = True
        source._records_iterator = _whole_fetch(source, topic=tp.topic, partition=tp.partition)


async def _another_fetch(fetcher: Any, seconds: float) -> bool:
    """Wait until the broker has answered once more; False when it did not in time."""
    waiter = fetcher._create_fetch_waiter()
    done, pending = await asyncio.wait([waiter], timeout=seconds)
    for late in pending:
        late.cancel()
    for answer in done:
        answer.result()  # raises what the fetch raised
    return bool(done)


class BatchConsumer(Consumer):
    """Faust's consumer, committing exactly what the state has stored."""

    @property
    def authority(self) -> OffsetAuthority:
        """The owner of the state, hung on the app by `stream/app.py`."""
        return cast(OffsetAuthority, cast(Any, self.app).offset_authority)

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, record: RecordBatch) -> ConsumerMessage:
        return ConsumerMessage(
            record.topic,
            record.partition,
            record.next_offset - 1,
            record.newest_timestamp_ms / 1000.0,
            0,
            None,
            None,
            cast(Any, record),  # what travels here is the whole batch; the codec hands it on
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go to the offsets stored beside the state; elsewhere to the committed ones."""
        committed = dict(await super().seek_to_committed())
        self._committed_in_kafka = {tp: offset for tp, offset in committed.items() if offset}
        try:
            resume = await self.authority.resume_offsets(
                set(self.assignment()), self.app.consumer_generation_id
            )
        except SurgecastError as error:
            await cast(Any, self.app).give_up(error)
            raise
        if resume:
            await self._thread.seek_wait(resume)
        return committed | dict(resume)

    async def perform_seek(self) -> None:
        """As Faust's, but what the broker has as committed stays what it is."""
        await super().perform_seek()
        self._committed_offset.clear()
        self._committed_offset.update(self._committed_in_kafka)

    async def _commit_offsets(
        self, offsets: Mapping[TP, int], start_new_transaction: bool = True
    ) -> bool:
        before = {tp: self._committed_offset[tp] for tp in offsets}
        done = await super()._commit_offsets(offsets, start_new_transaction)
        if not done:
            self._committed_offset.update(before)  # Faust takes it for committed even so
        return done

    async def places(self, tps: set[TP]) -> tuple[dict[TP, int], dict[TP, int]]:
        """Earliest and end offset of topic partitions. Raises ServiceUnavailable."""
        try:
            earliest = await self._thread.earliest_offsets(*tps)
            end = await self._thread.highwaters(*tps)
        except KafkaError as error:
            raise ServiceUnavailable(f"the broker told no offsets: {error!r}") from error
        return (
            {TP(tp.topic, tp.partition): offset for tp, offset in earliest.items()},
            {TP(tp.topic, tp.partition): offset for tp, offset in end.items()},
        )

    def rejoin(self) -> None:
        """Make the group assign partitions once more."""
        cast(BatchConsumerThread, self._thread).rejoin()

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        for tp in self.assignment():
            if topics is None or tp in topics or tp.topic in topics:
                yield tp

    def _new_offset(self, tp: TP) -> int | None:
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return self.authority.flushed_offset(tp)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps need no bookkeeping: the state's offset already lies beyond them."""

    async def commit_and_end_transactions(self) -> None:
        """Store what was read, then commit it: the last act before a rebalance or a stop."""
        await self.authority.flush()
        await super().commit_and_end_transactions()


class UnusedProducer(Producer):
    """Faust's producer, which it starts whether or not anybody sends with it."""

    async def on_start(self) -> None:
        """Connect; a broker that is away is said in a line, and the worker ends."""
        with _explained(self.app):
            await super().on_start()


class BatchTransport(Transport):
    """The transport an app uses to get batches: see `stream/app.py`."""

    Consumer = BatchConsumer
    Producer = UnusedProducer
