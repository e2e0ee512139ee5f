"""Faust's Kafka transport, handing an agent whole fetched batches instead of single messages.

First station of the path: broker batches come in here, `stream/decoding/events.py` reads them. The
cost of a stream processor in Python is the object built for each message, so the consumer's thread
(`stream/kafka/consumer_thread.py`) gives Faust *one* message per fetch and partition, whose value
is a `RecordBatch` (`stream/kafka/record_batch.py`). Which offsets are committed, and where reading
starts, is decided by the owner of the state (`OffsetAuthority`), because offsets live beside the
values computed from them.

It does not decode values and knows nothing of what they mean.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import structlog
from aiokafka.errors import KafkaError
from faust.serializers.codecs import Codec
from faust.transport.drivers.aiokafka import Consumer, Producer, Transport
from faust.types import TP, ConsumerMessage

from stream.errors import ServiceUnavailable, SurgecastError
from stream.kafka.consumer_thread import (
    BatchConsumerThread,
    BrokerAnswer,
    OffsetAuthority,
    explained,
)
from stream.kafka.record_batch import RecordBatch

log = structlog.get_logger(__name__)

#: The longest a worker that is told to stop waits for the store to take what was read.
LEAVE_S: Final = 5.0


class AsFetched(Codec):
    """The Faust codec of our topics: the value is handed on untouched."""

    def _loads(self, s: Any) -> Any:
        return s

    def _dumps(self, obj: Any) -> Any:
        return obj


class BatchConsumer(Consumer):
    """Faust's consumer, committing exactly what the state has stored."""

    @property
    def authority(self) -> OffsetAuthority:
        """The owner of the state, hung on the app by `stream/kafka/faust_app.py`."""
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

    def last_answer(self, tp: TP) -> BrokerAnswer | None:
        """What the broker last said of a topic partition; None when it is not ours."""
        return cast(BatchConsumerThread, self._thread).last_answer(tp)

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
        """Store what was read, then commit it: the last act before a rebalance or a stop.

        A stop does not wait for a store or broker that is away: what is not stored is read again.
        Before the consumer's thread has begun nothing was read.
        """
        if cast(Any, self._thread)._consumer is None:
            return
        if not self.app.should_stop:
            await self.authority.flush()
            await super().commit_and_end_transactions()
            return
        try:
            async with asyncio.timeout(LEAVE_S):
                await self.authority.flush()
                await super().commit_and_end_transactions()
        except TimeoutError:
            log.warning("left_unstored", reason=f"not all was stored within {LEAVE_S:.0f} s")


class UnusedProducer(Producer):
    """Faust's producer, which it starts whether or not anybody sends with it."""

    async def on_start(self) -> None:
        """Connect; a broker that is away is said in a line, and the worker ends."""
        with explained(self.app):
            await super().on_start()


class BatchTransport(Transport):
    """The transport an app uses to get batches: see `stream/kafka/faust_app.py`."""

    Consumer = BatchConsumer
    Producer = UnusedProducer
