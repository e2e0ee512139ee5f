"""The path of a batch: decoded, parked while its input is ahead, judged, counted.

Refused records become dead letters. A batch goes to the partition that owns it (`owner`), and its
changes wait for the next flush (`flusher`). The pipeline also advances event time between batches.
It never blocks the event loop, and holds the input back while the store or the output is slow.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from faust.types import TP

from stream.decoding.catalog import CatalogDecoder
from stream.decoding.events import ClickDecoder, OrderDecoder
from stream.decoding.formats import open_format
from stream.decoding.inventory import InventoryDecoder
from stream.decoding.plans import PlanDecoder
from stream.decoding.refusals import UNREADABLE, Refused, refusal
from stream.ingest.assignment import PartitionOwner
from stream.ingest.flushing import Flusher
from stream.ingest.heartbeats import read_heartbeat
from stream.ingest.idleness import InputStatus, Lag, LastAnswer
from stream.ingest.owned_partition import Count, OwnedPartition, advance_all
from stream.kafka.reading.record_batch import RecordBatch
from stream.partition.partition import Judged, Partition
from stream.privacy import Pseudonyms
from stream.settings import Settings
from stream.sinks.topic_records import dead_letter
from stream.telemetry import EVENTS
from stream.topics import CATALOG, CLICKS, HEARTBEATS, INVENTORY, ORDERS, PLANS

log = structlog.get_logger(__name__)


class Pipeline:
    """Ingest of one worker, and the authority on its offsets.

    Reading resumes at the offsets in the store, and only stored offsets are committed to Kafka.
    `lag` returns the records of a topic partition that are not counted, `answered` the time of the
    broker's last answer; `id_seed` is that of the event ids' hashes.
    """

    def __init__(
        self,
        settings: Settings,
        owner: PartitionOwner,
        flusher: Flusher,
        people: Pseudonyms,
        *,
        clock_ms: Callable[[], int],
        lag: Lag,
        answered: LastAnswer,
        id_seed: int = 0,
    ) -> None:
        self.owner = owner
        self._flusher = flusher
        self._settings = settings
        self._people = people
        self._clock_ms = clock_ms
        self._inputs = InputStatus(lag, answered, settings.window.idle_timeout)
        #: Topic partitions not to be fetched for now: their input is ahead of the others.
        self.held: frozenset[TP] = frozenset()
        ingest = settings.ingest
        self._format = open_format(ingest)
        limits: dict[str, Any] = {
            "source": self._format,
            "locations": ingest.locations,
            "max_value_bytes": ingest.max_value_bytes,
        }
        self._orders = OrderDecoder(**limits, id_seed=id_seed)
        self._clicks = ClickDecoder(**limits, id_seed=id_seed)
        self._inventory = InventoryDecoder(**limits)
        self._plans = PlanDecoder(**limits)
        self._catalog = CatalogDecoder(source=self._format, max_value_bytes=ingest.max_value_bytes)
        self.events_in = 0
        self.accepted: Counter[str] = Counter()  # by topic, duplicates included
        self.refused: Counter[str] = Counter()

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
        """Take a batch of stock readings; a tombstone leaves the last known level."""

        def take(partition: Partition, fresh: RecordBatch) -> Judged:
            columns = self._inventory.columns(fresh, latest_ms=self._latest_ms())
            return partition.take_readings(columns)

        await self._on_events(batch, take)

    async def on_catalog(self, batch: RecordBatch) -> None:
        """Take catalog entries; a tombstone leaves the last known values."""
        await self._format.prepare(batch)
        found = await self._uncounted(batch)
        if found is None:
            return
        owned, fresh = found
        listed = self._catalog.read(fresh, now_ms=self._clock_ms())
        begin = self._settings.ingest.catalog_series
        for sku, category, listing in listed.accepted:
            owned.partition.list_product(sku, category, listing, begin=begin)
        self._refuse(owned, fresh, listed.refused)
        owned.partition.state.moved_to(CATALOG.name, fresh.next_offset)

    async def on_plans(self, batch: RecordBatch) -> None:
        """Take plans into the partition's table; all workers read them from the store."""
        await self._format.prepare(batch)
        found = await self._uncounted(batch)
        if found is None:
            return
        owned, fresh = found
        announced = self._plans.read(fresh)
        for plan_id, plan in announced.accepted:
            owned.partition.state.plans.take(plan_id, plan)
        self._refuse(owned, fresh, announced.refused)
        owned.partition.state.moved_to(PLANS.name, fresh.next_offset)

    async def on_heartbeats(self, batch: RecordBatch) -> None:
        """Take heartbeats; each takes effect once the offsets it names are read."""
        found = await self._uncounted(batch)
        if found is None:
            return
        (owned, fresh), latest_ms = found, self._latest_ms() + self._settings.window.bucket
        for position, value in enumerate(fresh.values):
            try:
                heartbeat = read_heartbeat(value, topics=CONSUMERS.keys(), latest_ms=latest_ms)
            except UNREADABLE as error:
                self._refuse(owned, fresh, [refusal(position, error)])
            else:
                owned.heartbeats.append((fresh.records[position].offset, heartbeat))
        owned.forget_heartbeats()
        owned.advance(owned.idle(self._inputs), cause_ms=fresh.newest_timestamp_ms)
        owned.partition.state.moved_to(HEARTBEATS.name, fresh.next_offset)

    async def _on_events(self, batch: RecordBatch, count: Count) -> None:
        await self._format.prepare(batch)
        await self._flusher.wait_for_room()
        owned = self.owner.owned.get(batch.partition)
        if owned is None:
            return
        owned.parked.setdefault(batch.topic, deque()).append((batch, count))
        self._count_parked(owned)
        self._update_held()

    def _count_parked(self, owned: OwnedPartition) -> None:
        """Count the parked batches of every input that is not ahead of the others."""
        moved = True
        while moved:
            moved = False
            for topic, parked in owned.parked.items():
                while parked and not owned.ahead(topic, self._inputs):
                    self._count(owned, *parked.popleft())
                    moved = True

    def _update_held(self) -> None:
        """Hold the topic partitions with parked batches back from fetching."""
        held = frozenset(
            TP(topic, number)
            for number, owned in self.owner.owned.items()
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
        self.accepted[fresh.topic] += judged.counted + judged.duplicates
        self.refused[fresh.topic] += len(judged.refused)
        self._flusher.note_unstored(len(fresh))
        owned.partition.state.moved_to(fresh.topic, fresh.next_offset)
        fresh.release()
        owned.idle_timers[fresh.topic].end()
        owned.advance(owned.idle(self._inputs), cause_ms=fresh.newest_timestamp_ms)

    async def _uncounted(self, batch: RecordBatch) -> tuple[OwnedPartition, RecordBatch] | None:
        """The owned partition of a batch and its records not yet counted; None if there are none.

        Waits until store and output accept more.
        """
        await self._flusher.wait_for_room()
        owned = self.owner.owned.get(batch.partition)
        fresh = None if owned is None else owned.fresh(batch)
        return None if owned is None or fresh is None else (owned, fresh)

    def _refuse(self, owned: OwnedPartition, batch: RecordBatch, refused: list[Refused]) -> None:
        now = self._clock_ms()
        for one in refused:
            record = batch.records[one.position]
            letter = dead_letter(
                one, self._format.readable(record.value),
                topic=batch.topic, partition=batch.partition, offset=record.offset,
                received_ms=now, pseudonyms=self._people,
            )  # fmt: skip
            owned.letters.append((f"{batch.topic}-{batch.partition}", letter))
            verdict = "late" if one.reason == "late" else "rejected"
            EVENTS.labels(batch.topic, verdict).inc()

    def _latest_ms(self) -> int:
        return self._clock_ms() + self._settings.window.future_tolerance

    # -- time ------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Advance the event time of idle inputs and of silent partitions."""
        advance_all(list(self.owner.owned.values()), self._inputs, now_ms=self._clock_ms())
        for owned in self.owner.owned.values():
            self._count_parked(owned)
        self._update_held()
        self.owner.claim_again()

    @property
    def watermark_ms(self) -> int | None:
        """Least watermark of the owned partitions; None before the first event."""
        marks = [
            owned.partition.watermark_ms(owned.idle(self._inputs))
            for owned in self.owner.owned.values()
        ]
        known = [mark for mark in marks if mark is not None]
        return min(known) if known else None

    @property
    def closes_due(self) -> bool:
        """True if a watermark has passed a bucket that is not closed, stored and passed on."""
        owned_partitions = self.owner.owned.values()
        if any(owned.closes_due(self._inputs) for owned in owned_partitions):
            return True
        throughs = [owned.partition.state.closed_through_ms for owned in owned_partitions]
        known = [through for through in throughs if through is not None]
        if 0 not in self.owner.owned or len(known) < len(throughs):
            return False  # the roll-ups are not ours, or a partition has no bucket yet
        return (self.owner.rollups.closed_through_ms or 0) < min(known)

    async def run(self) -> None:
        """Advance time and flush until cancelled."""
        every_s = self._settings.state.flush_every / 1000
        while True:
            await asyncio.sleep(every_s)
            self.tick()
            await self.flush()

    # -- offsets ---------------------------------------------------------------------------------

    async def resume_offsets(self, assigned: set[TP], generation: int) -> Mapping[TP, int]:
        """Own exactly the assigned partitions; returns where reading resumes.

        Raises IncompatibleState when the stored offsets do not fit the broker.
        """
        offsets = await self.owner.resume_offsets(assigned, generation)
        self._update_held()
        return offsets

    def flushed_offset(self, tp: TP) -> int | None:
        """Next offset after the stored records of a topic partition; None if it is not owned."""
        return self.owner.flushed_offset(tp)

    async def flush(self) -> None:
        """Store all records counted so far; returns once the store has them."""
        await self._flusher.flush()


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
