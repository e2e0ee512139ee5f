"""Roll-ups (`total`, `category:…`, `location:…`): sums over partitions, closed after all of them.

Each partition stores its partial sums with every closed bucket. The owner of partition 0 adds them
up and stores the result like one more partition (tag `r`), with closed blocks and states of its
own. Visitors of a roll-up are the sum over its series, not distinct people. A roll-up has no stock:
units of different products do not add up to a level that could run out.
"""

from dataclasses import dataclass

import numpy as np

from stream.features.definitions import N_SUMS, closed_block
from stream.ingest.restore import stored_closes
from stream.partition.closed import Closed
from stream.partition.series_index import SeriesIndex
from stream.state.closed_buckets import closed_pages, closed_paths, unpack_partial
from stream.state.keys import ROLLUPS
from stream.state.port import Path, StateStore, StateWrite

#: Buckets closed in one go.
MAX_BUCKETS = 1_000


@dataclass(frozen=True, slots=True)
class _Pending:
    """A close the store has not confirmed, and the roll-ups' bounds once it has."""

    write: StateWrite
    closed: list[Closed]
    first_ms: int
    through_ms: int
    n_series: int


class Rollups:
    """The roll-up partition of a deployment with `partitions` partitions."""

    def __init__(
        self, store: StateStore, partitions: int, *, bucket_ms: int, retention_ms: int
    ) -> None:
        self._store = store
        self._partitions = partitions
        self._bucket_ms = bucket_ms
        self._retention_ms = retention_ms
        self._token: int | None = None
        self._series = SeriesIndex()
        self._saved = 0
        self._first_ms: int | None = None
        #: Oldest bucket that may be in the store, within retention or not.
        self._oldest_ms: int | None = None
        self.closed_through_ms: int | None = None
        self._emitted_ms: int | None = None
        self._pending: _Pending | None = None

    @property
    def series(self) -> list[str]:
        """Roll-ups in slot order."""
        return self._series.ids

    async def acquire(self) -> list[Closed]:
        """Acquire the roll-ups; returns the closed buckets that may not have been published."""
        self._pending = None
        self._token = await self._store.acquire(ROLLUPS)
        meta = await self._store.meta(ROLLUPS)
        self._series = SeriesIndex()
        self._series.slots(await self._store.items(ROLLUPS, ("series",)))
        self._saved = len(self._series)
        self._first_ms = self._oldest_ms = _time(meta, "first_bucket_ms")
        self.closed_through_ms = _time(meta, "closed_through_ms")
        self._emitted_ms = _time(meta, "emitted_through_ms")
        if self.closed_through_ms is None or self._emitted_ms is None:
            return []
        starts = range(self._emitted_ms, self.closed_through_ms, self._bucket_ms)
        return await stored_closes(self._store, ROLLUPS, len(self._series), starts)

    def emitted(self, through_ms: int) -> None:
        """Note that all buckets before `through_ms` are published; stored with the next close."""
        self._emitted_ms = max(self._emitted_ms or 0, through_ms)

    @property
    def held(self) -> bool:
        """True if this worker owns the roll-ups."""
        return self._token is not None

    def release(self) -> None:
        """Give the roll-ups up to another worker."""
        self._token = self._pending = None

    async def close(self) -> list[Closed]:
        """Close the buckets that every partition has closed; stored before they are returned.

        Raises FencedOut when another worker owns the roll-ups.
        """
        if self._token is None:
            return []
        pending = self._pending or await self._prepare()
        if pending is None:
            return []
        self._pending = pending  # kept until confirmed: a write is not made twice
        await self._store.apply(ROLLUPS, self._token, pending.write)
        self._pending = None
        self._first_ms, self.closed_through_ms = pending.first_ms, pending.through_ms
        self._oldest_ms = min(pending.first_ms, pending.closed[0].start_ms)
        if self._emitted_ms is None:
            self._emitted_ms = pending.closed[0].start_ms
        self._saved = pending.n_series
        return pending.closed

    async def _prepare(self) -> "_Pending | None":
        """The next close; None if no bucket is closed in every partition."""
        frontier = await self._frontier()
        if frontier is None:
            return None
        first_ms, through_ms = frontier
        start_ms = self.closed_through_ms if self.closed_through_ms is not None else first_ms
        end_ms = min(through_ms, start_ms + MAX_BUCKETS * self._bucket_ms)
        starts = range(start_ms, end_ms, self._bucket_ms)
        if not starts:
            return None
        closed = await self._summed(starts)
        known_first_ms = start_ms if self._first_ms is None else self._first_ms
        kept_from_ms = max(known_first_ms, end_ms - self._retention_ms)
        write = self._write_of(closed, first_ms=kept_from_ms, through_ms=end_ms)
        return _Pending(write, closed, kept_from_ms, end_ms, len(self._series))

    async def _frontier(self) -> tuple[int, int] | None:
        """First bucket of any partition, and the time through which all are closed."""
        firsts, throughs = [], []
        for number in range(self._partitions):
            meta = await self._store.meta(number)
            if "closed_through_ms" not in meta:
                return None
            firsts.append(int(meta["first_bucket_ms"]))
            throughs.append(int(meta["closed_through_ms"]))
        return min(firsts), min(throughs)

    async def _summed(self, starts: range) -> list[Closed]:
        paths: list[Path] = [("partial", start) for start in starts]
        sums: list[dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]] = [{} for _ in starts]
        for number in range(self._partitions):
            for total, blob in zip(sums, await self._store.blobs(number, paths), strict=True):
                for name, row in unpack_partial(blob).items():
                    part = np.array(row, np.int64)
                    total[name] = total[name] + part if name in total else part
        closed = []
        for start, by_name in zip(starts, sums, strict=True):
            slots = self._series.slots(sorted(by_name))
            sums_SF = np.zeros((len(self._series), N_SUMS), np.int64)
            for slot, name in zip(slots.tolist(), sorted(by_name), strict=True):
                sums_SF[slot] = by_name[name]
            closed.append(Closed(start, closed_block(sums_SF), {}))
        return closed

    def _write_of(self, closed: list[Closed], *, first_ms: int, through_ms: int) -> StateWrite:
        write = StateWrite(
            meta={
                "first_bucket_ms": str(first_ms),
                "closed_through_ms": str(through_ms),
                "emitted_through_ms": str(
                    closed[0].start_ms if self._emitted_ms is None else self._emitted_ms
                ),
            }
        )
        new = self._series.ids[self._saved :]
        if new:
            write.pushes.append((("series",), list(new)))
        oldest_ms = first_ms if self._oldest_ms is None else self._oldest_ms
        for start in range(oldest_ms, min(first_ms, closed[0].start_ms), self._bucket_ms):
            write.deletes += closed_paths(start, len(self._series))
        for bucket in closed:
            if bucket.values_SF.any():
                write.puts |= closed_pages(bucket.start_ms, bucket.values_SF)
        return write


def _time(meta: dict[str, str], name: str) -> int | None:
    return int(meta[name]) if name in meta else None
