"""Kept states of the partitions: files beside the models, and in the store which of them hold.

A worker that takes a partition over, or another model into service, reads states from here and
steps them over what has closed since, in place of weeks of history. The bulk lies where the models
lie, which all workers reach; the store says whose states a file holds and through when, so a store
that was emptied or filled anew makes every file void. Of each partition the states of a few models
are kept: the one that serves, the one before it, and one that is to come. Files are a cache:
whatever is wrong with one costs a warm-up.
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
#: Models whose states are kept of a partition: those with the newest states.
MODELS: Final = 3
#: States of a series that are longer than this are not kept.
MAX_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class Snapshot:
    """States of a partition as of the end of the bucket before `through_ms`."""

    states: States
    through_ms: int


class Snapshots:
    """Kept states under one folder or fsspec URL. Saved by a thread of its own, one at a time."""

    def __init__(self, client: redis.Redis, path: str) -> None:
        filesystem, root = fsspec.core.url_to_fs(path)
        self._client = client
        self._fs: Any = filesystem
        self._root = root.rstrip("/")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._saving: dict[Tag, Future[None]] = {}
        self._closed = False

    def load(self, tag: Tag, forecaster: Forecaster) -> Snapshot | None:
        """The states kept of a partition for this model; None where there are none to be had."""
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
        """Copy the states and begin to write them.

        False when the last ones are still on the way, or this is closed.
        What fails is logged: the states kept before hold on.
        """
        saving = self._saving.get(tag)
        if self._closed or (saving is not None and not saving.done()):
            return False
        # A baseline is warmed up in no time, a transformer's cache is as long as what made it.
        if isinstance(states, NetworkStates) and states.bytes_per_series <= MAX_BYTES:
            model_id = forecaster.model_id
            payload = states.snapshot(model_id)
            self._saving[tag] = self._thread.submit(self._write, tag, model_id, payload, through_ms)
        return True

    def close(self) -> None:
        """Wait for what is being written; nothing is from then on."""
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
        """Model id → file of its states and through when they are."""
        found: Any = self._client.hgetall(keys.of(tag, _POINTERS))
        return {name.decode(): dict(json.loads(text)) for name, text in found.items()}

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def _superseded(pointers: dict[str, dict[str, Any]], written: str) -> dict[str, str]:
    """Model id → file of what goes when new states of the model `written` have come.

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
