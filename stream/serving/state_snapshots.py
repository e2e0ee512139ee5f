"""Snapshots of the states of partitions: files in the registry, pointers to them in the store.

A worker that acquires a partition, or warms up a model, loads a snapshot and steps it over the
buckets closed since, instead of weeks of history. The files are stored with the models, where all
workers reach them. The pointers name model, file and end of each snapshot: an emptied or refilled
store invalidates every file. Each partition has snapshots of a few models: the serving one, the one
before it, and a candidate. Files are a cache: a damaged one costs a warm-up.

Snapshots of the statistics alone are inherited by models without a snapshot of their own. They are
half of the stored history apart, so that one is always followed by stored buckets.
"""

import json
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import uuid4

import fsspec
import redis
import structlog
from redis.exceptions import RedisError
from torch import Tensor

from model.config import ModelConfig
from model.errors import ModelError
from model.inference.forecaster import Forecaster, NetworkForecaster, States
from model.inference.network_states import NetworkStates, read_statistics
from model.inputs.statistics_identity import statistics_identity
from stream.state import keys
from stream.state.keys import Tag

log = structlog.get_logger(__name__)

_POINTERS: Final = "kept"
_STATISTICS: Final = "statistics"
#: Snapshots of a partition: those of the models with the newest states.
MODELS: Final = 3
#: Larger states of a series than this, in bytes, are not saved.
MAX_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class Snapshot:
    """States of a partition as of the end of the bucket before `through_ms`.

    Their statistics are of the buckets from `since_ms` on.
    """

    states: States
    through_ms: int
    since_ms: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics [S, I] of the first series, of the buckets from `since_ms` to `through_ms`."""

    rows_SI: Tensor
    through_ms: int
    since_ms: int


@dataclass(frozen=True, slots=True)
class _Kept:
    """A file of statistics."""

    file: str
    identity: str
    through_ms: int
    since_ms: int


class Snapshots:
    """Snapshots under one folder or fsspec URL, written by a thread of its own, one at a time."""

    def __init__(self, client: redis.Redis, path: str) -> None:
        filesystem, root = fsspec.core.url_to_fs(path)
        self._client = client
        self._fs: Any = filesystem
        self._root = root.rstrip("/")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._saving: dict[Tag, Future[None]] = {}
        self._closed = False

    def load(self, tag: Tag, forecaster: Forecaster) -> Snapshot | None:
        """The snapshot of a partition's states of a model; None if there is no usable one."""
        try:
            if not isinstance(forecaster, NetworkForecaster):
                return None
            pointer = self._pointers(tag).get(forecaster.model_id)
            if pointer is None:
                return None
            states = forecaster.restore(self._fs.cat_file(self._at(pointer["file"])))
        except (RedisError, OSError, ModelError, KeyError, ValueError) as error:
            log.warning("states_not_loaded", partition=tag, reason=str(error))
            return None
        return Snapshot(states, pointer["through_ms"], pointer["since_ms"])

    def statistics(
        self, tag: Tag, config: ModelConfig, *, from_ms: int, through_ms: int | None
    ) -> Statistics | None:
        """Statistics that a model may inherit while it is carried over the stored history.

        They know buckets before `from_ms`, and are as of a time from then on, before the end of the
        bucket that ends at `through_ms` (None: the newest closed one). Of these the ones carried
        the longest, and then the oldest: the rest of the way is exact. None if there are none.
        """
        try:
            if through_ms is None:
                closed: Any = self._client.hget(keys.of(tag, "meta"), "closed_through_ms")
                through_ms = int(closed or 0)
            identity = statistics_identity(config)
            usable = [
                kept
                for kept in self._statistics(tag)
                if kept.identity == identity
                and kept.since_ms < from_ms <= kept.through_ms < through_ms
            ]
            if not usable:
                return None
            best = min(usable, key=lambda kept: (kept.since_ms, kept.through_ms))
            rows_SI = read_statistics(self._fs.cat_file(self._at(best.file)), config)
        except (RedisError, OSError, ModelError, TypeError, ValueError) as error:
            log.warning("statistics_not_loaded", partition=tag, reason=str(error))
            return None
        return Statistics(rows_SI, best.through_ms, best.since_ms)

    def save(
        self, tag: Tag, forecaster: Forecaster, states: States, through_ms: int, *, since_ms: int
    ) -> bool:
        """Copy the states and write them in the background, and at times their statistics alone.

        False while the write before is under way, and after `close`. A failed write is logged; the
        snapshot before it stays.
        """
        saving = self._saving.get(tag)
        if self._closed or (saving is not None and not saving.done()):
            return False
        if not isinstance(states, NetworkStates):
            return True  # a baseline warms up at once
        model_id = forecaster.model_id
        # a transformer's cache is as long as its history
        payload = states.snapshot(model_id) if states.bytes_per_series <= MAX_BYTES else None
        statistics = states.statistics_snapshot()
        kept = _Kept(f"statistics-{_new_name(tag)}", states.identity, through_ms, since_ms)

        def write() -> None:
            if payload is not None:
                self._write(tag, model_id, payload, through_ms, since_ms)
            self._write_statistics(tag, statistics, kept)

        self._saving[tag] = self._thread.submit(write)
        return True

    def keep_statistics(
        self, tag: Tag, payload: bytes, config: ModelConfig, *, through_ms: int, since_ms: int
    ) -> None:
        """Write statistics (`dump_statistics`) unless others make them superfluous."""
        name = f"statistics-{_new_name(tag)}"
        kept = _Kept(name, statistics_identity(config), through_ms, since_ms)
        self._thread.submit(self._write_statistics, tag, payload, kept).result()

    def close(self, *, hurried: bool = False) -> None:
        """Wait for the writes; no further one begins. If `hurried`, queued ones do not either."""
        self._closed = True
        self._thread.shutdown(cancel_futures=hurried)

    def _write(
        self, tag: Tag, model_id: str, payload: bytes, through_ms: int, since_ms: int
    ) -> None:
        name = _new_name(tag)
        key = keys.of(tag, _POINTERS)
        try:
            before = self._pointers(tag)
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(self._at(name), payload)
            pointer = {"through_ms": through_ms, "since_ms": since_ms, "file": name}
            self._client.hset(key, model_id, json.dumps(pointer))
            gone = _superseded(before, model_id)
            if gone.keys() - {model_id}:
                self._client.hdel(key, *(gone.keys() - {model_id}))
            for file in gone.values():
                self._fs.rm_file(self._at(file))
        except (RedisError, OSError, ValueError) as error:
            log.warning("states_not_kept", partition=tag, reason=str(error))

    def _write_statistics(self, tag: Tag, payload: bytes, new: _Kept) -> None:
        """Write statistics if they are due, and delete those that no stored bucket follows."""
        key = keys.of(tag, _STATISTICS)
        try:
            first: Any = self._client.hget(keys.of(tag, "meta"), "first_bucket_ms")
            first_ms = new.since_ms if first is None else int(first)
            known = self._statistics(tag)
            if not _is_due(new, known, first_ms=first_ms):
                return
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(self._at(new.file), payload)
            self._client.hset(key, new.file, json.dumps(asdict(new)))
            for old in known:
                if old.through_ms < first_ms:
                    self._client.hdel(key, old.file)
                    self._fs.rm_file(self._at(old.file))
        except (RedisError, OSError, TypeError, ValueError) as error:
            log.warning("statistics_not_kept", partition=tag, reason=str(error))

    def _statistics(self, tag: Tag) -> list[_Kept]:
        found: Any = self._client.hvals(keys.of(tag, _STATISTICS))
        return [_Kept(**json.loads(text)) for text in found]

    def _pointers(self, tag: Tag) -> dict[str, dict[str, Any]]:
        """Model id → file and end of its snapshot."""
        found: Any = self._client.hgetall(keys.of(tag, _POINTERS))
        return {name.decode(): dict(json.loads(text)) for name, text in found.items()}

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def _superseded(pointers: dict[str, dict[str, Any]], written: str) -> dict[str, str]:
    """Model id → file of the snapshots to delete after a new one of the model `written`.

    >>> old = {"a": {"through_ms": 1, "file": "f"}, "b": {"through_ms": 2, "file": "g"}}
    >>> _superseded(old, "a")
    {'a': 'f'}
    """
    others = sorted(
        (name for name in pointers if name != written),
        key=lambda name: int(pointers[name]["through_ms"]),
    )
    gone = others[: max(0, len(others) + 1 - MODELS)] + ([written] if written in pointers else [])
    return {name: str(pointers[name]["file"]) for name in gone}


def _new_name(tag: Tag) -> str:
    return f"{tag}-{uuid4().hex[:12]}.safetensors"


def _is_due(new: _Kept, known: Collection[_Kept], *, first_ms: int) -> bool:
    """True if no statistics carried as long are newer than half of the stored history.

    >>> kept = _Kept("a", "id", through_ms=60, since_ms=0)
    >>> [_is_due(_Kept("b", "id", at, 0), [kept], first_ms=0) for at in (100, 120)]
    [False, True]
    >>> _is_due(_Kept("b", "id", 61, since_ms=-100), [kept], first_ms=0)
    True
    """
    newest_ms = max(
        (
            kept.through_ms
            for kept in known
            if kept.identity == new.identity and kept.since_ms <= new.since_ms
        ),
        default=None,
    )
    return newest_ms is None or 2 * (new.through_ms - newest_ms) >= new.through_ms - first_ms
