"""The worker's ingest: what becomes of each batch, and when buckets close.

Between the agents and `stream/partition/partition.py`: it hands batches to the partition that owns
them, applies heartbeats and advances watermarks. Which partitions those are is said in
`stream/ingest/assignment.py`, how they reach the store in `stream/ingest/flushing.py`. Together
they are the authority on offsets: reading resumes where the store says, and Kafka is told only what
is stored.

Never blocks the event loop; holds the input back when the store or the output is slow.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from faust.types import TP

from stream.decoding.catalog import CatalogDecoder
from stream.decoding.events import ClickDecoder, OrderDecoder, decode_heartbeat
from stream.decoding.formats import open_format
from stream.decoding.inventory import InventoryDecoder
from stream.decoding.plans import PlanDecoder
from stream.decoding.refusals import UNREADABLE, Refused, refusal
from stream.errors import UnreadableEvent
from stream.ingest.assignment import Ask, unknown_broker
from stream.ingest.flushing import Flushing
from stream.ingest.idleness import InputStatus, Lag, LastAnswer
from stream.ingest.owned_partition import Count, OwnedPartition, advance_all
from stream.kafka.producer import BatchProducer
from stream.kafka.record_batch import RecordBatch
from stream.partition.partition import Judged, Partition
from stream.privacy import Pseudonyms
from stream.serving.output_loop import OutputLoop
from stream.settings import Settings
from stream.sinks.topic_records import dead_letter
from stream.state.port import StateStore
from stream.telemetry import EVENTS
from stream.topics import CATALOG, CLICKS, HEARTBEATS, INVENTORY, ORDERS, PLANS

log = structlog.get_logger(__name__)


class Pipeline(Flushing):
    """Ingest of one worker.

    `lag` tells how many records of a topic partition are not counted, `answered` when the broker
    last said so; `ask`, `adopt` and `rejoin` are those of `Assignment`.
    """

    def __init__(
        self,
        settings: Settings,
        store: StateStore,
        sink: BatchProducer,
        output: OutputLoop,
        people: Pseudonyms,
        *,
        clock_ms: Callable[[], int],
        lag: Lag,
        answered: LastAnswer,
        ask: Ask = unknown_broker,
        adopt: bool = False,
        rejoin: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(settings, store, sink, output, ask=ask, adopt=adopt, rejoin=rejoin)
        self._people = people
        self._clock_ms = clock_ms
        self._inputs = InputStatus(lag, answered, settings.window.idle_timeout)
        #: Topic partitions that are not to be fetched: they run ahead of the other inputs.
        self.held: frozenset[TP] = frozenset()
        ingest = settings.ingest
        self._format = open_format(ingest)
        limits: dict[str, Any] = {
            "source": self._format,
            "locations": ingest.locations,
            "max_value_bytes": ingest.max_value_bytes,
        }
        self._orders = OrderDecoder(**limits)
        self._clicks = ClickDecoder(**limits)
        self._readings = InventoryDecoder(**limits)
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
        mine = await self._mine(batch)
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
        mine = await self._mine(batch)
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
        mine = await self._mine(batch)
        if mine is None:
            return
        owned, fresh = mine
        for position, value in enumerate(fresh.values):
            try:
                heartbeat = decode_heartbeat(value or b"")
                if heartbeat.event_time_ms > self._latest_ms() + self._settings.window.bucket:
                    raise UnreadableEvent("future_timestamp", f"a promise of {heartbeat}")
            except UNREADABLE as error:
                self._refuse(owned, fresh, [refusal(position, error)])
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

    def _catch_up(self, owned: OwnedPartition) -> None:
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

    def _count(self, owned: OwnedPartition, batch: RecordBatch, count: Count) -> None:
        fresh = owned.fresh(batch)
        if fresh is None:
            return
        judged = count(owned.partition, fresh)
        self._refuse(owned, fresh, judged.refused)
        EVENTS.labels(fresh.topic, "counted").inc(judged.counted)
        EVENTS.labels(fresh.topic, "duplicate").inc(judged.duplicates)
        self.events_in += len(fresh)
        self._note_unstored(len(fresh))
        owned.partition.moved_to(fresh.topic, fresh.next_offset)
        fresh.release()
        owned.idle_timers[fresh.topic].end()
        owned.advance(owned.idle(self._inputs), cause_ms=fresh.newest_timestamp_ms)

    async def _mine(self, batch: RecordBatch) -> tuple[OwnedPartition, RecordBatch] | None:
        """The owner of a batch and its records not counted yet; None when nothing is to be done.

        Waits until store and output take more.
        """
        await self._ready()
        owned = self.owned.get(batch.partition)
        fresh = None if owned is None else owned.fresh(batch)
        return None if owned is None or fresh is None else (owned, fresh)

    def _refuse(self, owned: OwnedPartition, batch: RecordBatch, refused: list[Refused]) -> None:
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
        advance_all(list(self.owned.values()), self._inputs, now_ms=self._clock_ms())
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
        if any(owned.closes_due(self._inputs) for owned in self.owned.values()):
            return True
        throughs = [owned.partition.closed_through_ms for owned in self.owned.values()]
        known = [through for through in throughs if through is not None]
        if 0 not in self.owned or len(known) < len(throughs):
            return False  # nobody's roll-ups, or a partition without a bucket yet
        return (self.rollups.closed_through_ms or 0) < min(known)

    async def run(self) -> None:
        """Tick and flush until cancelled."""
        every_s = self._settings.state.flush_every / 1000
        while True:
            await asyncio.sleep(every_s)
            self._tick()
            await self.flush()


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
