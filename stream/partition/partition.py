"""One partition: judged events in, closed buckets out. No I/O.

This is the heart of the ingest path. It judges and counts the events of one partition number across
all input topics, moves its time and closes its buckets; what it holds, and what of that a flush
stores, is in `stream/partition/state.py`. `stream/ingest/pipeline.py` moves the bytes; this module
decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from stream.decoding.catalog import NOT_LISTED, Listing
from stream.decoding.columns import ClickColumns, Columns, OrderColumns
from stream.decoding.inventory import InventoryColumns
from stream.decoding.refusals import Refused
from stream.features.definitions import N_SUMS, closed_block
from stream.partition.open_bucket import OpenBucket
from stream.partition.state import Closed, PartitionState
from stream.privacy import Pseudonyms
from stream.topics import CLICKS, INVENTORY, ORDERS

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

LATE = "late"

V = TypeVar("V")


@dataclass(slots=True)
class Judged:
    """What became of a batch: how many were counted or duplicates, and the records refused."""

    counted: int = 0
    duplicates: int = 0
    refused: list[Refused] = field(default_factory=list)


class Partition(PartitionState):
    """One partition: what of a batch counts, and which buckets are closed."""

    def count_orders(self, columns: OrderColumns) -> Judged:
        """Judge and count order lines."""
        kept, judged = self._judge(ORDERS.name, columns)
        for bucket, slots, rows in self._buckets(columns, kept):
            bucket.add_orders(slots, columns.quantity_N[rows], columns.price_N[rows])
        return judged

    def count_clicks(self, columns: ClickColumns, people: Pseudonyms) -> Judged:
        """Judge and count clicks."""
        kept, judged = self._judge(CLICKS.name, columns)
        for bucket, slots, rows in self._buckets(columns, kept):
            bucket.add_clicks(slots, columns.column_N[rows])
            visitors = _picked(columns.visitor_N, rows)
            told = np.array([visitor is not None for visitor in visitors], np.bool_)
            people_N = cast("Sequence[str]", _picked(visitors, np.flatnonzero(told)))
            bucket.add_visitors(slots[told], people.numbers(people_N))
        return judged

    def take_readings(self, columns: InventoryColumns) -> Judged:
        """Judge readings of the stock; each takes effect in its bucket, or the first still open.

        That one is told by the newest reading less the allowed lateness, and by what has closed.
        """
        judged = Judged(refused=columns.refused)
        mark = self.watermarks[INVENTORY.name]
        times = columns.event_time_N
        wild = mark.implausible(times, max_gap_ms=self.window.max_gap)
        if wild.any():
            self._refuse(judged, columns, wild, "future_timestamp", "ahead of the stream by")
        plausible = np.flatnonzero(~wild)
        times = times[plausible]
        open_from_N = mark.observe(times) - mark.allowed_lateness_ms
        open_from_N = open_from_N - open_from_N % self.window.bucket
        if self.closed_through_ms is not None:
            open_from_N = np.maximum(open_from_N, self.closed_through_ms)
        amounts = (columns.on_hand_N, columns.on_order_N, columns.lead_time_N)
        slot_N = self.series.slots(_picked(columns.series_N, plausible))
        readings_NC = np.stack([slot_N, times, *(column[plausible] for column in amounts)], axis=1)
        late = self.stock.take(readings_NC, open_from_N=open_from_N)
        if late.any():
            late_N = np.zeros(len(columns), np.bool_)
            late_N[plausible[late]] = True
            self._refuse(judged, columns, late_N, LATE, "late by")
        judged.counted = int((~late).sum()) + columns.tombstones
        self._tally(INVENTORY.name, judged)
        return judged

    def categorise(self, sku: str, category: str) -> None:
        """Take a catalog entry's category."""
        if self.series.category_of.get(sku) != category:
            self.series.categorise(sku, category)
            self.unsaved_categories[sku] = category

    def list_product(
        self, sku: str, category: str | None, listing: Listing, *, begin: bool = False
    ) -> None:
        """Take a catalog entry; what it does not name stays as it was.

        With `begin` a SKU without any series becomes one, launched, where no entry says when, at
        the end of the last closed bucket.
        """
        if category is not None:
            self.categorise(sku, category)
        known = self.listings.get(sku, NOT_LISTED)
        now = known.updated(listing)
        if begin and not self.series.has(sku):
            self.series.slots([sku])
            self.listed += 1
            if now.launched_ms is None:
                now = now.updated(Listing(launched_ms=self.closed_through_ms))
        if now != known:
            self.listings[sku] = now
            self.unsaved_listings[sku] = now.stored()

    @property
    def untouched(self) -> bool:
        """Whether nothing but the catalog has begun a series."""
        heard = any(mark.newest_ms is not None for mark in self.watermarks.values())
        return not len(self.series) or (len(self.series) == self.listed and not heard)

    def watermark_ms(self, idle: frozenset[str] = frozenset()) -> int | None:
        """Least watermark of the inputs that are not idle; where all are idle, the greatest.

        A heartbeat can only raise it. None while an input that is not idle has had no event.
        """
        now_of = {name: mark.now_ms for name, mark in self.watermarks.items()}
        active = [now for name, now in now_of.items() if name not in idle]
        known = [now for now in active or now_of.values() if now is not None]
        reached: int | None = None
        if active and len(known) == len(active):
            reached = min(known)
        elif not active and known:
            reached = max(known)
        marks = [mark for mark in (reached, self.heartbeat_ms) if mark is not None]
        return max(marks) if marks else None

    def close_through(self, watermark_ms: int, *, cause_ms: int = 0) -> list[Closed]:
        """Close every bucket that ends at or before the watermark, oldest first.

        `cause_ms` is the broker time of the record that moved the watermark.
        """
        width = self.window.bucket
        end_ms = watermark_ms - watermark_ms % width
        start_ms = self.closed_through_ms
        if start_ms is None:
            start_ms = min(self.open, default=end_ms)
            if start_ms > end_ms or (self.open and start_ms == end_ms):
                return []
            self.first_bucket_ms = self.closed_through_ms = self.emitted_through_ms = start_ms
            self.changed = True
        closed = []
        # Silence closes with zeros, but not further back than the store keeps anything: a stream
        # that jumps by years must not be filled up.
        kept_from_ms = (end_ms - self.retention_ms) // width * width
        silent_from_ms = max(start_ms, kept_from_ms)
        starts = {*range(silent_from_ms, end_ms, width), *(s for s in self.open if s < end_ms)}
        for start in sorted(starts):
            bucket = self.open.pop(start, None)
            if bucket is None:
                sums_SF = np.zeros((len(self.series), N_SUMS), np.int64)
            else:
                bucket.grow(len(self.series))
                sums_SF = bucket.sums_SF
            rollups = self.series.rollups(sums_SF)
            values_SF = closed_block(sums_SF, self.stock.close(start, len(self.series)))
            closed.append(Closed(start, values_SF, rollups, cause_ms))
        if closed:
            self.closed_through_ms = end_ms
            first_ms = start_ms if self.first_bucket_ms is None else self.first_bucket_ms
            self.first_bucket_ms = max(first_ms, end_ms - self.retention_ms)
            self.closed_unsaved += closed
            self.changed = True
        return closed

    def _judge(self, topic: str, columns: Columns) -> tuple[Ints, Judged]:
        """Places of the events to count; duplicates are dropped, late ones refused."""
        times = columns.event_time_N
        judged = Judged(refused=columns.refused)
        mark = self.watermarks[topic]
        wild = mark.implausible(times, max_gap_ms=self.window.max_gap)
        if wild.any():
            self._refuse(judged, columns, wild, "future_timestamp", "ahead of the stream by")
        plausible = np.flatnonzero(~wild)
        times = times[plausible]
        hashes = columns.id_hash_N[plausible]
        newest = mark.observe(times)
        late = times < newest - mark.allowed_lateness_ms
        if self.closed_through_ms is not None:
            late |= times < self.closed_through_ms
        dedup = self.dedup[topic]
        fresh = dedup.fresh(hashes, times, newest_N=newest, late_N=late)
        late &= fresh
        if late.any():
            late_N = np.zeros(len(columns), np.bool_)
            late_N[plausible[late]] = True
            self._refuse(judged, columns, late_N, LATE, "late by")
        counted = fresh & ~late
        kept = plausible[counted]
        dedup.add(hashes[counted], times[counted])
        judged.counted = len(kept)
        judged.duplicates = int(len(fresh) - fresh.sum())
        self._tally(topic, judged)
        return kept, judged

    def _tally(self, topic: str, judged: Judged) -> None:
        n_late = sum(refused.reason == LATE for refused in judged.refused)
        self.counts[topic, "counted"] += judged.counted
        self.counts[topic, "duplicate"] += judged.duplicates
        self.counts[topic, LATE] += n_late
        self.counts[topic, "rejected"] += len(judged.refused) - n_late

    def _refuse(
        self, judged: Judged, columns: Columns | InventoryColumns,
        which_N: Mask, reason: str, words: str,
    ) -> None:  # fmt: skip
        newest = max(
            [mark.newest_ms for mark in self.watermarks.values() if mark.newest_ms is not None],
            default=0,
        )
        for place in np.flatnonzero(which_N).tolist():
            event_time = int(columns.event_time_N[place])
            detail = (
                f"event time {event_time}, {words} {abs(newest - event_time)} ms against the newest"
            )
            judged.refused.append(Refused(int(columns.position_N[place]), reason, detail))

    def _buckets(self, columns: Columns, kept: Ints) -> list[tuple[OpenBucket, Ints, Ints]]:
        """Open buckets touched by the kept events, with their slots and places."""
        if not len(kept):
            return []
        slot_N = self.series.slots(_picked(columns.series_N, kept))
        times = columns.event_time_N[kept]
        start_N = times - times % self.window.bucket
        first = int(start_N[0])
        if (start_N == first).all():
            return [(self._bucket(first), slot_N, kept)]
        groups = []
        for start in np.unique(start_N).tolist():
            here = start_N == start
            groups.append((self._bucket(start), slot_N[here], kept[here]))
        return groups

    def _bucket(self, start_ms: int) -> OpenBucket:
        bucket = self.open.get(start_ms)
        if bucket is None:
            bucket = self.open[start_ms] = OpenBucket(len(self.series))
        bucket.grow(len(self.series))
        return bucket


def _picked(column: Sequence[V], place_M: Ints) -> Sequence[V]:
    """The values at the places; the column itself where that is all of them, the usual case."""
    if len(place_M) == len(column):
        return column
    return [column[i] for i in place_M.tolist()]
