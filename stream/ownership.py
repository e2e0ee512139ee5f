"""A partition this worker has taken over: its state, its token, and how its time moves.

`stream/pipeline.py` keeps one of these for each partition number it owns. Idleness is the only
thing here that looks at processing time: an input that is silent and read to its end no longer
holds the watermark back.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from faust.types import TP

from stream.errors import LostRecords
from stream.events import Heartbeat
from stream.partition import INPUTS, Closed, Partition
from stream.state.port import WritePlan
from stream.transport import RecordBatch

#: Records of a topic partition that are not fetched yet; None when not known.
Lag = Callable[[TP], int | None]


@dataclass(slots=True)
class Pending:
    """A plan on its way to the store, and what becomes true once it is there."""

    plan: WritePlan
    closed: list[Closed]
    positions: dict[str, int]


@dataclass(slots=True)
class Owned:
    """A partition taken over with `token`; `stored` holds the offsets that are safe."""

    partition: Partition
    token: int
    stored: dict[str, int]
    heartbeats: list[Heartbeat] = field(default_factory=list)
    progress_s: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(INPUTS, time.monotonic())
    )
    pending: Pending | None = None
    letters: list[tuple[str, bytes]] = field(default_factory=list)

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

    def idle(self, lag: Lag, *, timeout_ms: int) -> frozenset[str]:
        """Inputs that have been silent for `timeout_ms` and are read to their end."""
        now = time.monotonic()
        number = self.partition.number
        return frozenset(
            topic
            for topic in INPUTS
            if (now - self.progress_s[topic]) * 1000 >= timeout_ms and lag(TP(topic, number)) == 0
        )

    def advance(self, idle: frozenset[str], *, cause_ms: int) -> None:
        """Apply the heartbeats that are due and close what the watermark has passed."""
        partition = self.partition
        while self.heartbeats and self._reached(self.heartbeats[0]):
            promised = self.heartbeats.pop(0).event_time_ms
            partition.heartbeat_ms = max(partition.heartbeat_ms or promised, promised)
        watermark = partition.watermark_ms(idle)
        if watermark is not None:
            partition.close_through(watermark, cause_ms=cause_ms)

    def _reached(self, heartbeat: Heartbeat) -> bool:
        positions = self.partition.positions
        return all(positions.get(topic, 0) >= offset for topic, offset in heartbeat.offsets.items())
