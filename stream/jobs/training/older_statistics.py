"""Rebuilds carried statistics from the archive, where the kept ones do not reach as far back.

So it is after an upgrade that carries other statistics, or if their files are lost: the store has
only the last weeks. The result is kept like the snapshots of a worker (`state_snapshots.py`).

Axes: T = buckets, S = series, F = features.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray
from redis import Redis

from model.config import ModelConfig
from model.durations import DAY_MS
from model.inference.statistics_carrier import StatisticsCarrier
from stream.errors import SurgecastError
from stream.features.definitions import N_FEATURES
from stream.jobs.archive.files import ArchiveFiles
from stream.jobs.history.file_statistics import to_carry
from stream.serving.state_snapshots import Snapshots
from stream.state import keys
from stream.state.keys import Tag

log = structlog.get_logger(__name__)

Floats = NDArray[np.float32]

#: Rows of a portion, each a bucket of a series: 88 MB.
_ROWS: Final = 2_000_000


def rebuild_statistics(
    client: Redis, snapshots: Snapshots, tag: Tag, config: ModelConfig, archive: str
) -> None:
    """Keep statistics of a partition's archived buckets for models of `config` to inherit.

    Does nothing if those kept reach as far back, or the archive is no older than the store. An
    archive that cannot be used is left out with a warning. Raises RedisError.
    """
    meta: Any = client.hmget(keys.of(tag, "meta"), "first_bucket_ms", "closed_through_ms")
    names: Any = client.lrange(keys.of(tag, "series"), 0, -1)
    if None in meta or not names:
        return
    first_ms, closed_ms = map(int, meta)
    try:
        files = ArchiveFiles(archive)
        covered = files.covered(tag)
        if covered is None or files.required_shape().bucket_ms != config.bucket_ms:
            return
        since_ms = max([covered.first_ms, *(gap[1] for gap in covered.gaps)])
        starts = to_carry(since_ms, first_ms, closed_ms, bucket_ms=config.bucket_ms)
        known = snapshots.statistics(tag, config, from_ms=first_ms, through_ms=closed_ms)
        if starts is None or (known is not None and known.since_ms <= starts.start):
            return
        starts = starts[: max(0, covered.through_ms - starts.start) // config.bucket_ms]
        if starts.stop < first_ms:
            log.warning("statistics_not_rebuilt", partition=tag, reason=f"{archive} ends too early")
            return
        carrier = StatisticsCarrier(config, len(names))
        slot_of = {name.decode(): slot for slot, name in enumerate(names)}
        for start_ms, values_TSF in _portions(files, tag, slot_of, starts):
            carrier.carry(values_TSF, start_ms)
    except (SurgecastError, OSError) as error:
        log.warning("statistics_not_rebuilt", partition=tag, reason=str(error))
        return
    span = {"since_ms": starts.start, "through_ms": starts.stop}
    snapshots.keep_statistics(tag, carrier.snapshot(), config, **span)
    log.info("statistics_rebuilt", partition=tag, **span)


def _portions(
    files: ArchiveFiles, tag: Tag, slot_of: Mapping[str, int], starts: range
) -> Iterator[tuple[int, Floats]]:
    """Start and values [T, S, F] of the buckets at `starts`, at most a day of them at a time."""
    width = starts.step
    most_ms = max(1, _ROWS // len(slot_of)) * width
    for day_ms in range(starts.start // DAY_MS * DAY_MS, starts.stop, DAY_MS):
        rows = files.read(tag, day_ms)
        first_ms, end_ms = max(day_ms, starts.start), min(day_ms + DAY_MS, starts.stop)
        for start_ms in range(first_ms, end_ms, most_ms):
            stop_ms = min(start_ms + most_ms, end_ms)
            part = rows.within(start_ms, stop_ms)
            slot_R = np.array([slot_of.get(name, -1) for name in part.series_R], np.int64)
            here = slot_R >= 0
            values_TSF = np.zeros(
                ((stop_ms - start_ms) // width, len(slot_of), N_FEATURES), np.float32
            )
            bucket_R = (part.start_R[here] - start_ms) // width
            values_TSF[bucket_R, slot_R[here]] = part.values_RF[here]
            yield start_ms, values_TSF
