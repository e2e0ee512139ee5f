"""Restores an archive into an empty store, bit for bit, so that workers continue at its end.

Restores blocks, series lists in slot order, the catalog, roll-ups and the close of each partition.
Workers must then read on without losing or double-counting an event. Each run of `surgecast
archive` records every partition's position in its topics (a *mark*). If the newest event before a
mark is older than the archive's end, all events before the mark are archived, and all events of
later buckets follow it. Reading continues at the newest such mark; events between it and the
archive's end are late, since their buckets are final. Without such a mark, reading starts at the
earliest record.

Stock readings may be read twice, since each replaces the one before. The levels at the archive's
end come from its last block; the topic is read from its earliest record, and readings from before
the end change no final bucket.

Axes: S = series slots, F = features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis import Redis
from redis.exceptions import RedisError

from model.durations import DAY_MS
from stream.errors import IncompatibleState, ServiceUnavailable
from stream.features.definitions import N_FEATURES, STOCK
from stream.jobs.archive.files import ArchiveFiles, Covered, Rows, absolute
from stream.jobs.archive.history import covered_parts, span
from stream.jobs.backfill import BackfillReport, claim, write_info
from stream.partition.stock_levels import levels_block
from stream.settings import Settings
from stream.state import keys
from stream.state.closed_buckets import closed_pages
from stream.state.keys import ROLLUPS, Tag
from stream.topics import INVENTORY

#: Fields of a mark about the stock readings.
_OF_INVENTORY = frozenset(f"{field}:{INVENTORY.name}" for field in ("offset", "newest_ms"))


@dataclass(frozen=True, slots=True)
class RestoreReport(BackfillReport):
    """What was written, and the partitions with neither a mark nor an earliest offset."""

    unplaced: tuple[int, ...] = ()


def restore_archive(
    settings: Settings,
    client: "Redis",
    path: str,
    *,
    force: bool = False,
    earliest: Callable[[int], Mapping[str, int]] | None = None,
) -> RestoreReport:
    """Write the last `state.retention` of an archive into the store.

    `earliest` returns the first offsets of a partition's topics, used if no mark fits. Raises
    IncompatibleState if the store is not empty, unless `force`, or if the settings have another
    bucket width or number of partitions; UsageError if there is no archive; ServiceUnavailable.
    """
    files = ArchiveFiles(path)
    shape = files.required_shape()
    width = shape.bucket_ms
    if (width, shape.partitions) != (settings.window.bucket, settings.kafka.partitions):
        raise IncompatibleState(
            f"archive {path} has buckets of {width} ms in {shape.partitions} partitions; set "
            f"window.bucket and kafka.partitions to these values (now {settings.window.bucket} ms "
            f"and {settings.kafka.partitions})"
        )
    parts = covered_parts(files, shape.partitions)
    first_ms, end_ms = span(files, parts)
    start_ms = max(first_ms, end_ms - settings.state.retention // width * width)
    unplaced = []
    try:
        claim(client, [*range(shape.partitions), ROLLUPS], force=force)
        write_info(client, settings, shape.partitions, shape.labels)
        client.set(keys.archive(), absolute(path))
        for tag, part in parts.items():
            since_ms = max(start_ms, min(part.first_ms, end_ms))
            for day_ms in range(since_ms // DAY_MS * DAY_MS, end_ms, DAY_MS):
                rows = files.read(tag, day_ms).within(since_ms, end_ms)
                blobs = {
                    keys.of(tag, *path): page
                    for at_ms, values_SF in blocks(rows, part.series)
                    for path, page in closed_pages(at_ms, values_SF).items()
                }
                if blobs:
                    client.mset(blobs)
            mark: Mapping[str, str] = {}
            if isinstance(tag, int):
                last = files.read(tag, (end_ms - width) // DAY_MS * DAY_MS)
                levels = levels_at_end(last.within(end_ms - width, end_ms), part.series)
                if levels:
                    client.set(keys.of(tag, "levels"), levels)
                mark = usable_mark(part, end_ms) or _earliest(earliest, tag)
                if not mark:
                    unplaced.append(tag)
            _make_visible(client, tag, part, mark, start_ms=since_ms, end_ms=end_ms)
    except RedisError as error:
        raise ServiceUnavailable(
            f"the store failed while it was filled: {error}; "
            "start it, then run the command again with --force"
        ) from None
    plain = [part for tag, part in parts.items() if tag != ROLLUPS]
    return RestoreReport(
        start_ms=start_ms,
        end_ms=end_ms,
        buckets=(end_ms - start_ms) // width,
        series=sum(len(part.series) for part in plain),
        rollups=len(parts[ROLLUPS].series),
        unplaced=tuple(unplaced),
    )


def blocks(rows: Rows, series: list[str]) -> list[tuple[int, NDArray[np.float32]]]:
    """Start and values [S, F] of each stored block, with its original number of slots.

    >>> one_RF = np.ones((1, N_FEATURES), np.float32)
    >>> rows = Rows(np.array([60]), np.array(["b"], object), one_RF, {60: 2})
    >>> [(start, values_SF[:, 0].tolist()) for start, values_SF in blocks(rows, ["a", "b", "c"])]
    [(60, [0.0, 1.0])]
    """
    slot_of = {name: slot for slot, name in enumerate(series)}
    slot_R = np.array([slot_of[name] for name in rows.series_R], np.int64)
    result = []
    for start, length in sorted(rows.blocks.items()):
        low, high = np.searchsorted(rows.start_R, [start, start + 1])
        values_SF = np.zeros((length, N_FEATURES), np.float32)
        values_SF[slot_R[low:high]] = rows.values_RF[low:high]
        result.append((start, values_SF))
    return result


def levels_at_end(last: Rows, series: list[str]) -> bytes:
    """Stock levels after the last bucket, from its rows; empty if none is known."""
    stock = [values_SF[:, STOCK] for _, values_SF in blocks(last, series)]
    known = [stock_S for stock_S in stock if stock_S.any()]
    return levels_block(known[-1]) if known else b""


def usable_mark(part: Covered, end_ms: int) -> dict[str, str] | None:
    """The newest mark with only events older than `end_ms` before it; None if there is none.

    >>> old = {"offset:orders": "5", "newest_ms:orders": "50"}
    >>> new = {"offset:orders": "9", "newest_ms:orders": "61"}
    >>> usable_mark(Covered(0, 60, marks=[old, new]), 60)
    {'offset:orders': '5', 'newest_ms:orders': '50'}
    """
    for recorded in reversed(part.marks):
        mark = {name: text for name, text in recorded.items() if name not in _OF_INVENTORY}
        newest = [int(text) for name, text in mark.items() if name.startswith("newest_ms:")]
        if newest and max(newest) < end_ms:
            return mark
    return None


def _earliest(earliest: Callable[[int], Mapping[str, int]] | None, number: int) -> dict[str, str]:
    if earliest is None:
        return {}
    return {f"offset:{topic}": str(offset) for topic, offset in earliest(number).items()}


def _make_visible(
    client: Any,
    tag: Tag,
    part: Covered,
    mark: Mapping[str, str],
    *,
    start_ms: int,
    end_ms: int,
) -> None:
    """Make a partition's blocks visible, in one transaction."""
    times = {
        "first_bucket_ms": str(start_ms),
        "closed_through_ms": str(end_ms),
        "emitted_through_ms": str(end_ms),
    }
    with client.pipeline(transaction=True) as block:
        block.delete(*(keys.of(tag, name) for name in ("series", "categories", "listings")))
        if part.series:
            block.rpush(keys.of(tag, "series"), *part.series)
        if part.categories:
            block.hset(keys.of(tag, "categories"), mapping=part.categories)
        if part.listings:
            block.hset(keys.of(tag, "listings"), mapping=part.listings)
        block.hset(keys.of(tag, "meta"), mapping={**mark, **times})
        block.execute()
