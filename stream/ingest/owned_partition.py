"""A partition that a worker owns, its fencing token, and how its event time advances.

An input that is idle and read to its end no longer holds the partition's watermark back.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from faust.types import TP

from stream.decoding.schemas import Heartbeat
from stream.errors import LostRecords
from stream.ingest.idleness import IdleTimer, InputStatus
from stream.kafka.reading.record_batch import RecordBatch
from stream.partition.closed import Closed
from stream.partition.partition import Judged, Partition
from stream.partition.state import INPUTS
from stream.state.port import StateWrite
from stream.topics import HEARTBEATS, INVENTORY


@dataclass(slots=True)
class PendingWrite:
    """A write the store has not confirmed, and the closed buckets and positions that it stores."""

    write: StateWrite
    closed: list[Closed]
    positions: dict[str, int]


#: Judges and counts the records of a batch in a partition.
Count = Callable[[Partition, RecordBatch], Judged]

#: With more open buckets than this, an input ahead of the others in event time waits.
MAX_OPEN = 200
#: Heartbeats that wait for their offsets at most; a later one replaces an earlier one's meaning.
MAX_HEARTBEATS = 100


@dataclass(slots=True)
class OwnedPartition:
    """A partition acquired with `token`; `stored` holds the next offset of each topic as stored."""

    partition: Partition
    token: int
    stored: dict[str, int]
    #: Heartbeats whose offsets are not all read yet, each with its own offset.
    heartbeats: list[tuple[int, Heartbeat]] = field(default_factory=list)
    idle_timers: dict[str, IdleTimer] = field(
        default_factory=lambda: {topic: IdleTimer() for topic in INPUTS}
    )
    pending: PendingWrite | None = None
    letters: list[tuple[str, bytes]] = field(default_factory=list)
    #: Batches, by topic, of inputs that wait for the others to catch up in event time.
    parked: dict[str, deque[tuple[RecordBatch, Count]]] = field(default_factory=dict)

    def fresh(self, batch: RecordBatch) -> RecordBatch | None:
        """Records of a batch that are not counted yet; None if all are. Batches may be redelivered.

        Raises LostRecords when records between the position and the batch were never delivered.
        """
        position = self.partition.state.positions.get(batch.topic)
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
        """True if an input has opened too many buckets beyond the watermark and must wait.

        An input whose records a heartbeat waits for never does: they raise the watermark.
        """
        partition = self.partition
        if len(partition.state.open) <= MAX_OPEN:
            return False
        idle = self.idle(inputs)
        now_of = {name: mark.now_ms for name, mark in partition.state.watermarks.items()}
        mine = now_of[topic]
        others = [now for name, now in now_of.items() if name != topic and name not in idle]
        if mine is None or not others or any(now is not None and now >= mine for now in others):
            return False
        position = partition.state.positions.get(topic, 0)
        if any(beat.offsets.get(topic, 0) > position for _, beat in self.heartbeats):
            return False
        reached = partition.watermark_ms(idle)
        if reached is None:
            reached = min(partition.state.open)
        return mine - reached > MAX_OPEN * partition.state.window.bucket

    def idle(self, inputs: InputStatus) -> frozenset[str]:
        """Inputs that are silent for the idle timeout and read to their end.

        `inventory` is idle from the start while its partition is empty: a shop without stock data
        does not wait for any.
        """
        number, marks = self.partition.state.number, self.partition.state.watermarks
        timeout_ms = inputs.idle_timeout_ms
        idle = set()
        for topic in INPUTS:
            tp = TP(topic, number)
            silent_ms = self.idle_timers[topic].after(inputs.answered(tp), timeout_ms)
            never_used = topic == INVENTORY.name and marks[topic].newest_ms is None
            if (silent_ms >= timeout_ms or never_used) and inputs.lag(tp) == 0:
                idle.add(topic)
        return frozenset(idle)

    def advance(self, idle: frozenset[str], *, cause_ms: int) -> None:
        """Apply the heartbeats that are due, and close the buckets the watermark has passed.

        `cause_ms` is the broker time of the record that moved the watermark.
        """
        partition = self.partition
        reached = [beat for _, beat in self.heartbeats if self._reached(beat)]
        if reached:
            self.heartbeats = [one for one in self.heartbeats if not self._reached(one[1])]
            newest_ms = max(beat.event_time_ms for beat in reached)
            partition.state.heartbeat_ms = max(partition.state.heartbeat_ms or 0, newest_ms)
            partition.state.changed = True
        watermark = partition.watermark_ms(idle)
        if watermark is not None:
            partition.close_through(watermark, cause_ms=cause_ms)

    def forget_heartbeats(self) -> None:
        """Keep only the newest `MAX_HEARTBEATS` that wait: some may name offsets never reached."""
        del self.heartbeats[:-MAX_HEARTBEATS]

    def closes_due(self, inputs: InputStatus) -> bool:
        """True if the watermark has passed a bucket that is not closed, stored and passed on."""
        partition = self.partition
        mark = partition.watermark_ms(self.idle(inputs))
        through_ms = partition.state.closed_through_ms
        first_ms = min(partition.state.open, default=None) if through_ms is None else through_ms
        width = partition.state.window.bucket
        ended = mark is not None and first_ms is not None and first_ms + width <= mark
        return ended or bool(partition.state.closed_unsaved) or self.pending is not None

    @property
    def safe_positions(self) -> dict[str, int]:
        """Offsets from which another worker may resume: a waiting heartbeat must be read again."""
        waiting = {HEARTBEATS.name: self.heartbeats[0][0]} if self.heartbeats else {}
        return self.partition.state.positions | waiting

    def _reached(self, heartbeat: Heartbeat) -> bool:
        positions = self.partition.state.positions
        return all(positions.get(topic, 0) >= offset for topic, offset in heartbeat.offsets.items())


def advance_all(partitions: Sequence[OwnedPartition], inputs: InputStatus, *, now_ms: int) -> None:
    """Advance partitions whose event time no record moves: idle inputs, silent partitions.

    A silent partition follows the slowest active one. If all are silent, those that never had an
    event follow the one that is furthest.
    """
    active: list[int] = []
    silent: list[OwnedPartition] = []
    for owned in partitions:
        idle = owned.idle(inputs)
        owned.advance(idle, cause_ms=now_ms)
        if len(idle) == len(INPUTS):
            silent.append(owned)
        else:
            active.append(owned.partition.state.closed_through_ms or 0)
    reached = [owned.partition.state.closed_through_ms or 0 for owned in silent]
    frontier_ms = min(active) if active else max(reached, default=0)
    for owned in silent if frontier_ms else ():
        if active or owned.partition.untouched:
            owned.partition.close_through(frontier_ms, cause_ms=now_ms)
