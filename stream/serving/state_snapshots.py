"""Snapshots of the states of partitions: files in the registry, pointers to them in the store.

A worker that acquires a partition, or warms up a model, loads a snapshot and steps it over the
buckets closed since, instead of weeks of history. The files are stored with the models, where all
workers reach them. The pointers name model, file and end of each snapshot: an emptied or refilled
store invalidates every file. Each partition has snapshots of a few models: the serving one, the one
before it, and a candidate. Files are a cache: a damaged one costs a warm-up.
"""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import fsspec
import redis
import structlog
from redis.exceptions import RedisError

from model.errors import ModelError
from model.inference.forecaster import Forecaster, NetworkForecaster, States
from model.inference.network_states import NetworkStates
from stream.state import keys
from stream.state.keys import Tag

log = structlog.get_logger(__name__)

_POINTERS: Final = "kept"
#: Snapshots of a partition: those of the models with the newest states.
MODELS: Final = 3
#: Larger states of a series than this, in bytes, are not saved.
MAX_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class Snapshot:
    """States of a partition as of the end of the bucket before `through_ms`."""

    states: States
    through_ms: int


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
        return Snapshot(states, pointer["through_ms"])

    def save(self, tag: Tag, forecaster: Forecaster, states: States, through_ms: int) -> bool:
        """Copy the states and write them in the background.

        False while the write before is under way, and after `close`. A failed write is logged; the
        snapshot before it stays.
        """
        saving = self._saving.get(tag)
        if self._closed or (saving is not None and not saving.done()):
            return False
        # A baseline warms up at once; a transformer's cache is as long as its history.
        if isinstance(states, NetworkStates) and states.bytes_per_series <= MAX_BYTES:
            model_id = forecaster.model_id
            payload = states.snapshot(model_id)
            self._saving[tag] = self._thread.submit(self._write, tag, model_id, payload, through_ms)
        return True

    def close(self) -> None:
        """Wait for the writes under way; no further one begins."""
        self._closed = True
        self._thread.shutdown()

    def _write(self, tag: Tag, model_id: str, payload: bytes, through_ms: int) -> None:
        name = f"{tag}-{uuid4().hex[:12]}.safetensors"
        key = keys.of(tag, _POINTERS)
        try:
            before = self._pointers(tag)
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(self._at(name), payload)
            pointer = {"through_ms": through_ms, "file": name}
            self._client.hset(key, model_id, json.dumps(pointer))
            gone = _superseded(before, model_id)
            if gone.keys() - {model_id}:
                self._client.hdel(key, *(gone.keys() - {model_id}))
            for file in gone.values():
                self._fs.rm_file(self._at(file))
        except (RedisError, OSError, ValueError) as error:
            log.warning("states_not_kept", partition=tag, reason=str(error))

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
