"""Which partitions this worker owns: taking over, giving up, and claiming what it was denied.

The part of the pipeline that the consumer group drives. Offsets live in the store, so a partition
is taken over by acquiring it there, loading its state and telling the transport where to go on; the
broker is asked first whether it is the one the stored offsets belong to
(`stream/kafka/broker_identity.py`). What becomes of the batches of an owned partition is said in
`stream/ingest/pipeline.py`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog
from faust.types import TP

from stream.errors import ServiceUnavailable
from stream.ingest.owned_partition import OwnedPartition
from stream.ingest.restore import restore, stored_closes
from stream.ingest.rollups import Rollups
from stream.kafka.broker_identity import BrokerOffsets, Identity, Mismatch, mismatches, refuse
from stream.partition.partition import Partition
from stream.partition.state import Closed
from stream.serving.output_loop import ClosedBuckets, OutputLoop
from stream.settings import Settings
from stream.state.keys import ROLLUPS
from stream.state.port import StateStore

log = structlog.get_logger(__name__)

RETRY_S = 0.5

#: Asks the broker who it is, and for the offsets of topic partitions.
Ask = Callable[[set[TP]], Awaitable[BrokerOffsets]]


async def unknown_broker(assigned: set[TP]) -> BrokerOffsets:
    """The answer of a broker that is not asked."""
    return BrokerOffsets()


class Assignment:
    """The partitions of one worker, as the consumer group assigns them.

    `ask` is how the broker is asked whose offsets it has; with `adopt`, offsets that do not fit it
    are given up instead of refused. `rejoin` makes the consumer group assign once more.
    """

    def __init__(
        self,
        settings: Settings,
        store: StateStore,
        output: OutputLoop,
        *,
        ask: Ask = unknown_broker,
        adopt: bool = False,
        rejoin: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self.output = output
        self._ask = ask
        self._adopt = adopt
        self._rejoin = rejoin
        self._patience_s = settings.kafka.session_timeout / 1000
        self._assigned: frozenset[int] = frozenset()
        self._resumes = 0
        self._resuming = 0
        self._disowned_since_s: float | None = None
        self._flushing = asyncio.Lock()
        self.owned: dict[int, OwnedPartition] = {}
        self.rollups = Rollups(
            store,
            settings.kafka.partitions,
            bucket_ms=settings.window.bucket,
            retention_ms=settings.state.retention,
        )

    async def resume_offsets(self, assigned: set[TP], generation: int) -> Mapping[TP, int]:
        """Take over the assigned partitions; where reading goes on. Waits for store and broker.

        Raises IncompatibleState when the stored offsets do not fit the broker.
        """
        self._resumes += 1
        this = self._resumes
        self._resuming += 1
        try:
            while this == self._resumes:
                try:
                    return await self._resume(assigned, generation)
                except ServiceUnavailable as error:
                    log.warning("takeover_waits", reason=str(error))
                await asyncio.sleep(RETRY_S)
        finally:
            self._resuming -= 1
        return {}  # there is a newer assignment

    async def _resume(self, assigned: set[TP], generation: int) -> Mapping[TP, int]:
        numbers = {tp.partition for tp in assigned}
        async with self._flushing:
            self._assigned = frozenset(numbers)
            self._disowned_since_s = None
            for number in set(self.owned) - numbers:
                self._release(number)
            places = await self._ask(assigned)
            adopted = [
                mismatch
                for number in sorted(numbers)
                for mismatch in mismatches(number, await self._store.meta(number), places)
            ]
            if not self._adopt:
                refuse(adopted)
            for number in sorted(numbers):
                topics = {tp.topic for tp in assigned if tp.partition == number}
                mine = [mismatch for mismatch in adopted if mismatch.tp.partition == number]
                await self._acquire(number, topics, places, mine)
            self._taken_over()
        log.info("partitions_assigned", partitions=sorted(numbers), generation=generation)
        return {
            tp: self.owned[tp.partition].partition.positions[tp.topic]
            for tp in assigned
            if tp.topic in self.owned[tp.partition].partition.positions
        }

    def require_same(self, identity: Identity) -> None:
        """Raise IncompatibleState when the broker is not the one the owned partitions are of."""
        for number, owned in self.owned.items():
            offsets = {f"offset:{topic}": str(at) for topic, at in owned.stored.items()}
            refuse(mismatches(number, offsets | owned.partition.identity, BrokerOffsets(identity)))

    def flushed_offset(self, tp: TP) -> int | None:
        """Next offset after all that is safely stored, or None."""
        owned = self.owned.get(tp.partition)
        return None if owned is None else owned.stored.get(tp.topic)

    async def _acquire(
        self, number: int, topics: set[str], places: BrokerOffsets, adopted: list[Mismatch]
    ) -> None:
        owned = self.owned.get(number)
        if owned is not None:
            fence = (await self._store.meta(number)).get("fence")
            if fence == str(owned.token) and not adopted:
                if number == 0 and not self.rollups.held:
                    self._hand_on_rollups(await self.rollups.acquire())
                return
            self._release(number)
        token = await self._store.acquire(number)
        partition = await restore(
            self._store,
            number,
            self._settings.window,
            retention_ms=self._settings.state.retention,
        )
        for mismatch in adopted:
            partition.positions[mismatch.tp.topic] = 0
            log.warning("offset_given_up", topic=mismatch.tp.topic, reason=mismatch.reason)
        for topic in topics:
            earliest = places.earliest.get(TP(topic, number))
            if earliest is not None:
                partition.positions[topic] = max(partition.positions.get(topic, 0), earliest)
        partition.identity = places.identity.of(topics)
        partition.changed = True
        if number == 0:
            self._hand_on_rollups(await self.rollups.acquire())
        owned = OwnedPartition(partition, token, dict(partition.positions))
        closed = await self._unpublished(partition)
        self.owned[number] = owned
        if partition.closed_through_ms is not None:
            self._hand_on(owned, closed)

    def _release(self, number: int) -> None:
        del self.owned[number]
        self.output.forget(number)
        if number == 0:
            self.rollups.release()
            self.output.forget(ROLLUPS)

    async def _unpublished(self, partition: Partition) -> list[Closed]:
        """The closes that are stored but perhaps were not sent."""
        through, emitted = partition.closed_through_ms, partition.emitted_through_ms
        if through is None:
            return []
        width = self._settings.window.bucket
        starts = range(through if emitted is None else emitted, through, width)
        return await stored_closes(self._store, partition.number, len(partition.series), starts)

    def _taken_over(self) -> None:
        """Called when the owned partitions have changed."""

    def claim_again(self) -> None:
        """Let the group assign again when it has long given us what the store denies us.

        A write is refused when another worker has acquired the partition. Where that worker is no
        member of the group any more, or the store has lost its memory, nobody else will go on.
        """
        whole = self._assigned <= self.owned.keys() and (
            0 not in self._assigned or self.rollups.held
        )
        now_s = time.monotonic()
        if whole or self._resuming:
            self._disowned_since_s = None
        elif self._disowned_since_s is None:
            self._disowned_since_s = now_s
        elif now_s - self._disowned_since_s >= self._patience_s:
            self._disowned_since_s = now_s
            log.warning("partitions_claimed_again", partitions=sorted(self._assigned))
            self._rejoin()

    def _hand_on(self, owned: OwnedPartition, closed: list[Closed]) -> None:
        partition = owned.partition

        def emitted(through_ms: int) -> None:
            partition.emitted_through_ms = max(partition.emitted_through_ms or 0, through_ms)
            partition.changed = True

        through = partition.closed_through_ms or 0
        self.output.put(
            ClosedBuckets(partition.number, partition.series.ids, closed, through, emitted)
        )

    def _hand_on_rollups(self, closed: list[Closed]) -> None:
        rollups = self.rollups
        through = rollups.closed_through_ms
        if through is not None:
            self.output.put(
                ClosedBuckets(ROLLUPS, rollups.series, closed, through, rollups.emitted)
            )
