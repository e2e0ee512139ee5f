"""A closed bucket (`Closed`), and the batch handed to the output loop (`ClosedBuckets`).

Axes: S = series, F = features of a closed bucket.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stream.state.keys import Tag


@dataclass(slots=True)
class Closed:
    """A closed bucket: float32 values of the S series known when it closed, and sums by roll-up.

    `cause_ms` is the broker time of the record that moved the watermark past its end.
    """

    start_ms: int
    values_SF: NDArray[np.float32]
    rollups: dict[str, list[int]]
    cause_ms: int = 0


@dataclass(slots=True)
class ClosedBuckets:
    """Stored closed buckets of one partition; `through_ms` is the end of the newest.

    `series` is the slot order; `buckets` may be empty where a partition only has to be forecast.
    `emitted` is called with the end of the last bucket whose features are published. `watermark_ms`
    is the partition's when it was handed over; 0 where that is not known.
    """

    tag: Tag
    series: list[str]
    buckets: list[Closed]
    through_ms: int
    emitted: Callable[[int], None] = field(default=lambda _: None)
    watermark_ms: int = 0


class ClosedBucketSink(Protocol):
    """Takes closed buckets off the ingest; the port of the output loop."""

    def put(self, closed: ClosedBuckets) -> None:
        """Queue buckets that the store has as closed."""

    def forget(self, tag: Tag) -> None:
        """Drop everything queued or known of a partition that moved to another worker."""

    async def wait_for_room(self) -> None:
        """Wait while too many closed buckets are queued."""
