"""Passes stored closed buckets on to the output loop."""

from collections.abc import Sequence

from stream.ingest.owned_partition import OwnedPartition
from stream.ingest.rollups import Rollups
from stream.partition.closed import Closed, ClosedBuckets, ClosedBucketSink
from stream.state.keys import ROLLUPS


def pass_on(output: ClosedBucketSink, owned: OwnedPartition, closed: Sequence[Closed]) -> None:
    """Queue closed buckets of a partition; their publication is noted in its state."""
    state = owned.partition.state

    def emitted(through_ms: int) -> None:
        state.emitted_through_ms = max(state.emitted_through_ms or 0, through_ms)
        state.changed = True

    through_ms = state.closed_through_ms or 0
    watermark_ms = owned.partition.watermark_ms() or 0
    output.put(
        ClosedBuckets(
            state.number, state.series.ids, list(closed), through_ms, emitted, watermark_ms
        )
    )


def pass_on_rollups(output: ClosedBucketSink, rollups: Rollups, closed: Sequence[Closed]) -> None:
    """Queue closed buckets of the roll-ups; nothing before their first close."""
    through_ms = rollups.closed_through_ms
    if through_ms is not None:
        output.put(
            ClosedBuckets(ROLLUPS, rollups.series, list(closed), through_ms, rollups.emitted)
        )
