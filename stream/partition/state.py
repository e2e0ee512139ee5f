"""What a partition holds, and what of it a flush stores. No I/O.

The series registry, the open buckets, the watermarks and the deduplication window of one partition
number across all input topics. A `StateWrite` says what has changed since the last one, so that a
successor can go on exactly here. What changes them is in `stream/partition/partition.py`.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.decoding.catalog import Listing
from stream.partition.dedup import DedupWindow
from stream.partition.open_bucket import OpenBucket
from stream.partition.plan_table import PlanTable
from stream.partition.series_index import SeriesIndex
from stream.partition.stock_levels import StockLevels
from stream.partition.watermark import Watermark
from stream.settings import WindowSettings
from stream.state.closed_buckets import closed_pages, closed_paths, pack_partial
from stream.state.port import StateWrite
from stream.topics import CLICKS, EVENT_INPUTS, ORDERS

#: Topics whose records carry event time, and those whose events have an id and count once.
INPUTS = tuple(topic.name for topic in EVENT_INPUTS)
DEDUPED = (ORDERS.name, CLICKS.name)


@dataclass(slots=True)
class Closed:
    """A closed bucket: float32 values of the S series known when it closed, and sums by roll-up."""

    start_ms: int
    values_SF: NDArray[np.float32]
    rollups: dict[str, list[int]]
    cause_ms: int = 0


class PartitionState:
    """State of partition `number`; `positions` holds the next offset of each topic read."""

    def __init__(self, number: int, window: WindowSettings, *, retention_ms: int) -> None:
        self.number = number
        self.window = window
        self.retention_ms = retention_ms
        self.series = SeriesIndex()
        self.watermarks = {name: Watermark(window.allowed_lateness) for name in INPUTS}
        self.dedup = {name: DedupWindow(window.dedup) for name in DEDUPED}
        self.stock = StockLevels(window.bucket)
        self.plans = PlanTable()
        self.open: dict[int, OpenBucket] = {}
        self.positions: dict[str, int] = {}
        self.heartbeat_ms: int | None = None
        self.first_bucket_ms: int | None = None
        self.closed_through_ms: int | None = None
        self.emitted_through_ms: int | None = None
        self.saved_series = 0
        #: Closed buckets that may lie in the store.
        self.saved_span = range(0)
        self.unsaved_categories: dict[str, str] = {}
        self.listings: dict[str, Listing] = {}
        #: Series that the catalog began, not an event or a reading.
        self.listed = 0
        self.unsaved_listings: dict[str, str] = {}
        self.closed_unsaved: list[Closed] = []
        self.changed = False
        #: The broker that `positions` belong to (`stream/kafka/broker_identity.py`).
        self.identity: dict[str, str] = {}
        #: Events by (topic, verdict) since the partition's first event; stored with the state.
        self.counts: Counter[tuple[str, str]] = Counter()

    def moved_to(self, topic: str, next_offset: int) -> None:
        """Note how far a topic has been read."""
        self.positions[topic] = next_offset
        self.changed = True

    def take_write(self) -> tuple[StateWrite, list[Closed]]:
        """All that changed since the last plan, and the buckets whose closing it stores.

        The caller stores the plan or gives the partition up: it is not made twice.
        """
        plan = StateWrite()
        new = self.series.ids[self.saved_series :]
        if new:
            plan.pushes.append((("series",), list(new)))
            self.saved_series = len(self.series)
        if self.unsaved_categories:
            plan.fields[("categories",)] = self.unsaved_categories
            self.unsaved_categories = {}
        if self.unsaved_listings:
            plan.fields[("listings",)] = self.unsaved_listings
            self.unsaved_listings = {}
        for start, bucket in self.open.items():
            plan.patches += [(("open", start), at, block) for at, block in bucket.unsaved_runs()]
            if bucket.unsaved_visitors:
                plan.appends.append((("visitors", start), _joined(bucket.unsaved_visitors)))
                bucket.unsaved_visitors = []
        self.stock.plan(plan)
        closed, self.closed_unsaved = self.closed_unsaved, []
        self._plan_closed(plan, closed)
        if self.plans.changed:
            plan.puts["plans",] = self.plans.stored()
        for topic, window in self.dedup.items():
            newest = self.watermarks[topic].newest_ms
            if newest is not None:
                plan.deletes += [("ids", topic, start) for start in window.forget_before(newest)]
            for start, hashes in window.unsaved.items():
                plan.appends.append((("ids", topic, start), _joined(hashes)))
            window.unsaved = {}
        if plan or self.changed:
            plan.meta = self._meta()
        self.changed = False
        return plan, closed

    def _plan_closed(self, plan: StateWrite, buckets: list[Closed]) -> None:
        if not buckets or self.first_bucket_ms is None or self.closed_through_ms is None:
            return
        self.plans.drop_before(self.first_bucket_ms)
        for start in self.expired(self.first_bucket_ms):
            plan.deletes += [*closed_paths(start, len(self.series)), ("partial", start)]
        for closed in buckets:
            start = closed.start_ms
            plan.deletes += [("open", start), ("visitors", start)]
            if closed.values_SF.any():
                plan.puts |= closed_pages(start, closed.values_SF)
            if closed.rollups:
                plan.puts["partial", start] = pack_partial(closed.rollups)
        # a stream that jumped far closes a bucket too old to be kept: away with it next time
        oldest_ms = min(self.first_bucket_ms, buckets[0].start_ms)
        self.saved_span = range(oldest_ms, self.closed_through_ms, self.window.bucket)

    def expired(self, kept_from_ms: int) -> range:
        """Starts of the stored buckets that lie before the oldest one to be kept."""
        span = self.saved_span
        return range(span.start, max(span.start, min(kept_from_ms, span.stop)), span.step)

    def _meta(self) -> dict[str, str]:
        meta = {f"offset:{topic}": str(offset) for topic, offset in self.positions.items()}
        meta |= self.identity
        for topic, mark in self.watermarks.items():
            if mark.newest_ms is not None:
                meta[f"newest_ms:{topic}"] = str(mark.newest_ms)
        for topic, window in self.dedup.items():
            meta[f"segments:{topic}"] = json.dumps(sorted(window.segments))
        for (topic, verdict), count in self.counts.items():
            meta[f"count:{topic}:{verdict}"] = str(count)
        meta["open"] = json.dumps(sorted(self.open))
        if self.stock.known:
            meta["readings"] = json.dumps(self.stock.open_starts)
        if self.listed:
            meta["listed"] = str(self.listed)
        if self.plans.digest:
            meta["plans"] = self.plans.digest
        for name in ("first_bucket_ms", "closed_through_ms", "emitted_through_ms", "heartbeat_ms"):
            value = getattr(self, name)
            if value is not None:
                meta[name] = str(value)
        return meta


def _joined(parts: Sequence[NDArray[Any]]) -> bytes:
    return b"".join(part.astype("<u8").tobytes() for part in parts)
