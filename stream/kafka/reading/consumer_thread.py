"""Faust's consumer thread: fetches whole broker batches and commits stored offsets."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import aiokafka
import structlog
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import ConsumerStoppedError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP

from stream.errors import ServiceUnavailable
from stream.kafka.reading.record_batch import RecordBatch, yield_whole_batches

log = structlog.get_logger(__name__)


class OffsetAuthority(Protocol):
    """Decides which offsets are committed: those of the stored state, not Faust's acks."""

    async def resume_offsets(self, assigned: set[TP], generation: int) -> Mapping[TP, int]:
        """Take over partitions; return where to resume. Others resume at the committed offset."""

    def flushed_offset(self, tp: TP) -> int | None:
        """Return the offset after the last stored record, or None."""

    async def flush(self) -> None:
        """Store all records read so far."""

    @property
    def held(self) -> frozenset[TP]:
        """Topic partitions that must not be fetched for now."""


@dataclass(frozen=True, slots=True)
class BrokerAnswer:
    """The broker's last answer for a topic partition: its end offset and the wall-clock time."""

    end: int | None = None
    at_ms: int | None = None


@contextmanager
def unreachable_broker_is_fatal(app: Any) -> Iterator[None]:
    """Turn a failed connection into the app's fatal error. Raises ServiceUnavailable."""
    try:
        yield
    except KafkaError as error:
        fault = ServiceUnavailable(f"the broker did not answer: {error}")
        app.set_fatal(fault)
        raise fault from error


class BatchConsumerThread(AIOKafkaConsumerThread):
    """Faust's consumer thread with whole-batch fetches and co-partitioned assignment."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Range assignment gives one worker the same partition number of every topic, which
        # orders, clicks and catalog of a SKU need.
        consumer._partition_assignment_strategy = (RangePartitionAssignor,)
        consumer._fetch_max_wait_ms = 100
        # Faust has no setting for it: aborted transactions must not be counted.
        consumer._isolation_level = "read_committed"
        return consumer

    async def on_start(self) -> None:
        """Connect; an unreachable broker ends the worker with a one-line error."""
        with unreachable_broker_is_fatal(self.app):
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
            if not active_partitions:  # aiokafka reads an empty set as "all"
                await asyncio.sleep(min(0.05, timeout or 0.0))
                return {}
            deadline = min(deadline, time.monotonic() + 0.05)  # a held one may be released by then
        with fetcher._subscriptions.fetch_context():
            while True:
                for tp, result in fetcher._records.items():
                    if isinstance(result, FetchResult):
                        yield_whole_batches(tp, result)
                drained = await fetcher.fetched_records(active_partitions, timeout=0)
                remaining = deadline - time.monotonic()
                if drained or remaining <= 0:
                    return {cast(TP, tp): fetches for tp, fetches in drained.items() if fetches}
                if not await _another_fetch(fetcher, remaining) or not self.consumer.flow_active:
                    return {}

    @property
    def authority(self) -> OffsetAuthority:
        """The owner of the state, an attribute of the app."""
        return cast(OffsetAuthority, cast(Any, self.app).offset_authority)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit stored offsets; a failed commit is made up by the next one.

        Reading resumes at the store's offsets, not at Kafka's.
        """
        commits = {
            TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in self.assignment()
        }
        if not commits:
            return False
        try:
            await self._ensure_consumer().commit(commits)
        except KafkaError as error:
            log.warning("commit_waits", reason=repr(error))
            return False
        self.tp_last_committed_at.update(dict.fromkeys(offsets, time.monotonic()))
        return True

    def last_answer(self, tp: TP) -> BrokerAnswer | None:
        """Return the broker's last answer for a topic partition; None if it is not assigned.

        Safe from other threads: it reads one assignment object, even during a rebalance.
        """
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None:
            return BrokerAnswer()
        state = assignment.state_value(tp)
        return None if state is None else BrokerAnswer(state.highwater, state.timestamp)

    async def group_error(self) -> KafkaError | None:
        """Return the error that put this consumer out of its group; None if there is none.

        aiokafka joins again only after somebody has asked for the error, so ask regularly.
        """
        error: KafkaError | None = await self.call_thread(self._group_error)
        return error

    async def _group_error(self) -> KafkaError | None:
        consumer = self._ensure_consumer()
        if consumer._closed:
            return None
        try:
            consumer._coordinator.check_errors()
        except KafkaError as error:
            return error
        return None

    def rejoin(self) -> None:
        """Make the group assign its partitions again; safe from other threads."""
        coordinator = self._ensure_consumer()._coordinator
        self.thread_loop.call_soon_threadsafe(coordinator.request_rejoin)


async def _another_fetch(fetcher: Any, seconds: float) -> bool:
    """Wait for the broker's next answer. True if it came within `seconds`."""
    waiter = fetcher._create_fetch_waiter()
    done, pending = await asyncio.wait([waiter], timeout=seconds)
    for late in pending:
        late.cancel()
    for answer in done:
        answer.result()  # raises the fetch's error
    return bool(done)
