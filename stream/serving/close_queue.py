"""The queue of closed buckets between ingest and output."""

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from stream.partition.closed import ClosedBuckets
from stream.state.keys import Tag

#: Closed buckets taken at once; with more than `MAX_WAITING` queued, the input waits.
MAX_BUCKETS: Final = 64
MAX_WAITING: Final = 512

_TAKE_WITHIN_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class _Portion:
    """At most `MAX_BUCKETS` closed buckets, and how often their partition had moved when queued."""

    closed: ClosedBuckets
    moves: int

    @property
    def size(self) -> int:
        """Its weight in the queue: one more than its buckets, so that none is free."""
        return len(self.closed.buckets) + 1


class CloseQueue:
    """Closed buckets in the order they closed, without those of partitions that moved away."""

    def __init__(self, *, bucket_ms: int) -> None:
        self._bucket_ms = bucket_ms
        self._queue: asyncio.Queue[_Portion] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._moves: Counter[Tag] = Counter()
        self.waiting = 0

    def put(self, closed: ClosedBuckets) -> None:
        """Queue stored closed buckets, in portions."""
        for start in range(0, max(1, len(closed.buckets)), MAX_BUCKETS):
            buckets = closed.buckets[start : start + MAX_BUCKETS]
            through_ms = closed.through_ms
            if start + MAX_BUCKETS < len(closed.buckets):
                through_ms = buckets[-1].start_ms + self._bucket_ms
            portion = _Portion(
                replace(closed, buckets=buckets, through_ms=through_ms), self._moves[closed.tag]
            )
            self.waiting += portion.size
            self._queue.put_nowait(portion)
        if self.waiting > MAX_WAITING:
            self._room.clear()

    def forget(self, tag: Tag) -> None:
        """Drop what is queued of a partition: its next owner publishes it."""
        self._moves[tag] += 1

    def moves(self, tag: Tag) -> int:
        """How often a partition has moved away."""
        return self._moves[tag]

    async def wait_for_room(self) -> None:
        """Wait while too many closed buckets are queued."""
        await self._room.wait()

    async def take(self) -> list[ClosedBuckets]:
        """Up to `MAX_BUCKETS` queued closed buckets; none if none arrives in a quarter second."""
        portions: list[_Portion] = []
        taken = 0
        try:
            async with asyncio.timeout(_TAKE_WITHIN_S):  # wait_for may swallow a cancellation
                portions.append(await self._queue.get())
            taken = portions[0].size
            while taken < MAX_BUCKETS and not self._queue.empty():
                portions.append(self._queue.get_nowait())
                taken += portions[-1].size
        except TimeoutError:
            pass
        self.waiting -= taken
        if self.waiting <= MAX_WAITING:
            self._room.set()
        return [
            portion.closed
            for portion in portions
            if portion.moves == self._moves[portion.closed.tag]
        ]
