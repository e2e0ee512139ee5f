"""Faust's Kafka transport, passing agents whole fetched batches instead of single messages.

In Python the main cost of a stream processor is the object built for each message, so the consumer
thread gives Faust *one* message per fetch and partition, whose value is a `RecordBatch`. The owner
of the state (`OffsetAuthority`) decides which offsets are committed and where reading resumes,
because offsets are stored together with the values computed from them. Values are not decoded here.
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
from stream.kafka.reading.consumer_thread import (
    BatchConsumerThread,
    BrokerAnswer,
    OffsetAuthority,
    unreachable_broker_is_fatal,
)
from stream.kafka.reading.record_batch import RecordBatch

log = structlog.get_logger(__name__)

#: Longest wait of a stopping worker for its last flush and commit.
LEAVE_S: Final = 5.0


class AsFetched(Codec):
    """Faust codec of our topics: passes the value through unchanged."""

    def _loads(self, s: Any) -> Any:
        return s

    def _dumps(self, obj: Any) -> Any:
        return obj


class BatchConsumer(Consumer):
    """Faust's consumer, which commits exactly the stored offsets."""

    @property
    def authority(self) -> OffsetAuthority:
        """The owner of the state, an attribute of the app."""
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
            cast(Any, record),  # the whole batch; the codec passes it through
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the offsets stored with the state; else to the committed ones."""
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
        """As Faust's, but keeps the committed offsets that the broker returned."""
        await super().perform_seek()
        self._committed_offset.clear()
        self._committed_offset.update(self._committed_in_kafka)

    async def _commit_offsets(
        self, offsets: Mapping[TP, int], start_new_transaction: bool = True
    ) -> bool:
        before = {tp: self._committed_offset[tp] for tp in offsets}
        done = await super()._commit_offsets(offsets, start_new_transaction)
        if not done:
            self._committed_offset.update(before)  # Faust sets it even after a failure
        return done

    async def offset_range(self, tps: set[TP]) -> tuple[dict[TP, int], dict[TP, int]]:
        """Return earliest and end offsets of topic partitions. Raises ServiceUnavailable."""
        try:
            earliest = await self._thread.earliest_offsets(*tps)
            end = await self._thread.highwaters(*tps)
        except KafkaError as error:
            raise ServiceUnavailable(f"the broker returned no offsets: {error!r}") from error
        return (
            {TP(tp.topic, tp.partition): offset for tp, offset in earliest.items()},
            {TP(tp.topic, tp.partition): offset for tp, offset in end.items()},
        )

    def last_answer(self, tp: TP) -> BrokerAnswer | None:
        """Return the broker's last answer for a topic partition; None if it is not assigned."""
        return cast(BatchConsumerThread, self._thread).last_answer(tp)

    async def group_error(self) -> KafkaError | None:
        """Return the error that put this consumer out of its group; None if there is none."""
        return await cast(BatchConsumerThread, self._thread).group_error()

    def rejoin(self) -> None:
        """Make the group assign its partitions again."""
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
        """Do nothing: the stored offset is already past the gap."""

    async def wait_empty(self) -> None:
        """Wait for the batches under way before a rebalance; when stopping, flush and commit only.

        During a catch-up they wait for room in the output; a stop would wait with them. What is not
        counted is read again.
        """
        if self.app.should_stop:
            await self.commit_and_end_transactions()
        else:
            await super().wait_empty()

    async def commit_and_end_transactions(self) -> None:
        """Flush, then commit, before a rebalance or a stop.

        A stop waits at most `LEAVE_S` for store and broker: records not stored are read again.
        """
        if cast(Any, self._thread)._consumer is None:  # not started: nothing was read
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
            log.warning("left_unstored", reason=f"flush and commit took more than {LEAVE_S:.0f} s")


class UnusedProducer(Producer):
    """Faust's producer: Faust always starts one, the product never uses it."""

    async def on_start(self) -> None:
        """Connect; an unreachable broker ends the worker with a one-line error."""
        with unreachable_broker_is_fatal(self.app):
            await super().on_start()


class BatchTransport(Transport):
    """Transport of a `SurgecastApp`."""

    Consumer = BatchConsumer
    Producer = UnusedProducer
