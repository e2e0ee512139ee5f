"""Flushes owned partitions to the store, then passes their closed buckets on.

Refused records go to the dead-letter topic before the offsets behind them are stored. The input
waits while the store does not answer, or while too many records are counted but not stored.
"""

import asyncio

import structlog

from stream.errors import FencedOut, ServiceUnavailable
from stream.ingest.assignment import RETRY_S, PartitionOwner
from stream.ingest.handoff import pass_on, pass_on_rollups
from stream.ingest.owned_partition import PendingWrite
from stream.kafka.record_sink import RecordSink
from stream.partition.closed import ClosedBucketSink
from stream.state.port import StateStore
from stream.topics import DEAD_LETTER, HEARTBEATS

log = structlog.get_logger(__name__)

#: The input waits while more records than this are counted but not stored.
MAX_UNSTORED = 400_000


class Flusher:
    """Stores the partitions of `owner`, and holds the input back while it cannot."""

    def __init__(
        self,
        owner: PartitionOwner,
        store: StateStore,
        sink: RecordSink,
        output: ClosedBucketSink,
    ) -> None:
        self._owner = owner
        self._store = store
        self._sink = sink
        self._output = output
        self._unstored = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._store_answers = asyncio.Event()
        self._store_answers.set()

    async def wait_for_room(self) -> None:
        """Wait until store and output accept more."""
        await self._store_answers.wait()
        await self._has_room.wait()
        await self._output.wait_for_room()

    def note_unstored(self, records: int) -> None:
        """Add records that are counted, but not stored."""
        self._unstored += records
        if self._unstored > MAX_UNSTORED:
            self._has_room.clear()

    async def flush(self) -> None:
        """Store all records counted so far; returns once the store has them."""
        while True:
            async with self._owner.lock:
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
        """Flush all partitions at once; raises the first error when all have ended."""
        results = await asyncio.gather(
            *(self._flush_one(number) for number in sorted(self._owner.owned)),
            return_exceptions=True,
        )
        for error in results:
            if error is not None:
                raise error

    async def _flush_one(self, number: int) -> None:
        owned = self._owner.owned[number]
        if owned.pending is None:
            write, closed = owned.partition.state.take_write()
            if not write:
                return
            safe = owned.safe_positions
            if owned.heartbeats:
                write.meta[f"offset:{HEARTBEATS.name}"] = str(safe[HEARTBEATS.name])
            owned.pending = PendingWrite(write, closed, safe)
        if owned.letters:
            letters, owned.letters = owned.letters, []
            try:
                await self._sink.send(DEAD_LETTER.name, letters)
            except ServiceUnavailable:
                owned.letters = letters + owned.letters
                raise
        pending = owned.pending
        try:
            await self._store.apply(number, owned.token, pending.write)
        except FencedOut as error:
            log.warning("partition_lost", partition=number, reason=str(error))
            self._owner.release(number)
            return
        owned.pending = None
        owned.stored |= pending.positions
        if pending.closed:
            pass_on(self._output, owned, pending.closed)

    async def _close_rollups(self) -> None:
        if 0 not in self._owner.owned:
            return
        rollups = self._owner.rollups
        try:
            closed = await rollups.close()
        except FencedOut as error:
            log.warning("rollups_lost", reason=str(error))
            rollups.release()
            return
        if closed:
            pass_on_rollups(self._output, rollups, closed)
