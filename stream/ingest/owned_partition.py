"""A partition this worker has taken over: its state, its token, and how its time moves.

`stream/ingest/pipeline.py` keeps one of these for each partition number it owns. An input that is
silent (`stream/ingest/idleness.py`) and read to its end no longer holds the watermark back.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from faust.types import TP

from stream.decoding.schemas import Heartbeat
from stream.errors import LostRecords
from stream.ingest.idleness import IdleTimer, InputStatus
from stream.kafka.record_batch import RecordBatch
from stream.partition.partition import Judged, Partition
from stream.partition.state import INPUTS, Closed
from stream.state.port import StateWrite
from stream.topics import HEARTBEATS, INVENTORY


@dataclass(slots=True)
class PendingWrite:
    """A plan on its way to the store, and what becomes true once it is there."""

    plan: StateWrite
    closed: list[Closed]
    positions: dict[str, int]


#: Counts the records of a batch into a partition.
Count = Callable[[Partition, RecordBatch], Judged]

#: Open buckets beyond which the input that runs ahead of the others has to wait.
MAX_OPEN = 200


@dataclass(slots=True)
class OwnedPartition:
    """A partition taken over with `token`; `stored` holds the offsets that are safe."""

    partition: Partition
    token: int
    stored: dict[str, int]
    #: Promises that wait for their offsets to be read, with the offset of each.
    heartbeats: list[tuple[int, Heartbeat]] = field(default_factory=list)
    idle_timers: dict[str, IdleTimer] = field(
        default_factory=lambda: {topic: IdleTimer() for topic in INPUTS}
    )
    pending: PendingWrite | None = None
    letters: list[tuple[str, bytes]] = field(default_factory=list)
    #: Batches of inputs that run ahead in event time, by topic, until the others have caught up.
    parked: dict[str, deque[tuple[RecordBatch, Count]]] = field(default_factory=dict)

    def fresh(self, batch: RecordBatch) -> RecordBatch | None:
        """The records of a batch that are not counted yet; a batch may be delivered again.

        Raises LostRecords when records between the position and the batch were never delivered.
        """
        position = self.partition.positions.get(batch.topic)
        if position is None:
            return batch
        if batch.next_offset <= position:
            return None
        if batch.from_offset > position:
            raise LostRecords(
                f"{batch.topic}-{batch.partition}: counted up to offset {position}, "
                f"but the next batch begins at {batch.from_offset}"
            )
        if batch.records and batch.records[0].offset < position:
            batch.records = [record for record in batch.records if record.offset >= position]
        return batch

    def ahead(self, topic: str, inputs: InputStatus) -> bool:
        """Whether an input has opened so many buckets beyond the watermark that it has to wait.

        Not while a heartbeat waits for its records: that would raise the watermark itself.
        """
        partition = self.partition
        if len(partition.open) <= MAX_OPEN:
            return False
        idle = self.idle(inputs)
        now_of = {name: mark.now_ms for name, mark in partition.watermarks.items()}
        mine = now_of[topic]
        others = [now for name, now in now_of.items() if name != topic and name not in idle]
        if mine is None or not others or any(now is not None and now >= mine for now in others):
            return False
        position = partition.positions.get(topic, 0)
        if any(promise.offsets.get(topic, 0) > position for _, promise in self.heartbeats):
            return False
        reached = partition.watermark_ms(idle)
        if reached is None:
            reached = min(partition.open)
        return mine - reached > MAX_OPEN * partition.window.bucket

    def idle(self, inputs: InputStatus) -> frozenset[str]:
        """Inputs that have been silent for long enough and are read to their end.

        A shop that tells nothing of its stock does not wait for it: `inventory` is idle from the
        start while its partition is empty.
        """
        number, marks = self.partition.number, self.partition.watermarks
        timeout_ms = inputs.idle_timeout_ms
        idle = set()
        for topic in INPUTS:
            tp = TP(topic, number)
            silent_ms = self.idle_timers[topic].after(inputs.answered(tp), timeout_ms)
            unheard = topic == INVENTORY.name and marks[topic].newest_ms is None
            if (silent_ms >= timeout_ms or unheard) and inputs.lag(tp) == 0:
                idle.add(topic)
        return frozenset(idle)

    def advance(self, idle: frozenset[str], *, cause_ms: int) -> None:
        """Apply the heartbeats that are due and close what the watermark has passed."""
        partition = self.partition
        while self.heartbeats and self._reached(self.heartbeats[0][1]):
            promised = self.heartbeats.pop(0)[1].event_time_ms
            partition.heartbeat_ms = max(partition.heartbeat_ms or promised, promised)
            partition.changed = True
        watermark = partition.watermark_ms(idle)
        if watermark is not None:
            partition.close_through(watermark, cause_ms=cause_ms)

    def closes_due(self, inputs: InputStatus) -> bool:
        """Whether a bucket has ended by the watermark that is not closed, stored and handed on."""
        partition = self.partition
        mark = partition.watermark_ms(self.idle(inputs))
        through_ms = partition.closed_through_ms
        first_ms = min(partition.open, default=None) if through_ms is None else through_ms
        width = partition.window.bucket
        ended = mark is not None and first_ms is not None and first_ms + width <= mark
        return ended or bool(partition.closed_unsaved) or self.pending is not None

    @property
    def safe_positions(self) -> dict[str, int]:
        """Where a successor has to go on: a promise that still waits must be read again."""
        waiting = {HEARTBEATS.name: self.heartbeats[0][0]} if self.heartbeats else {}
        return self.partition.positions | waiting

    def _reached(self, heartbeat: Heartbeat) -> bool:
        positions = self.partition.positions
        return all(positions.get(topic, 0) >= offset for topic, offset in heartbeat.offsets.items())


def advance_all(partitions: Sequence[OwnedPartition], inputs: InputStatus, *, now_ms: int) -> None:
    """Advance what only time can: idle inputs, and partitions that are silent altogether.

    A silent partition follows the slowest of those that are not. Where all are silent, only those
    that never had an event follow the one that is furthest.
    """
    active: list[int] = []
    silent: list[OwnedPartition] = []
    for owned in partitions:
        idle = owned.idle(inputs)
        owned.advance(idle, cause_ms=now_ms)
        if len(idle) == len(INPUTS):
            silent.append(owned)
        else:
            active.append(owned.partition.closed_through_ms or 0)
    reached = [owned.partition.closed_through_ms or 0 for owned in silent]
    frontier_ms = min(active) if active else max(reached, default=0)
    for owned in silent if frontier_ms else ():
        if active or owned.partition.untouched:
            owned.partition.close_through(frontier_ms, cause_ms=now_ms)
