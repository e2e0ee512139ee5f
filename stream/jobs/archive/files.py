"""Reads and writes the archive: closed buckets beyond the store's retention, as Parquet files.

Layout under a folder or any fsspec URL:

    archive.json                               layout: bucket_ms, partitions, spec_hash …
    _partitions/{tag}.json                     series by slot, catalog, coverage, marks
    bucket_date=YYYY-MM-DD/part-{tag}.parquet  the buckets that start on that day, UTC

A part has one row per bucket and series with a value other than zero: series_id, bucket_start_ms,
bucket_ms, the feature columns (float32), spec_hash. Its metadata has the number of slots of each
stored block, so that a block is restored bit for bit. Files are replaced atomically; rows at or
after a partition's `through_ms` are left over from an interrupted run and are ignored.

Axes: R = rows, S = series slots, F = features.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model.contract import FEATURE_NAMES, FeatureSpec
from stream.errors import IncompatibleState, ServiceUnavailable, UsageError
from stream.features.definitions import N_FEATURES
from stream.state.keys import Tag

VERSION: Final = 1
_BLOCKS: Final = b"surgecast_blocks"


@dataclass(frozen=True, slots=True)
class Shape:
    """Layout of an archive; a store of another layout is refused."""

    bucket_ms: int
    partitions: int
    labels: Mapping[str, str] = field(default_factory=dict)
    feature_names: Sequence[str] = tuple(FEATURE_NAMES)
    spec_hash: str = FeatureSpec().hash
    version: int = VERSION


@dataclass(slots=True)
class Covered:
    """Coverage of a partition: buckets ``[first_ms, through_ms)`` without `gaps`.

    `marks` are positions of the partition in its topics, oldest first, copied from the store's meta
    at each run; `stream/jobs/archive/restore.py` uses them. `listings` are encoded as in the store.
    """

    first_ms: int
    through_ms: int
    series: list[str] = field(default_factory=list)
    categories: dict[str, str] = field(default_factory=dict)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    marks: list[dict[str, str]] = field(default_factory=list)
    listings: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Rows:
    """Rows of one part, sorted by bucket and slot; `blocks` maps bucket starts to slot counts."""

    start_R: NDArray[np.int64]
    series_R: NDArray[np.object_]
    values_RF: NDArray[np.float32]
    blocks: dict[int, int]

    @classmethod
    def none(cls) -> "Rows":
        """An empty part."""
        return cls(
            np.zeros(0, np.int64), np.zeros(0, object), np.zeros((0, N_FEATURES), np.float32), {}
        )

    def within(self, start_ms: int, end_ms: int) -> "Rows":
        """Select the buckets that start in ``[start_ms, end_ms)``."""
        kept = (self.start_R >= start_ms) & (self.start_R < end_ms)
        blocks = {at: n for at, n in self.blocks.items() if start_ms <= at < end_ms}
        return Rows(self.start_R[kept], self.series_R[kept], self.values_RF[kept], blocks)

    def followed_by(self, other: "Rows") -> "Rows":
        """Concatenate these rows and the other's."""
        return Rows(
            np.concatenate([self.start_R, other.start_R]),
            np.concatenate([self.series_R, other.series_R]),
            np.concatenate([self.values_RF, other.values_RF]),
            self.blocks | other.blocks,
        )


class ArchiveFiles:
    """Files of the archive at `path`. All methods raise ServiceUnavailable if the storage fails."""

    def __init__(self, path: str) -> None:
        self.path = path
        filesystem, root = fsspec.core.url_to_fs(path)
        self._fs: Any = filesystem
        self._root: str = root.rstrip("/")
        protocol = filesystem.protocol
        self._local = "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def shape(self) -> Shape | None:
        """Read the archive's layout; None if there is no archive. Raises IncompatibleState."""
        document = self._document("archive.json")
        if document is None:
            return None
        if document.get("version") != VERSION or document.get("spec_hash") != FeatureSpec().hash:
            raise IncompatibleState(
                f"archive {self.path} has version {document.get('version')} and features "
                f"{document.get('spec_hash')}; this build reads version {VERSION} and features "
                f"{FeatureSpec().hash}"
            )
        return Shape(**document | {"feature_names": tuple(document["feature_names"])})

    def required_shape(self) -> Shape:
        """Read the archive's layout. Raises UsageError if there is no archive."""
        shape = self.shape()
        if shape is None:
            raise UsageError(
                f"{self.path} is not an archive (it has no archive.json); "
                f"create one: surgecast archive --to {self.path}"
            )
        return shape

    def describe(self, shape: Shape) -> None:
        """Write the archive's layout."""
        self._put("archive.json", json.dumps(asdict(shape)).encode())

    def covered(self, tag: Tag) -> Covered | None:
        """Read a partition's coverage; None if none of it is archived."""
        document = self._document(f"_partitions/{tag}.json")
        if document is None:
            return None
        return Covered(**document | {"gaps": [(low, high) for low, high in document["gaps"]]})

    def cover(self, tag: Tag, covered: Covered) -> None:
        """Write a partition's coverage, which makes the rows before its `through_ms` valid."""
        document = asdict(covered)
        if not covered.listings:
            del document["listings"]
        self._put(f"_partitions/{tag}.json", json.dumps(document).encode())

    def read(self, tag: Tag, day_ms: int) -> Rows:
        """Read a partition's rows of a day; empty if there is no part."""
        try:
            payload = self._fs.cat_file(self._part(tag, day_ms))
        except FileNotFoundError:
            return Rows.none()
        except OSError as error:
            raise ServiceUnavailable(f"archive {self.path}: {error}") from None
        table = pq.ParquetFile(io.BytesIO(payload)).read()
        blocks = json.loads((table.schema.metadata or {}).get(_BLOCKS, b"{}"))
        columns = [table[name].to_numpy() for name in FEATURE_NAMES]
        return Rows(
            table["bucket_start_ms"].to_numpy().astype(np.int64),
            table["series_id"].to_numpy(zero_copy_only=False),
            np.stack(columns, axis=1).astype(np.float32, copy=False),
            {int(start): int(n) for start, n in blocks.items()},
        )

    def write(self, tag: Tag, day_ms: int, rows: Rows, *, bucket_ms: int) -> None:
        """Replace a partition's part of a day; a part without blocks is not written."""
        if not rows.blocks:
            return
        n = len(rows.start_R)
        columns: dict[str, Any] = {
            "series_id": pa.array(rows.series_R, pa.string()),
            "bucket_start_ms": pa.array(rows.start_R, pa.int64()),
            "bucket_ms": pa.array(np.full(n, bucket_ms), pa.int64()),
        }
        for place, name in enumerate(FEATURE_NAMES):
            columns[name] = pa.array(np.ascontiguousarray(rows.values_RF[:, place]), pa.float32())
        columns["spec_hash"] = pa.array([FeatureSpec().hash] * n, pa.string())
        blocks = json.dumps(rows.blocks).encode()
        table = pa.table(columns).replace_schema_metadata({_BLOCKS: blocks})
        payload = io.BytesIO()
        pq.write_table(table, payload, compression="zstd")
        self._put(self._part(tag, day_ms)[len(self._root) + 1 :], payload.getvalue())

    def _part(self, tag: Tag, day_ms: int) -> str:
        date = f"{datetime.fromtimestamp(day_ms / 1000, UTC):%Y-%m-%d}"
        return f"{self._root}/bucket_date={date}/part-{tag}.parquet"

    def _document(self, name: str) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self._fs.cat_file(f"{self._root}/{name}")))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise IncompatibleState(
                f"{self.path}/{name} is damaged: {error}; restore the file from a copy"
            ) from None
        except OSError as error:
            raise ServiceUnavailable(f"archive {self.path}: {error}") from None

    def _put(self, name: str, payload: bytes) -> None:
        """Replace a file atomically: by renaming on a local disk, elsewhere by the storage."""
        target = f"{self._root}/{name}"
        try:
            if not self._local:
                self._fs.pipe_file(target, payload)
                return
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            temporary = f"{target.rpartition('/')[0]}/.{uuid4().hex}"
            self._fs.pipe_file(temporary, payload)
            self._fs.mv(temporary, target)
        except OSError as error:
            raise ServiceUnavailable(f"archive {self.path} cannot be written: {error}") from error


def absolute(path: str) -> str:
    """The path of an archive for processes in other folders; a URL stays.

    >>> absolute("s3://shop/demand"), absolute("/srv/demand")
    ('s3://shop/demand', '/srv/demand')
    """
    return path if "://" in path else str(Path(path).resolve())


def is_archive(path: str) -> bool:
    """True if there is an archive at `path`."""
    filesystem, root = fsspec.core.url_to_fs(path)
    return bool(filesystem.exists(f"{root.rstrip('/')}/archive.json"))
