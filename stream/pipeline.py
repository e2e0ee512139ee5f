"""The worker's ingest: which partitions it owns, when state is flushed, when buckets close.

Between the agents and `stream/partition.py`: it hands batches to the partition that owns them,
applies heartbeats, advances watermarks, stores plans and passes what has closed on to
`stream/output.py`. It is also the authority on offsets: reading resumes where the store says, and
Kafka is told only what is stored.

Never blocks the event loop; holds the input back when the store or the output is slow.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import structlog
from faust.types import TP

from stream.codecs import ClickDecoder, OrderDecoder, Refused, decode_heartbeat
from stream.errors import FencedOut, ServiceUnavailable, UnreadableEvent
from stream.events import CatalogEntry
from stream.formats import open_format, unreadable
from stream.output import ClosedBuckets, Output
from stream.ownership import Lag, Owned, Pending
from stream.partition import INPUTS, Closed, Judged, Partition
from stream.privacy import Pseudonyms
from stream.rollups import Rollups
from stream.settings import Settings
from stream.sinks.kafka import KafkaSink
from stream.sinks.records import dead_letter
from stream.state.keys import ROLLUPS
from stream.state.port import StateStore
from stream.state.restore import restore, stored_closes
from stream.telemetry import EVENTS
from stream.topics import CATALOG, CLICKS, DEAD_LETTER, HEARTBEATS, ORDERS
from stream.transport import RecordBatch

log = structlog.get_logger(__name__)

RETRY_S = 0.5


class Pipeline:
    """Ingest of one worker. `lag` tells how many records of a topic partition are not counted."""

    def __init__(
        self,
        settings: Settings,
        store: StateStore,
        sink: KafkaSink,
        output: Output,
        people: Pseudonyms,
        *,
        clock_ms: Callable[[], int],
        lag: Lag,
    ) -> None:
        self._settings = settings
        self._store = store
        self._sink = sink
        self.output = output
        self._people = people
        self._clock_ms = clock_ms
        self._lag = lag
        self.owned: dict[int, Owned] = {}
        self._flushing = asyncio.Lock()
        self._store_answers = asyncio.Event()
        self._store_answers.set()
        ingest = settings.ingest
        self._format = open_format(ingest)
        self._decode_catalog = self._format.decoder(CatalogEntry)
        limits: dict[str, Any] = {
            "source": self._format,
            "locations": ingest.locations,
            "max_value_bytes": ingest.max_value_bytes,
        }
        self._orders = OrderDecoder(**limits)
        self._clicks = ClickDecoder(**limits)
        self.rollups = Rollups(
            store,
            settings.kafka.partitions,
            bucket_ms=settings.window.bucket,
            retention_ms=settings.state.retention,
        )
        self.events_in = 0

    # -- ownership and offsets -------------------------------------------------------------------

    async def resume_offsets(self, assigned: set[TP], generation: int) -> Mapping[TP, int]:
        """Take over the assigned partitions; where reading goes on."""
        numbers = {tp.partition for tp in assigned}
        async with self._flushing:
            for number in set(self.owned) - numbers:
                self._release(number)
            for number in sorted(numbers):
                await self._take_over(number)
        log.info("partitions_assigned", partitions=sorted(numbers), generation=generation)
        return {
            tp: self.owned[tp.partition].partition.positions[tp.topic]
            for tp in assigned
            if tp.topic in self.owned[tp.partition].partition.positions
        }

    def flushed_offset(self, tp: TP) -> int | None:
        """Next offset after all that is safely stored, or None."""
        owned = self.owned.get(tp.partition)
        return None if owned is None else owned.stored.get(tp.topic)

    async def _take_over(self, number: int) -> None:
        owned = self.owned.get(number)
        if owned is not None:
            if (await self._store.meta(number)).get("fence") == str(owned.token):
                owned.heartbeats.clear()  # they are read again
                return
            self._release(number)
        token = await self._store.acquire(number)
        partition = await restore(
            self._store,
            number,
            self._settings.window,
            retention_ms=self._settings.state.retention,
        )
        owned = self.owned[number] = Owned(partition, token, dict(partition.positions))
        if number == 0:
            self._hand_on_rollups(await self.rollups.acquire())
        await self._emit_again(owned)

    def _release(self, number: int) -> None:
        del self.owned[number]
        self.output.forget(number)
        if number == 0:
            self.rollups.release()
            self.output.forget(ROLLUPS)

    async def _emit_again(self, owned: Owned) -> None:
        """Serve the partition from the store, and publish the closes that were perhaps not sent."""
        partition = owned.partition
        through, emitted = partition.closed_through_ms, partition.emitted_through_ms
        if through is None:
            return
        width = self._settings.window.bucket
        starts = range(through if emitted is None else emitted, through, width)
        closed = await stored_closes(self._store, partition.number, len(partition.series), starts)
        self._hand_on(owned, closed)

    # -- batches ---------------------------------------------------------------------------------

    async def on_orders(self, batch: RecordBatch) -> None:
        """Count a batch of order lines."""

        def count(partition: Partition, fresh: RecordBatch) -> Judged:
            return partition.count_orders(self._orders.columns(fresh, latest_ms=self._latest_ms()))

        await self._on_events(batch, count)

    async def on_clicks(self, batch: RecordBatch) -> None:
        """Count a batch of clicks."""

        def count(partition: Partition, fresh: RecordBatch) -> Judged:
            columns = self._clicks.columns(fresh, latest_ms=self._latest_ms())
            return partition.count_clicks(columns, self._people)

        await self._on_events(batch, count)

    async def on_catalog(self, batch: RecordBatch) -> None:
        """Take categories of SKUs; a tombstone leaves the last known one."""
        await self._format.prepare(batch.records)
        await self._ready()
        mine = self._mine(batch)
        if mine is None:
            return
        owned, fresh = mine
        for position, value in enumerate(fresh.values):
            if value is None:
                continue
            try:
                entry = self._decode_catalog(value)
            except (msgspec.MsgspecError, UnicodeDecodeError, UnreadableEvent) as error:
                fault = unreadable(error)
                self._refuse(owned, fresh, [Refused(position, fault.reason, fault.detail)])
                continue
            if entry.category:
                owned.partition.categorise(entry.sku, entry.category)
        owned.partition.moved_to(CATALOG.name, fresh.next_offset)

    async def on_heartbeats(self, batch: RecordBatch) -> None:
        """Note promises about event time; they take effect when their offsets have been read."""
        await self._ready()
        mine = self._mine(batch)
        if mine is None:
            return
        owned, fresh = mine
        for position, value in enumerate(fresh.values):
            try:
                owned.heartbeats.append(decode_heartbeat(value or b""))
            except msgspec.MsgspecError as error:
                self._refuse(owned, fresh, [Refused(position, "malformed_json", str(error))])
        owned.advance(self._idle(owned), cause_ms=fresh.newest_timestamp_ms)
        owned.partition.moved_to(HEARTBEATS.name, fresh.next_offset)

    async def _on_events(
        self, batch: RecordBatch, count: Callable[[Partition, RecordBatch], Judged]
    ) -> None:
        await self._format.prepare(batch.records)
        await self._ready()
        mine = self._mine(batch)
        if mine is None:
            return
        owned, fresh = mine
        judged = count(owned.partition, fresh)
        self._refuse(owned, fresh, judged.refused)
        EVENTS.labels(fresh.topic, "counted").inc(judged.counted)
        EVENTS.labels(fresh.topic, "duplicate").inc(judged.duplicates)
        self.events_in += len(fresh)
        owned.partition.moved_to(fresh.topic, fresh.next_offset)
        owned.progress_s[fresh.topic] = time.monotonic()
        owned.advance(self._idle(owned), cause_ms=fresh.newest_timestamp_ms)

    async def _ready(self) -> None:
        await self._store_answers.wait()
        await self.output.wait_for_room()

    def _mine(self, batch: RecordBatch) -> tuple[Owned, RecordBatch] | None:
        """The owner of a batch and its records not counted yet; None when nothing is to be done."""
        owned = self.owned.get(batch.partition)
        fresh = None if owned is None else owned.fresh(batch)
        return None if owned is None or fresh is None else (owned, fresh)

    def _refuse(self, owned: Owned, batch: RecordBatch, refused: list[Refused]) -> None:
        now = self._clock_ms()
        for one in refused:
            record = batch.records[one.position]
            letter = dead_letter(
                one, self._format.legible(record.value),
                topic=batch.topic, partition=batch.partition, offset=record.offset,
                received_ms=now, people=self._people,
            )  # fmt: skip
            owned.letters.append((f"{batch.topic}-{batch.partition}", letter))
            verdict = "late" if one.reason == "late" else "rejected"
            EVENTS.labels(batch.topic, verdict).inc()

    def _latest_ms(self) -> int:
        return self._clock_ms() + self._settings.window.future_tolerance

    # -- time ------------------------------------------------------------------------------------

    def _idle(self, owned: Owned) -> frozenset[str]:
        return owned.idle(self._lag, timeout_ms=self._settings.window.idle_timeout)

    def _tick(self) -> None:
        """Advance what only time can: idle inputs, and partitions that are silent altogether."""
        now_ms = self._clock_ms()
        marks: list[int] = []
        silent: list[Owned] = []
        for owned in self.owned.values():
            idle = self._idle(owned)
            owned.advance(idle, cause_ms=now_ms)
            if len(idle) == len(INPUTS):
                silent.append(owned)
            else:
                marks.append(owned.partition.closed_through_ms or 0)
        for owned in silent if marks else ():
            owned.partition.close_through(min(marks), cause_ms=now_ms)

    @property
    def watermark_ms(self) -> int | None:
        """Least watermark of the partitions owned."""
        marks = [owned.partition.watermark_ms(self._idle(owned)) for owned in self.owned.values()]
        known = [mark for mark in marks if mark is not None]
        return min(known) if known else None

    @property
    def closes_due(self) -> bool:
        """Whether a bucket has ended by the watermarks that is not closed, stored and handed on."""
        width = self._settings.window.bucket
        for owned in self.owned.values():
            partition = owned.partition
            mark = partition.watermark_ms(self._idle(owned))
            through_ms = partition.closed_through_ms
            first_ms = min(partition.open, default=None) if through_ms is None else through_ms
            ended = mark is not None and first_ms is not None and first_ms + width <= mark
            if ended or partition.closed_unsaved or owned.pending is not None:
                return True
        throughs = [owned.partition.closed_through_ms for owned in self.owned.values()]
        known = [through for through in throughs if through is not None]
        if 0 not in self.owned or len(known) < len(throughs):
            return False  # nobody's roll-ups, or a partition without a bucket yet
        return (self.rollups.closed_through_ms or 0) < min(known)

    # -- flush -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Flush until cancelled."""
        every_s = self._settings.state.flush_every / 1000
        while True:
            await asyncio.sleep(every_s)
            self._tick()
            await self.flush()

    async def flush(self) -> None:
        """Store everything that was read so far; waits until the store has it."""
        while True:
            async with self._flushing:
                try:
                    for number in sorted(self.owned):
                        await self._flush_one(number)
                    await self._close_rollups()
                except ServiceUnavailable as error:
                    self._store_answers.clear()
                    log.warning("flush_waits", reason=str(error))
                else:
                    self._store_answers.set()
                    return
            await asyncio.sleep(RETRY_S)

    async def _flush_one(self, number: int) -> None:
        owned = self.owned[number]
        if owned.pending is None:
            plan, closed = owned.partition.take_plan()
            if not plan:
                return
            owned.pending = Pending(plan, closed, dict(owned.partition.positions))
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

    def _hand_on(self, owned: Owned, closed: list[Closed]) -> None:
        partition = owned.partition

        def emitted(through_ms: int) -> None:
            partition.emitted_through_ms = max(partition.emitted_through_ms or 0, through_ms)
            partition.changed = True

        through = partition.closed_through_ms or 0
        self.output.put(
            ClosedBuckets(partition.number, partition.series.ids, closed, through, emitted)
        )

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

    def _hand_on_rollups(self, closed: list[Closed]) -> None:
        rollups = self.rollups
        through = rollups.closed_through_ms
        if through is not None:
            self.output.put(
                ClosedBuckets(ROLLUPS, rollups.series, closed, through, rollups.emitted)
            )


#: An unbound method that consumes the batches of one topic.
Consumer = Callable[[Pipeline, RecordBatch], Awaitable[None]]

#: Which method consumes which topic.
CONSUMERS: dict[str, Consumer] = {
    ORDERS.name: Pipeline.on_orders,
    CLICKS.name: Pipeline.on_clicks,
    CATALOG.name: Pipeline.on_catalog,
    HEARTBEATS.name: Pipeline.on_heartbeats,
}
