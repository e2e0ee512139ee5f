"""Merges the partitions of a source in event-time order, so that catching up makes no event late.

Partitions are fetched at different rates: after an outage one can be hours ahead of another. An
item is released once every partition with unread records has been read up to the item's time; a
partition that is read to its end delays nothing. Pure: the caller states which ones are.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Set
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)
T = TypeVar("T")


class EventTimeMerge(Generic[P, T]):
    """Items by partition, in log order, each with the newest event time up to it.

    >>> merge: EventTimeMerge[str, str] = EventTimeMerge()
    >>> merge.add("a", [(1, "a1"), (9, "a9")])
    >>> merge.add("b", [(2, "b2"), (4, "b4")])
    >>> merge.release({"a", "b"}, at_end=set())
    [('a', 'a1'), ('b', 'b2'), ('b', 'b4')]
    >>> merge.release({"a", "b"}, at_end={"b"})
    [('a', 'a9')]
    """

    def __init__(self) -> None:
        self._pending: dict[P, deque[tuple[int, T]]] = {}
        self._newest: dict[P, int] = {}

    def add(self, partition: P, items: Iterable[tuple[int | None, T]]) -> None:
        """Add items with event times in ms; an item without one takes that of the item before."""
        pending = self._pending.setdefault(partition, deque())
        newest = self._newest.get(partition, 0)
        for time_ms, item in items:
            newest = newest if time_ms is None else max(newest, time_ms)
            pending.append((newest, item))
        self._newest[partition] = newest

    def pending(self, partition: P) -> int:
        """Number of unreleased items of a partition."""
        return len(self._pending.get(partition, ()))

    def release(self, partitions: Set[P], *, at_end: Set[P]) -> list[tuple[P, T]]:
        """Release the items that no older one can follow: oldest first, partitions in log order."""
        bound: int | None = None
        for partition in partitions - at_end:
            pending = self._pending.get(partition)
            if not pending:
                return []
            bound = pending[-1][0] if bound is None else min(bound, pending[-1][0])
        released: list[tuple[int, P, T]] = []
        for partition, pending in self._pending.items():
            while pending and (bound is None or pending[0][0] <= bound):
                time_ms, item = pending.popleft()
                released.append((time_ms, partition, item))
        released.sort(key=lambda item: item[0])
        return [(partition, item) for _, partition, item in released]

    def forget(self, partitions: Iterable[P]) -> None:
        """Drop partitions that are no longer assigned, with their items."""
        for partition in partitions:
            self._pending.pop(partition, None)
            self._newest.pop(partition, None)
