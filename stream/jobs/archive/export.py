"""`surgecast archive`: copies closed buckets from the store to Parquet before retention drops them.

Copies partition by partition and day by day, continuing where the last run ended. A bucket is
archived once every partition *and* the roll-ups have closed it, so that all partitions end at the
same time. An interrupted run can be repeated with the same result. Writes nothing to the store but
the archive's place, where the trainer looks it up, so it may run at any time while workers run.

Axes: S = series slots, F = features.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from redis import Redis
from redis.exceptions import RedisError

from model.contract import FeatureSpec
from model.durations import DAY_MS
from stream.errors import IncompatibleState, ServiceUnavailable
from stream.jobs.archive.files import ArchiveFiles, Covered, Rows, Shape, absolute
from stream.state import keys
from stream.state.closed_buckets import closed_paths, closed_values
from stream.state.keys import ROLLUPS, Tag

_BLOCKS_PER_REQUEST: Final = 64
_MAX_MARKS: Final = 400
#: Meta fields with a partition's position in its topics, and the identity of the topics.
_MARK: Final = ("offset:", "newest_ms:", "topic_id:", "cluster")


@dataclass(frozen=True, slots=True)
class ArchiveReport:
    """What a run added: blocks, rows, lost buckets (`gaps`); the archive's end (None: empty)."""

    blocks: int = 0
    rows: int = 0
    through_ms: int | None = None
    gaps: int = 0


@dataclass(slots=True)
class _Stored:
    """A partition's registries in the store."""

    meta: dict[str, str]
    series: list[str]
    categories: dict[str, str]
    listings: dict[str, str]


def archive(
    client: "Redis", path: str, *, progress: Callable[[Tag, int], None] | None = None
) -> ArchiveReport:
    """Append to the archive at `path` the buckets closed since the last run.

    `client` must not decode responses; `progress` receives each partition and day (ms) when done.
    Raises IncompatibleState if store and archive do not match, ServiceUnavailable if one of them
    does not answer.
    """
    files = ArchiveFiles(path)
    try:
        shape = _shape(client, files)
        if shape is None:
            return ArchiveReport()
        through = client.hget(keys.of(ROLLUPS, "meta"), "closed_through_ms")
        if through is None:
            return ArchiveReport()
        end_ms = int(through)
        client.set(keys.archive(), absolute(path))
        blocks = rows = gaps = 0
        for tag in (*range(shape.partitions), ROLLUPS):
            job = _Partition(client, files, tag, shape.bucket_ms, progress)
            job.run(end_ms)
            blocks, rows, gaps = blocks + job.blocks, rows + job.rows, gaps + job.gaps
    except RedisError as error:
        raise ServiceUnavailable(
            f"the store failed while it was archived: {error}; start it and run the command again"
        ) from None
    return ArchiveReport(blocks, rows, end_ms, gaps)


def _shape(client: Any, files: ArchiveFiles) -> Shape | None:
    """Return the common layout of store and archive; write it to a new archive."""
    info = json.loads(client.get(keys.info()) or b"{}")
    if not info:
        return None
    if info["spec_hash"] != FeatureSpec().hash:
        raise IncompatibleState(
            f"the store has features {info['spec_hash']}, this build has {FeatureSpec().hash}"
        )
    shape = Shape(info["bucket_ms"], info["partitions"], info.get("labels", {}))
    known = files.shape()
    if known is not None and (known.bucket_ms, known.partitions) != (
        shape.bucket_ms,
        shape.partitions,
    ):
        raise IncompatibleState(
            f"archive {files.path} has buckets of {known.bucket_ms} ms in {known.partitions} "
            f"partitions, the store {shape.bucket_ms} ms in {shape.partitions}; "
            "use another folder: --to"
        )
    if known != shape:
        files.describe(shape)
    return shape


class _Partition:
    """Copies one partition into the archive."""

    def __init__(
        self,
        client: Any,
        files: ArchiveFiles,
        tag: Tag,
        bucket_ms: int,
        progress: Callable[[Tag, int], None] | None,
    ) -> None:
        self._client = client
        self._files = files
        self._tag = tag
        self._bucket_ms = bucket_ms
        self._progress = progress
        self.blocks = self.rows = self.gaps = 0

    def run(self, end_ms: int) -> None:
        """Archive the buckets that end at or before `end_ms`."""
        stored = self._stored()
        first_ms = int(stored.meta.get("first_bucket_ms", end_ms))
        covered = self._files.covered(self._tag) or Covered(first_ms, first_ms)
        known, same_slots = covered.series, stored.series[: len(covered.series)] == covered.series
        names = known + [name for name in stored.series if same_slots or name not in set(known)]
        covered.series = stored.series if same_slots else names
        covered.categories |= stored.categories
        covered.listings |= stored.listings
        start_ms = covered.through_ms
        while start_ms < end_ms:
            day_ms = start_ms // DAY_MS * DAY_MS
            stop_ms = min(end_ms, day_ms + DAY_MS)
            new, from_ms = self._read(stored.series, start_ms, stop_ms, same_slots, len(names))
            if from_ms > start_ms:
                self._add_gap(covered, start_ms, min(from_ms, stop_ms))
            old = self._files.read(self._tag, day_ms).within(day_ms, start_ms)
            self._files.write(self._tag, day_ms, old.followed_by(new), bucket_ms=self._bucket_ms)
            self.blocks += len(new.blocks)
            self.rows += len(new.start_R)
            covered.through_ms = start_ms = stop_ms
            self._files.cover(self._tag, covered)
            if self._progress is not None:
                self._progress(self._tag, day_ms)
        mark = {name: text for name, text in stored.meta.items() if name.startswith(_MARK)}
        if mark and mark not in covered.marks[-1:]:
            covered.marks = [*covered.marks, mark][-_MAX_MARKS:]
        self._files.cover(self._tag, covered)

    def _stored(self) -> _Stored:
        with self._client.pipeline(transaction=True) as block:
            block.hgetall(keys.of(self._tag, "meta"))
            block.lrange(keys.of(self._tag, "series"), 0, -1)
            block.hgetall(keys.of(self._tag, "categories"))
            block.hgetall(keys.of(self._tag, "listings"))
            meta, series, categories, listings = block.execute()
        names = [name.decode() for name in series]
        return _Stored(_text(meta), names, _text(categories), _text(listings))

    def _read(
        self, series: list[str], start_ms: int, stop_ms: int, same_slots: bool, slots: int
    ) -> tuple[Rows, int]:
        """Rows of ``[start_ms, stop_ms)``, and the start of the first bucket still in the store."""
        names = np.array(series, object)
        parts = [Rows.none()]
        from_ms = start_ms
        starts = range(start_ms, stop_ms, self._bucket_ms)
        for at in range(0, len(starts), _BLOCKS_PER_REQUEST):
            chunk = starts[at : at + _BLOCKS_PER_REQUEST]
            with self._client.pipeline(transaction=True) as block:
                block.hget(keys.of(self._tag, "meta"), "first_bucket_ms")
                for start in chunk:
                    paths = closed_paths(start, len(series))
                    block.mget([keys.of(self._tag, *path) for path in paths])
                first, *blobs = block.execute()
            # A missing block means no events only if retention has not dropped it. A partition
            # whose first event is later than the others' had no events before.
            first_stored_ms = int(first)
            if first_stored_ms > chunk[0]:
                from_ms = max(from_ms, first_stored_ms)
            for start, stored in zip(chunk, blobs, strict=True):
                values_SF = closed_values(stored)
                if not len(values_SF) or start < first_stored_ms:
                    continue
                here = np.flatnonzero((values_SF != 0).any(axis=1))
                length = len(values_SF) if same_slots else slots
                parts.append(
                    Rows(
                        np.full(len(here), start, np.int64),
                        names[here],
                        values_SF[here],
                        {start: length},
                    )
                )
        rows = parts[0]
        if len(parts) > 1:
            rows = Rows(
                np.concatenate([part.start_R for part in parts]),
                np.concatenate([part.series_R for part in parts]),
                np.concatenate([part.values_RF for part in parts]),
                {start: n for part in parts for start, n in part.blocks.items()},
            )
        return rows, from_ms

    def _add_gap(self, covered: Covered, start_ms: int, end_ms: int) -> None:
        """Record buckets that the store had already dropped: unknown, not zero."""
        self.gaps += (end_ms - start_ms) // self._bucket_ms
        if covered.gaps and covered.gaps[-1][1] == start_ms:
            start_ms = covered.gaps.pop()[0]
        covered.gaps.append((start_ms, end_ms))


def _text(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}
