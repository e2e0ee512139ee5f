"""The state of one partition, and the writes that make it durable. No I/O.

It spans all input topics of a partition number: series, open buckets, watermarks, deduplication,
stock and plans. Each `StateWrite` holds the changes since the one before, so that another worker
can resume from the store alone.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from stream.decoding.catalog import Listing
from stream.partition.closed import Closed
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
        #: Closed buckets that may be in the store.
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
        """Changes since the last write, and the closed buckets among them.

        The caller stores the write or releases the partition: the same changes are not taken twice.
        """
        write = StateWrite()
        new = self.series.ids[self.saved_series :]
        if new:
            write.pushes.append((("series",), list(new)))
            self.saved_series = len(self.series)
        if self.unsaved_categories:
            write.fields[("categories",)] = self.unsaved_categories
            self.unsaved_categories = {}
        if self.unsaved_listings:
            write.fields[("listings",)] = self.unsaved_listings
            self.unsaved_listings = {}
        for start, bucket in self.open.items():
            write.patches += [(("open", start), at, block) for at, block in bucket.unsaved_runs()]
            if bucket.unsaved_visitors:
                write.appends.append((("visitors", start), _joined(bucket.unsaved_visitors)))
                bucket.unsaved_visitors = []
        self.stock.add_to(write)
        closed, self.closed_unsaved = self.closed_unsaved, []
        self._add_closed(write, closed)
        if self.plans.changed:
            write.puts["plans",] = self.plans.stored()
        for topic, window in self.dedup.items():
            newest = self.watermarks[topic].newest_ms
            if newest is not None:
                write.deletes += [("ids", topic, start) for start in window.forget_before(newest)]
            for start, hashes in window.unsaved.items():
                write.appends.append((("ids", topic, start), _joined(hashes)))
            window.unsaved = {}
        if write or self.changed:
            write.meta = self._meta()
        self.changed = False
        return write, closed

    def _add_closed(self, write: StateWrite, buckets: list[Closed]) -> None:
        if not buckets or self.first_bucket_ms is None or self.closed_through_ms is None:
            return
        self.plans.drop_before(self.first_bucket_ms)
        for start in self.expired(self.first_bucket_ms):
            write.deletes += [*closed_paths(start, len(self.series)), ("partial", start)]
        for closed in buckets:
            start = closed.start_ms
            write.deletes += [("open", start), ("visitors", start)]
            if closed.values_SF.any():
                write.puts |= closed_pages(start, closed.values_SF)
            if closed.rollups:
                write.puts["partial", start] = pack_partial(closed.rollups)
        # a stream that jumped far closes a bucket too old to be kept: away with it next time
        oldest_ms = min(self.first_bucket_ms, buckets[0].start_ms)
        self.saved_span = range(oldest_ms, self.closed_through_ms, self.window.bucket)

    def expired(self, kept_from_ms: int) -> range:
        """Starts of the stored buckets before the oldest one to be kept."""
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
