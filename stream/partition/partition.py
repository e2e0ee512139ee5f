"""One partition: judges events, counts them, and closes buckets. No I/O.

Every readable event gets a verdict here: counted, duplicate, late or rejected. A bucket closes when
the partition's watermark passes its end. The state that this changes is in
`stream/partition/state.py`.
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
from stream.partition.closed import Closed
from stream.partition.open_bucket import OpenBucket
from stream.partition.state import PartitionState
from stream.privacy import Pseudonyms
from stream.settings import WindowSettings
from stream.topics import CLICKS, INVENTORY, ORDERS

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

LATE = "late"

V = TypeVar("V")


@dataclass(slots=True)
class Judged:
    """Verdicts of a batch: events counted, duplicates, and the records refused."""

    counted: int = 0
    duplicates: int = 0
    refused: list[Refused] = field(default_factory=list)


class Partition:
    """Verdicts and closed buckets of one partition, over its `state`."""

    def __init__(self, number: int, window: WindowSettings, *, retention_ms: int) -> None:
        self.state = PartitionState(number, window, retention_ms=retention_ms)

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
            known = np.array([visitor is not None for visitor in visitors], np.bool_)
            people_N = cast("Sequence[str]", _picked(visitors, np.flatnonzero(known)))
            bucket.add_visitors(slots[known], people.numbers(people_N))
        return judged

    def take_readings(self, columns: InventoryColumns) -> Judged:
        """Judge stock readings; each takes effect in its bucket, or in the first still open.

        A bucket is open while it ends after the newest reading less the allowed lateness, and has
        not closed.
        """
        state = self.state
        judged = Judged(refused=columns.refused)
        mark = state.watermarks[INVENTORY.name]
        times = columns.event_time_N
        wild = mark.implausible(times, max_gap_ms=state.window.max_gap)
        if wild.any():
            self._refuse(judged, columns, wild, "future_timestamp", "ahead of the stream by")
        plausible = np.flatnonzero(~wild)
        times = times[plausible]
        open_from_N = mark.observe(times) - mark.allowed_lateness_ms
        open_from_N = open_from_N - open_from_N % state.window.bucket
        if state.closed_through_ms is not None:
            open_from_N = np.maximum(open_from_N, state.closed_through_ms)
        amounts = (columns.on_hand_N, columns.on_order_N, columns.lead_time_N)
        slot_N = state.series.slots(_picked(columns.series_N, plausible))
        readings_NC = np.stack([slot_N, times, *(column[plausible] for column in amounts)], axis=1)
        late = state.stock.take(readings_NC, open_from_N=open_from_N)
        if late.any():
            late_N = np.zeros(len(columns), np.bool_)
            late_N[plausible[late]] = True
            self._refuse(judged, columns, late_N, LATE, "late by")
        judged.counted = int((~late).sum()) + columns.tombstones
        self._tally(INVENTORY.name, judged)
        return judged

    def categorise(self, sku: str, category: str) -> None:
        """Take a catalog entry's category."""
        state = self.state
        if state.series.category_of.get(sku) != category:
            state.series.categorise(sku, category)
            state.unsaved_categories[sku] = category

    def list_product(
        self, sku: str, category: str | None, listing: Listing, *, begin: bool = False
    ) -> None:
        """Take a catalog entry; fields it leaves out keep their value.

        With `begin` a SKU without any series becomes one. Its launch is the end of the last closed
        bucket where no entry has a launch date.
        """
        state = self.state
        if category is not None:
            self.categorise(sku, category)
        known = state.listings.get(sku, NOT_LISTED)
        now = known.updated(listing)
        if begin and not state.series.has(sku):
            state.series.slots([sku])
            state.listed += 1
            if now.launched_ms is None:
                now = now.updated(Listing(launched_ms=state.closed_through_ms))
        if now != known:
            state.listings[sku] = now
            state.unsaved_listings[sku] = now.stored()

    @property
    def untouched(self) -> bool:
        """True while there is no event, and no series but those of the catalog."""
        state = self.state
        any_event = any(mark.newest_ms is not None for mark in state.watermarks.values())
        return not len(state.series) or (len(state.series) == state.listed and not any_event)

    def watermark_ms(self, idle: frozenset[str] = frozenset()) -> int | None:
        """Least watermark of the active inputs; if all are idle, the greatest of any input.

        A heartbeat can only raise it. None while an active input has had no event.
        """
        state = self.state
        now_of = {name: mark.now_ms for name, mark in state.watermarks.items()}
        active = [now for name, now in now_of.items() if name not in idle]
        known = [now for now in active or now_of.values() if now is not None]
        reached: int | None = None
        if active and len(known) == len(active):
            reached = min(known)
        elif not active and known:
            reached = max(known)
        marks = [mark for mark in (reached, state.heartbeat_ms) if mark is not None]
        return max(marks) if marks else None

    def close_through(self, watermark_ms: int, *, cause_ms: int = 0) -> list[Closed]:
        """Close every bucket that ends at or before the watermark, oldest first.

        `cause_ms` is the broker time of the record that moved the watermark.
        """
        state = self.state
        width = state.window.bucket
        end_ms = watermark_ms - watermark_ms % width
        start_ms = state.closed_through_ms
        if start_ms is None:
            start_ms = min(state.open, default=end_ms)
            if start_ms > end_ms or (state.open and start_ms == end_ms):
                return []
            state.first_bucket_ms = state.closed_through_ms = state.emitted_through_ms = start_ms
            state.changed = True
        closed = []
        # Silent buckets close with zeros, but only within retention: a stream that jumps by years
        # must not be filled up.
        kept_from_ms = (end_ms - state.retention_ms) // width * width
        silent_from_ms = max(start_ms, kept_from_ms)
        starts = {
            *range(silent_from_ms, end_ms, width),
            *(s for s in state.open if s < end_ms),
        }
        for start in sorted(starts):
            bucket = state.open.pop(start, None)
            if bucket is None:
                sums_SF = np.zeros((len(state.series), N_SUMS), np.int64)
            else:
                bucket.grow(len(state.series))
                sums_SF = bucket.sums_SF
            rollups = state.series.rollups(sums_SF)
            values_SF = closed_block(sums_SF, state.stock.close(start, len(state.series)))
            closed.append(Closed(start, values_SF, rollups, cause_ms))
        if closed:
            state.closed_through_ms = end_ms
            first_ms = start_ms if state.first_bucket_ms is None else state.first_bucket_ms
            state.first_bucket_ms = max(first_ms, end_ms - state.retention_ms)
            state.closed_unsaved += closed
            state.changed = True
        return closed

    def _judge(self, topic: str, columns: Columns) -> tuple[Ints, Judged]:
        """Positions of the events to count; duplicates are dropped, late events refused."""
        state = self.state
        times = columns.event_time_N
        judged = Judged(refused=columns.refused)
        mark = state.watermarks[topic]
        wild = mark.implausible(times, max_gap_ms=state.window.max_gap)
        if wild.any():
            self._refuse(judged, columns, wild, "future_timestamp", "ahead of the stream by")
        plausible = np.flatnonzero(~wild)
        times = times[plausible]
        hashes = columns.id_hash_N[plausible]
        newest = mark.observe(times)
        late = times < newest - mark.allowed_lateness_ms
        if state.closed_through_ms is not None:
            late |= times < state.closed_through_ms
        dedup = state.dedup[topic]
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
        state = self.state
        n_late = sum(refused.reason == LATE for refused in judged.refused)
        state.counts[topic, "counted"] += judged.counted
        state.counts[topic, "duplicate"] += judged.duplicates
        state.counts[topic, LATE] += n_late
        state.counts[topic, "rejected"] += len(judged.refused) - n_late

    def _refuse(
        self, judged: Judged, columns: Columns | InventoryColumns,
        which_N: Mask, reason: str, words: str,
    ) -> None:  # fmt: skip
        newest = max(
            [
                mark.newest_ms
                for mark in self.state.watermarks.values()
                if mark.newest_ms is not None
            ],
            default=0,
        )
        for place in np.flatnonzero(which_N).tolist():
            event_time = int(columns.event_time_N[place])
            detail = (
                f"event time {event_time}, {words} {abs(newest - event_time)} ms against the newest"
            )
            judged.refused.append(Refused(int(columns.position_N[place]), reason, detail))

    def _buckets(self, columns: Columns, kept: Ints) -> list[tuple[OpenBucket, Ints, Ints]]:
        """Open buckets of the events to count, with the events' slots and positions."""
        state = self.state
        if not len(kept):
            return []
        slot_N = state.series.slots(_picked(columns.series_N, kept))
        times = columns.event_time_N[kept]
        start_N = times - times % state.window.bucket
        first = int(start_N[0])
        if (start_N == first).all():
            return [(self._bucket(first), slot_N, kept)]
        groups = []
        for start in np.unique(start_N).tolist():
            here = start_N == start
            groups.append((self._bucket(start), slot_N[here], kept[here]))
        return groups

    def _bucket(self, start_ms: int) -> OpenBucket:
        state = self.state
        bucket = state.open.get(start_ms)
        if bucket is None:
            bucket = state.open[start_ms] = OpenBucket(len(state.series))
        bucket.grow(len(state.series))
        return bucket


def _picked(column: Sequence[V], place_M: Ints) -> Sequence[V]:
    """Values at the positions; the column itself if those are all, the usual case."""
    if len(place_M) == len(column):
        return column
    return [column[i] for i in place_M.tolist()]
