"""How what the owned partitions have counted reaches the store, and what has closed the output.

Stands on `stream/ingest/assignment.py`, under `stream/ingest/pipeline.py`. What is refused is sent
to the dead letters before the offsets behind it are stored. While the store does not answer, or too
much is not stored, the input waits.
"""

import asyncio
from collections.abc import Callable

import structlog

from stream.errors import FencedOut, ServiceUnavailable
from stream.ingest.assignment import RETRY_S, Ask, Assignment, unknown_broker
from stream.ingest.owned_partition import PendingWrite
from stream.kafka.producer import BatchProducer
from stream.serving.output_loop import OutputLoop
from stream.settings import Settings
from stream.state.port import StateStore
from stream.topics import DEAD_LETTER, HEARTBEATS

log = structlog.get_logger(__name__)

#: Events counted but not stored beyond which the input waits.
MAX_UNSTORED = 400_000


class Flushing(Assignment):
    """The partitions of one worker, and the way of their state to the store."""

    def __init__(
        self,
        settings: Settings,
        store: StateStore,
        sink: BatchProducer,
        output: OutputLoop,
        *,
        ask: Ask = unknown_broker,
        adopt: bool = False,
        rejoin: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(settings, store, output, ask=ask, adopt=adopt, rejoin=rejoin)
        self._sink = sink
        self._unstored = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._store_answers = asyncio.Event()
        self._store_answers.set()

    async def _ready(self) -> None:
        """Wait until store and output take more."""
        await self._store_answers.wait()
        await self._has_room.wait()
        await self.output.wait_for_room()

    def _note_unstored(self, records: int) -> None:
        self._unstored += records
        if self._unstored > MAX_UNSTORED:
            self._has_room.clear()

    async def flush(self) -> None:
        """Store everything that was read so far; waits until the store has it."""
        while True:
            async with self._flushing:
                unstored = self._unstored
                try:
                    await self._flush_all()
                    await self._close_rollups()
                except ServiceUnavailable as error:
                    self._store_answers.clear()
                    log.warning("flush_waits", reason=str(error))
                else:
                    self._store_answers.set()
                    self._unstored -= unstored
                    if self._unstored <= MAX_UNSTORED:
                        self._has_room.set()
                    return
            await asyncio.sleep(RETRY_S)

    async def _flush_all(self) -> None:
        """Flush all partitions at once; raises what one of them raised when all are through."""
        done = await asyncio.gather(
            *(self._flush_one(number) for number in sorted(self.owned)), return_exceptions=True
        )
        for fault in done:
            if fault is not None:
                raise fault

    async def _flush_one(self, number: int) -> None:
        owned = self.owned[number]
        if owned.pending is None:
            plan, closed = owned.partition.take_write()
            if not plan:
                return
            safe = owned.safe_positions
            if owned.heartbeats:
                plan.meta[f"offset:{HEARTBEATS.name}"] = str(safe[HEARTBEATS.name])
            owned.pending = PendingWrite(plan, closed, safe)
        if owned.letters:
            letters, owned.letters = owned.letters, []
            try:
                await self._sink.send(DEAD_LETTER.name, letters)
            except ServiceUnavailable:
                owned.letters = letters + owned.letters
                raise
        pending = owned.pending
        try:
            await self._store.apply(number, owned.token, pending.plan)
        except FencedOut as error:
            log.warning("partition_lost", partition=number, reason=str(error))
            self._release(number)
            return
        owned.pending = None
        owned.stored |= pending.positions
        if pending.closed:
            self._hand_on(owned, pending.closed)

    async def _close_rollups(self) -> None:
        if 0 not in self.owned:
            return
        try:
            closed = await self.rollups.close()
        except FencedOut as error:
            log.warning("rollups_lost", reason=str(error))
            self.rollups.release()
            return
        if closed:
            self._hand_on_rollups(closed)
