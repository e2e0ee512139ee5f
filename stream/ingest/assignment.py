"""The partitions a worker owns: acquired in the store, released, and claimed again when lost.

Offsets live in the store, not in Kafka. A new owner acquires the partition there, which fences out
the old one, restores its state, and resumes reading at the stored offsets. The broker is checked
first: offsets of another cluster or of a recreated topic are refused.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog
from faust.types import TP

from stream.errors import ServiceUnavailable
from stream.ingest.handoff import pass_on, pass_on_rollups
from stream.ingest.owned_partition import OwnedPartition
from stream.ingest.restore import restore, stored_closes
from stream.ingest.rollups import Rollups
from stream.kafka.broker_identity import BrokerOffsets, Identity, Mismatch, mismatches, refuse
from stream.partition.closed import Closed, ClosedBucketSink
from stream.partition.state import PartitionState
from stream.settings import Settings
from stream.state.keys import ROLLUPS
from stream.state.port import StateStore

log = structlog.get_logger(__name__)

RETRY_S = 0.5

#: Returns the broker's identity, and the offsets it has of topic partitions.
ReadBroker = Callable[[set[TP]], Awaitable[BrokerOffsets]]


async def unknown_broker(assigned: set[TP]) -> BrokerOffsets:
    """Offsets of a broker whose identity is not checked."""
    return BrokerOffsets()


class PartitionOwner:
    """Partitions of one worker, as the consumer group assigns them.

    `read_broker` returns the broker's identity and offsets. With `adopt`, stored offsets that do
    not fit the broker are given up instead of refused. `rejoin` asks the group to assign again.
    `lock` is held while partitions change hands and while they are flushed.
    """

    def __init__(
        self,
        settings: Settings,
        store: StateStore,
        output: ClosedBucketSink,
        *,
        read_broker: ReadBroker = unknown_broker,
        adopt: bool = False,
        rejoin: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._output = output
        self._read_broker = read_broker
        self._adopt = adopt
        self._rejoin = rejoin
        self._patience_s = settings.kafka.session_timeout / 1000
        self._assigned: frozenset[int] = frozenset()
        self._newest_resume = 0
        self._resuming = 0
        self._incomplete_since_s: float | None = None
        self.lock = asyncio.Lock()
        self.owned: dict[int, OwnedPartition] = {}
        self.rollups = Rollups(
            store,
            settings.kafka.partitions,
            bucket_ms=settings.window.bucket,
            retention_ms=settings.state.retention,
        )

    async def resume_offsets(self, assigned: set[TP], generation: int) -> Mapping[TP, int]:
        """Acquire the assigned partitions and release all others; returns where reading resumes.

        Waits for store and broker. A newer call supersedes this one, which then returns nothing.
        Raises IncompatibleState when the stored offsets do not fit the broker.
        """
        self._newest_resume += 1
        this = self._newest_resume
        self._resuming += 1
        try:
            while this == self._newest_resume:
                try:
                    return await self._resume(assigned, generation)
                except ServiceUnavailable as error:
                    log.warning("takeover_waits", reason=str(error))
                await asyncio.sleep(RETRY_S)
        finally:
            self._resuming -= 1
        return {}

    def require_same(self, identity: Identity) -> None:
        """Raise IncompatibleState if the owned partitions belong to another broker or topic."""
        for number, owned in self.owned.items():
            offsets = {f"offset:{topic}": str(at) for topic, at in owned.stored.items()}
            stored = offsets | owned.partition.state.identity
            refuse(mismatches(number, stored, BrokerOffsets(identity)))

    def flushed_offset(self, tp: TP) -> int | None:
        """Next offset after the stored records of a topic partition; None if it is not owned."""
        owned = self.owned.get(tp.partition)
        return None if owned is None else owned.stored.get(tp.topic)

    def release(self, number: int) -> None:
        """Give a partition up; nothing more of it is counted, stored or forecast here."""
        del self.owned[number]
        self._output.forget(number)
        if number == 0:
            self.rollups.release()
            self._output.forget(ROLLUPS)

    def claim_again(self) -> None:
        """Rejoin the group if the store has long denied a partition that the group assigns here.

        The store refuses a write once another worker has acquired the partition. If that worker
        has left the group, or the store has lost its data, no other worker would continue.
        """
        complete = self._assigned <= self.owned.keys() and (
            0 not in self._assigned or self.rollups.held
        )
        now_s = time.monotonic()
        if complete or self._resuming:
            self._incomplete_since_s = None
        elif self._incomplete_since_s is None:
            self._incomplete_since_s = now_s
        elif now_s - self._incomplete_since_s >= self._patience_s:
            self._incomplete_since_s = now_s
            log.warning("partitions_claimed_again", partitions=sorted(self._assigned))
            self._rejoin()

    async def _resume(self, assigned: set[TP], generation: int) -> Mapping[TP, int]:
        numbers = {tp.partition for tp in assigned}
        async with self.lock:
            self._assigned = frozenset(numbers)
            self._incomplete_since_s = None
            for number in set(self.owned) - numbers:
                self.release(number)
            broker = await self._read_broker(assigned)
            adopted = [
                mismatch
                for number in sorted(numbers)
                for mismatch in mismatches(number, await self._store.meta(number), broker)
            ]
            if not self._adopt:
                refuse(adopted)
            for number in sorted(numbers):
                topics = {tp.topic for tp in assigned if tp.partition == number}
                mine = [mismatch for mismatch in adopted if mismatch.tp.partition == number]
                await self._acquire(number, topics, broker, mine)
        log.info("partitions_assigned", partitions=sorted(numbers), generation=generation)
        positions = {number: self.owned[number].partition.state.positions for number in numbers}
        return {
            tp: positions[tp.partition][tp.topic]
            for tp in assigned
            if tp.topic in positions[tp.partition]
        }

    async def _acquire(
        self, number: int, topics: set[str], broker: BrokerOffsets, adopted: list[Mismatch]
    ) -> None:
        owned = self.owned.get(number)
        if owned is not None:
            fence = (await self._store.meta(number)).get("fence")
            if fence == str(owned.token) and not adopted:
                if number == 0 and not self.rollups.held:
                    await self._acquire_rollups()
                return
            self.release(number)
        token = await self._store.acquire(number)
        partition = await restore(
            self._store,
            number,
            self._settings.window,
            retention_ms=self._settings.state.retention,
        )
        state = partition.state
        for mismatch in adopted:
            state.positions[mismatch.tp.topic] = 0
            log.warning("offset_given_up", topic=mismatch.tp.topic, reason=mismatch.reason)
        for topic in topics:
            earliest = broker.earliest.get(TP(topic, number))
            if earliest is not None:
                state.positions[topic] = max(state.positions.get(topic, 0), earliest)
        state.identity = broker.identity.of(topics)
        state.changed = True
        if number == 0:
            await self._acquire_rollups()
        owned = OwnedPartition(partition, token, dict(state.positions))
        unpublished = await self._unpublished(state)
        self.owned[number] = owned
        if state.closed_through_ms is not None:
            pass_on(self._output, owned, unpublished)

    async def _acquire_rollups(self) -> None:
        pass_on_rollups(self._output, self.rollups, await self.rollups.acquire())

    async def _unpublished(self, state: PartitionState) -> list[Closed]:
        """Closed buckets that are stored but may not have been published."""
        through, emitted = state.closed_through_ms, state.emitted_through_ms
        if through is None:
            return []
        width = self._settings.window.bucket
        starts = range(through if emitted is None else emitted, through, width)
        return await stored_closes(self._store, state.number, len(state.series), starts)
