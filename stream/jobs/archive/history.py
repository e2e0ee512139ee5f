"""Reads an archive as training history: one dense block of the largest series and the roll-ups.

Axes: R = rows, T = buckets, S = series, F = features.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS
from stream.decoding.catalog import Listing
from stream.errors import UsageError
from stream.features.definitions import N_FEATURES, UNITS
from stream.jobs.archive.files import ArchiveFiles, Covered, Rows
from stream.state import keys
from stream.state.keys import ROLLUPS, Tag

if TYPE_CHECKING:
    from redis import Redis

    from model.training.dataset import History


def read_archive(
    path: str,
    start_ms: int | None = None,
    end_ms: int | None = None,
    *,
    largest: int | None = None,
    only: Sequence[str] | None = None,
    max_span_ms: int | None = None,
) -> "History":
    """Read the buckets of ``[start_ms, end_ms)``, by default all after the archive's last gap.

    `largest`: only this many series, those with most units, and the roll-ups. `only`: these series
    in this order, zero where the archive has none of them. `max_span_ms`: at most this span before
    the end. Roll-ups come last, as in `stream.jobs.history.from_files`. Raises UsageError if there
    is no archive or it does not cover the span.
    """
    from model.training.dataset import History  # torch is slow to import
    from stream.serving.static_features import static_features

    files = ArchiveFiles(path)
    shape = files.required_shape()
    parts = covered_parts(files, shape.partitions)
    first_ms, last_ms = span(files, parts)
    width = shape.bucket_ms
    end_ms = last_ms if end_ms is None else end_ms // width * width
    if start_ms is None:
        start_ms = first_ms if max_span_ms is None else max(first_ms, end_ms - max_span_ms)
    start_ms = start_ms // width * width
    if start_ms < first_ms or end_ms > last_ms or start_ms >= end_ms:
        raise UsageError(
            f"archive {path} has the buckets from {first_ms} to {last_ms} without a gap; "
            f"{start_ms} to {end_ms} is not within this span"
        )
    names = [name for tag, part in parts.items() if tag != ROLLUPS for name in part.series]
    names += parts[ROLLUPS].series
    units_S = np.zeros(len(names))
    place = {name: slot for slot, name in enumerate(names)}
    if largest is not None:
        for rows in _rows(files, parts, start_ms, end_ms):
            slot_R = np.array([place[name] for name in rows.series_R], np.int64)
            np.add.at(units_S, slot_R, rows.values_RF[:, UNITS].astype(np.float64))
        n_plain = len(names) - len(parts[ROLLUPS].series)
        chosen = np.sort(np.argsort(-units_S[:n_plain], kind="stable")[:largest])
        names = [names[slot] for slot in chosen.tolist()] + parts[ROLLUPS].series
        place = {name: slot for slot, name in enumerate(names)}
    if only is not None:
        names = list(only)
        place = {name: slot for slot, name in enumerate(names)}
    values_TSF = np.zeros(((end_ms - start_ms) // width, len(names), N_FEATURES), np.float32)
    for rows in _rows(files, parts, start_ms, end_ms):
        _put(values_TSF, rows, place, start_ms=start_ms, bucket_ms=width)
    categories = {sku: name for part in parts.values() for sku, name in part.categories.items()}
    listings = {
        sku: Listing.read(stored)
        for part in parts.values()
        for sku, stored in part.listings.items()
    }
    return History(values_TSF, start_ms, width, names, static_features(names, categories, listings))


def archive_of(client: "Redis") -> str | None:
    """Path of the archive that is filled from a store; None if there is none.

    Raises RedisError.
    """
    found: Any = client.get(keys.archive())
    return None if found is None else found.decode()


def _put(
    values_TSF: NDArray[np.float32],
    rows: Rows,
    place: dict[str, int],
    *,
    start_ms: int,
    bucket_ms: int,
) -> None:
    slot_R = np.array([place.get(name, -1) for name in rows.series_R], np.int64)
    here = slot_R >= 0
    bucket_R = (rows.start_R[here] - start_ms) // bucket_ms
    values_TSF[bucket_R, slot_R[here]] = rows.values_RF[here]


def covered_parts(files: ArchiveFiles, partitions: int) -> dict[Tag, Covered]:
    """The parts of all partitions, roll-ups last. Raises UsageError if one is missing."""
    parts: dict[Tag, Covered] = {}
    for tag in (*range(partitions), ROLLUPS):
        covered = files.covered(tag)
        if covered is None:
            raise UsageError(
                f"archive {files.path} has no part of partition {tag} yet; run surgecast archive"
            )
        parts[tag] = covered
    return parts


def span(files: ArchiveFiles, parts: dict[Tag, Covered]) -> tuple[int, int]:
    """Start and end of the last gapless span that all partitions cover.

    A partition that begins later than the others had no events before. Raises UsageError if the
    span is empty.
    """
    first_ms = min(part.first_ms for part in parts.values())
    first_ms = max([first_ms, *(gap[1] for part in parts.values() for gap in part.gaps)])
    through_ms = min(part.through_ms for part in parts.values())
    if first_ms >= through_ms:
        raise UsageError(
            f"archive {files.path} has no bucket that all partitions have closed; "
            "run surgecast archive once more buckets have closed"
        )
    return first_ms, through_ms


def _rows(
    files: ArchiveFiles, parts: dict[Tag, Covered], start_ms: int, end_ms: int
) -> Iterator[Rows]:
    for day_ms in range(start_ms // DAY_MS * DAY_MS, end_ms, DAY_MS):
        for tag in parts:
            yield files.read(tag, day_ms).within(start_ms, end_ms)
