"""Event-time order across the partitions of a source, so that catching up makes nobody late.

Partitions are fetched at their own pace: after an outage one may be hours ahead of the next. An
item is released when every partition that has more to read has been read up to its time; a
partition read to its end holds nobody up. Pure: it is told which are.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Set
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)
T = TypeVar("T")


class EventTimeMerge(Generic[P, T]):
    """Items by partition, in log order, each with the newest event time up to it.

    >>> held: EventTimeMerge[str, str] = EventTimeMerge()
    >>> held.add("a", [(1, "a1"), (9, "a9")])
    >>> held.add("b", [(2, "b2"), (4, "b4")])
    >>> held.release({"a", "b"}, at_end=set())
    [('a', 'a1'), ('b', 'b2'), ('b', 'b4')]
    >>> held.release({"a", "b"}, at_end={"b"})
    [('a', 'a9')]
    """

    def __init__(self) -> None:
        self._held: dict[P, deque[tuple[int, T]]] = {}
        self._newest: dict[P, int] = {}

    def add(self, partition: P, items: Iterable[tuple[int | None, T]]) -> None:
        """Hold items, with their event times in ms; one without stands beside its neighbour."""
        held = self._held.setdefault(partition, deque())
        newest = self._newest.get(partition, 0)
        for time_ms, item in items:
            newest = newest if time_ms is None else max(newest, time_ms)
            held.append((newest, item))
        self._newest[partition] = newest

    def waiting(self, partition: P) -> int:
        """Number of items held of a partition."""
        return len(self._held.get(partition, ()))

    def release(self, partitions: Set[P], *, at_end: Set[P]) -> list[tuple[P, T]]:
        """Items that nothing older can precede, oldest first, each partition's in log order."""
        bound: int | None = None
        for partition in partitions - at_end:
            held = self._held.get(partition)
            if not held:
                return []
            bound = held[-1][0] if bound is None else min(bound, held[-1][0])
        released: list[tuple[int, P, T]] = []
        for partition, held in self._held.items():
            while held and (bound is None or held[0][0] <= bound):
                time_ms, item = held.popleft()
                released.append((time_ms, partition, item))
        released.sort(key=lambda one: one[0])
        return [(partition, item) for _, partition, item in released]

    def forget(self, partitions: Iterable[P]) -> None:
        """Drop partitions that moved away, with what is held of them."""
        for partition in partitions:
            self._held.pop(partition, None)
            self._newest.pop(partition, None)
