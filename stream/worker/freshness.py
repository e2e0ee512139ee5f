"""Up to when a worker's answers are known to be complete: the truth behind `age_ms` and `stale`."""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from faust.types import TP

from stream.kafka.reading.consumer_thread import BrokerAnswer

#: End offsets remembered of an input; during a long backlog they are further apart.
_KEPT: Final = 512
#: An input refuses everything if it refused so many events since the last accepted one; it is
#: forgiven after a minute without events.
REFUSED_LEAST: Final = 10
_REFUSED_S: Final = 60.0
_SETTLED_S: Final = 2.0


class Freshness:
    """For each partition, the newest time at which nothing that the broker had was missing.

    It is no process's own clock of being alive: it stands still while the broker does not answer,
    while records wait, and while they are not stored. `answer` is the broker's last answer.

    >>> answers = {TP("orders", 0): BrokerAnswer(7, 1_000)}
    >>> freshness = Freshness(answers.get)
    >>> freshness.observe({0: {"orders": 5}}), freshness.observe({0: {"orders": 7}})
    ({}, {0: 1000})
    """

    def __init__(self, answer: Callable[[TP], BrokerAnswer | None]) -> None:
        self._answer = answer
        self._ends: dict[TP, deque[tuple[int, int]]] = {}
        self._every_ms: dict[TP, int] = {}
        self._current: dict[TP, int] = {}

    def observe(self, stored: Mapping[int, Mapping[str, int]]) -> dict[int, int]:
        """Return the times in ms of the partitions that have one.

        `stored` has the next offset to be stored of every input, by partition and topic.
        """
        inputs = {
            TP(topic, p): at for p, offsets in stored.items() for topic, at in offsets.items()
        }
        for gone in self._ends.keys() - inputs.keys():
            del self._ends[gone]
            self._current.pop(gone, None)
        for tp, next_offset in inputs.items():
            self._look(tp, next_offset)
        return {
            partition: min(known)
            for partition, offsets in stored.items()
            if (known := self._known(partition, offsets))
        }

    def _known(self, partition: int, offsets: Mapping[str, int]) -> list[int]:
        """The times of a partition's inputs; none if one of them is not known."""
        inputs = [TP(topic, partition) for topic in offsets]
        assigned = [tp for tp in inputs if self._answer(tp) is not None]
        if any(tp not in self._current for tp in assigned):
            return []
        return [self._current[tp] for tp in assigned]

    def _look(self, tp: TP, next_offset: int) -> None:
        answer = self._answer(tp)
        ends = self._ends.setdefault(tp, deque())
        if answer is None or answer.end is None or answer.at_ms is None:
            return
        if not ends:
            self._every_ms[tp] = 1
        if not ends or answer.at_ms >= ends[-1][0] + self._every_ms[tp]:
            ends.append((answer.at_ms, answer.end))
        if len(ends) > _KEPT:
            self._ends[tp] = ends = deque(list(ends)[::2])
            self._every_ms[tp] = 2 * (ends[-1][0] - ends[0][0]) // _KEPT
        while ends and ends[0][1] <= next_offset:
            self._current[tp] = ends.popleft()[0]


class Refusals:
    """Finds inputs of which everything is refused: many events since the last accepted one.

    >>> refusals, accepted = Refusals(), Counter(orders=5)
    >>> refusals.refusing(accepted, Counter(), now_s=0.0)
    []
    >>> refusals.refusing(accepted, Counter(orders=10), now_s=2.0)
    ['orders']
    >>> refusals.refusing(Counter(orders=6), Counter(orders=10), now_s=3.0)
    []
    """

    def __init__(self) -> None:
        self._inputs: dict[str, _Refused] = {}

    def refusing(
        self, accepted: Counter[str], refused: Counter[str], *, now_s: float | None = None
    ) -> list[str]:
        """Return the topics; the counters are those of the process so far."""
        now_s = time.monotonic() if now_s is None else now_s
        for topic in accepted.keys() | refused.keys():
            known = self._inputs.get(topic)
            if known is None or known.accepted != accepted[topic]:
                before = refused[topic] if known is not None or accepted[topic] else 0
                known = _Refused(accepted[topic], before, before, now_s, now_s)
                self._inputs[topic] = known
            if refused[topic] > known.refused:
                known.refused, known.refused_s = refused[topic], now_s
        return sorted(topic for topic, known in self._inputs.items() if known.all_of_late(now_s))


@dataclass(slots=True)
class _Refused:
    """An input since its last accepted event."""

    accepted: int
    refused_before: int
    refused: int
    accepted_s: float
    refused_s: float

    def all_of_late(self, now_s: float) -> bool:
        return (
            self.refused - self.refused_before >= REFUSED_LEAST
            and now_s - self.accepted_s >= _SETTLED_S
            and now_s - self.refused_s <= _REFUSED_S
        )
