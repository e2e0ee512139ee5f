"""Kept states of the partitions: files beside the models, and in the store which of them holds.

A worker that takes a partition over reads its states from here and steps them over what has closed
since, in place of weeks of history. The bulk lies where the models lie, which all workers reach;
the store says whose states a file holds and through when, so a store that was emptied or filled
anew makes every file void. Files are a cache: whatever is wrong with one costs a warm-up.
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
from model.incremental import Forecaster, NetworkForecaster, States
from model.states import NetworkStates
from stream.state import keys
from stream.state.keys import Tag

log = structlog.get_logger(__name__)

_POINTER: Final = "states"
#: States of a series that are longer than this are not kept.
MAX_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class Kept:
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

    def load(self, tag: Tag, forecaster: Forecaster) -> Kept | None:
        """The states kept of a partition for this model; None where there are none to be had."""
        try:
            pointer = self._pointer(tag)
            if pointer is None or pointer["model_id"] != forecaster.model_id:
                return None
            if not isinstance(forecaster, NetworkForecaster):
                return None
            states = forecaster.restore(self._fs.cat_file(self._at(pointer["file"])))
        except (RedisError, OSError, ModelError, KeyError, ValueError) as error:
            log.warning("states_not_loaded", partition=tag, reason=str(error))
            return None
        return Kept(states, pointer["through_ms"])

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
        try:
            old = self._pointer(tag)
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(self._at(name), payload)
            pointer = {"model_id": model_id, "through_ms": through_ms, "file": name}
            self._client.set(keys.of(tag, _POINTER), json.dumps(pointer))
            if old is not None:
                self._fs.rm_file(self._at(old["file"]))
        except (RedisError, OSError, ValueError) as error:
            log.warning("states_not_kept", partition=tag, reason=str(error))

    def _pointer(self, tag: Tag) -> dict[str, Any] | None:
        text: Any = self._client.get(keys.of(tag, _POINTER))
        return None if text is None else dict(json.loads(text))

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"
