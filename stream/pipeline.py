"""The worker's ingest: which partitions it owns, when state is flushed, when buckets close.

Between the agents and `stream/partition.py`: it hands batches to the partition that owns them,
applies heartbeats, advances watermarks, stores plans and passes what has closed on to
`stream/output.py`. It is also the authority on offsets: reading resumes where the store says, and
Kafka is told only what is stored.

Never blocks the event loop; holds the input back when the store or the output is slow.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from faust.types import TP

from stream.assignment import RETRY_S, Ask, Assignment, told_nothing
from stream.catalog import CatalogDecoder
from stream.codecs import ClickDecoder, OrderDecoder, decode_heartbeat
from stream.columns import Refused
from stream.errors import FencedOut, ServiceUnavailable, UnreadableEvent
from stream.fetched import RecordBatch
from stream.formats import UNREADABLE, open_format, unreadable
from stream.inventory import ReadingDecoder
from stream.output import Output
from stream.ownership import Count, Owned, Pending
from stream.partition import INPUTS, Judged, Partition
from stream.plans import PlanDecoder
from stream.privacy import Pseudonyms
from stream.settings import Settings
from stream.silence import Answered, Inputs, Lag
from stream.sinks.kafka import KafkaSink
from stream.sinks.records import dead_letter
from stream.state.port import StateStore
from stream.telemetry import EVENTS
from stream.topics import CATALOG, CLICKS, DEAD_LETTER, HEARTBEATS, INVENTORY, ORDERS, PLANS

log = structlog.get_logger(__name__)

#: Events counted but not stored beyond which the input waits.
MAX_UNSTORED = 400_000


class Pipeline(Assignment):
    """Ingest of one worker.

    `lag` tells how many records of a topic partition are not counted, `answered` when the broker
    last said so; `ask`, `adopt` and `rejoin` are those of `Assignment`.
    """

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
        answered: Answered,
        ask: Ask = told_nothing,
        adopt: bool = False,
        rejoin: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(settings, store, output, ask=ask, adopt=adopt, rejoin=rejoin)
        self._sink = sink
        self._people = people
        self._clock_ms = clock_ms
        self._inputs = Inputs(lag, answered, settings.window.idle_timeout)
        self._unstored = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        #: Topic partitions that are not to be fetched: they run ahead of the other inputs.
        self.held: frozenset[TP] = frozenset()
        self._store_answers = asyncio.Event()
        self._store_answers.set()
        ingest = settings.ingest
        self._format = open_format(ingest)
        limits: dict[str, Any] = {
            "source": self._format,
            "locations": ingest.locations,
            "max_value_bytes": ingest.max_value_bytes,
        }
        self._orders = OrderDecoder(**limits)
        self._clicks = ClickDecoder(**limits)
        self._readings = ReadingDecoder(**limits)
        self._plans = PlanDecoder(**limits)
        self._catalog = CatalogDecoder(source=self._format, max_value_bytes=ingest.max_value_bytes)
        self.events_in = 0

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

    async def on_inventory(self, batch: RecordBatch) -> None:
        """Take a batch of readings of the stock; a tombstone leaves the last known level."""

        def take(partition: Partition, fresh: RecordBatch) -> Judged:
            columns = self._readings.columns(fresh, latest_ms=self._latest_ms())
            return partition.take_readings(columns)

        await self._on_events(batch, take)

    async def on_catalog(self, batch: RecordBatch) -> None:
        """Take what the catalog says of SKUs; a tombstone leaves what was last known."""
        await self._format.prepare(batch)
        await self._ready()
        mine = self._mine(batch)
        if mine is None:
            return
        owned, fresh = mine
        listed = self._catalog.read(fresh, now_ms=self._clock_ms())
        begin = self._settings.ingest.catalog_series
        for sku, category, listing in listed.taken:
            owned.partition.list_product(sku, category, listing, begin=begin)
        self._refuse(owned, fresh, listed.refused)
        owned.partition.moved_to(CATALOG.name, fresh.next_offset)

    async def on_plans(self, batch: RecordBatch) -> None:
        """Take plans into the partition's table; every worker reads them from the store."""
        await self._format.prepare(batch)
        await self._ready()
        mine = self._mine(batch)
        if mine is None:
            return
        owned, fresh = mine
        announced = self._plans.read(fresh)
        for plan_id, plan in announced.taken:
            owned.partition.plans.take(plan_id, plan)
        self._refuse(owned, fresh, announced.refused)
        owned.partition.moved_to(PLANS.name, fresh.next_offset)

    async def on_heartbeats(self, batch: RecordBatch) -> None:
        """Note promises about event time; they take effect when their offsets have been read."""
        await self._ready()
        mine = self._mine(batch)
        if mine is None:
            return
        owned, fresh = mine
        for position, value in enumerate(fresh.values):
            try:
                heartbeat = decode_heartbeat(value or b"")
                if heartbeat.event_time_ms > self._latest_ms() + self._settings.window.bucket:
                    raise UnreadableEvent("future_timestamp", f"a promise of {heartbeat}")
            except UNREADABLE as error:
                fault = unreadable(error)
                self._refuse(owned, fresh, [Refused(position, fault.reason, fault.detail)])
            else:
                owned.heartbeats.append((fresh.records[position].offset, heartbeat))
        owned.advance(owned.idle(self._inputs), cause_ms=fresh.newest_timestamp_ms)
        owned.partition.moved_to(HEARTBEATS.name, fresh.next_offset)

    async def _on_events(self, batch: RecordBatch, count: Count) -> None:
        await self._format.prepare(batch)
        await self._ready()
        owned = self.owned.get(batch.partition)
        if owned is None:
            return
        owned.parked.setdefault(batch.topic, deque()).append((batch, count))
        self._catch_up(owned)
        self._hold()

    def _catch_up(self, owned: Owned) -> None:
        """Count what waits, as far as no input runs ahead."""
        moved = True
        while moved:
            moved = False
            for topic, parked in owned.parked.items():
                while parked and not owned.ahead(topic, self._inputs):
                    self._count(owned, *parked.popleft())
                    moved = True

    def _taken_over(self) -> None:
        self._hold()

    def _hold(self) -> None:
        """Say which topic partitions are not to be fetched."""
        held = frozenset(
            TP(topic, number)
            for number, owned in self.owned.items()
            for topic, parked in owned.parked.items()
            if parked
        )
        if held != self.held:
            log.debug("inputs_held", topics=sorted({tp.topic for tp in held}))
            self.held = held

    def _count(self, owned: Owned, batch: RecordBatch, count: Count) -> None:
        fresh = owned.fresh(batch)
        if fresh is None:
            return
        judged = count(owned.partition, fresh)
        self._refuse(owned, fresh, judged.refused)
        EVENTS.labels(fresh.topic, "counted").inc(judged.counted)
        EVENTS.labels(fresh.topic, "duplicate").inc(judged.duplicates)
        self.events_in += len(fresh)
        self._unstored += len(fresh)
        if self._unstored > MAX_UNSTORED:
            self._has_room.clear()
        owned.partition.moved_to(fresh.topic, fresh.next_offset)
        fresh.release()
        owned.silences[fresh.topic].end()
        owned.advance(owned.idle(self._inputs), cause_ms=fresh.newest_timestamp_ms)

    async def _ready(self) -> None:
        await self._store_answers.wait()
        await self._has_room.wait()
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

    def _tick(self) -> None:
        """Advance what only time can: idle inputs, and partitions that are silent altogether."""
        now_ms = self._clock_ms()
        active: list[int] = []
        silent: list[Owned] = []
        for owned in self.owned.values():
            idle = owned.idle(self._inputs)
            owned.advance(idle, cause_ms=now_ms)
            if len(idle) == len(INPUTS):
                silent.append(owned)
            else:
                active.append(owned.partition.closed_through_ms or 0)
        # A silent partition follows the slowest of those that are not. Where all are silent, only
        # those that never had an event follow the one that is furthest.
        reached = [owned.partition.closed_through_ms or 0 for owned in silent]
        frontier_ms = min(active) if active else max(reached, default=0)
        for owned in silent if frontier_ms else ():
            if active or owned.partition.untouched:
                owned.partition.close_through(frontier_ms, cause_ms=now_ms)
        for owned in self.owned.values():
            self._catch_up(owned)
        self._hold()
        self.claim_again()

    @property
    def watermark_ms(self) -> int | None:
        """Least watermark of the partitions owned."""
        marks = [
            owned.partition.watermark_ms(owned.idle(self._inputs)) for owned in self.owned.values()
        ]
        known = [mark for mark in marks if mark is not None]
        return min(known) if known else None

    @property
    def closes_due(self) -> bool:
        """Whether a bucket has ended by the watermarks that is not closed, stored and handed on."""
        width = self._settings.window.bucket
        for owned in self.owned.values():
            partition = owned.partition
            mark = partition.watermark_ms(owned.idle(self._inputs))
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
            plan, closed = owned.partition.take_plan()
            if not plan:
                return
            safe = owned.safe_positions
            if owned.heartbeats:
                plan.meta[f"offset:{HEARTBEATS.name}"] = str(safe[HEARTBEATS.name])
            owned.pending = Pending(plan, closed, safe)
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


#: An unbound method that consumes the batches of one topic.
Consumer = Callable[[Pipeline, RecordBatch], Awaitable[None]]

#: Which method consumes which topic.
CONSUMERS: dict[str, Consumer] = {
    ORDERS.name: Pipeline.on_orders,
    CLICKS.name: Pipeline.on_clicks,
    INVENTORY.name: Pipeline.on_inventory,
    CATALOG.name: Pipeline.on_catalog,
    PLANS.name: Pipeline.on_plans,
    HEARTBEATS.name: Pipeline.on_heartbeats,
}
