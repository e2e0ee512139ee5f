"""The model registry: checkpoints in a folder or behind any fsspec URL, one of them the champion.

Layout under the root: `models/<model_id>/{manifest.json,weights.safetensors}`, `champion.json`
(what workers poll: one small file) and `audit.jsonl` (one line for every change). A checkpoint is
written aside and appears whole: on a local disk by renaming its folder; elsewhere the manifest
comes last, and a model without one does not exist.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import fsspec
import torch

from model.checkpoint import Manifest, dump, restore
from model.errors import CorruptCheckpoint, UnknownModel
from model.incremental import NetworkForecaster
from model.training import Trained

_CHAMPION: Final = "champion.json"
_AUDIT: Final = "audit.jsonl"
_KEPT: Final = 50


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model of the registry."""

    model_id: str
    is_champion: bool
    manifest: Manifest


class Registry:
    """Checkpoints under one root. Cheap to make; holds no connection."""

    def __init__(self, path: str) -> None:
        self.path = path
        filesystem, root = fsspec.core.url_to_fs(path)
        self._fs: Any = filesystem
        self._root: str = root.rstrip("/")
        self._local = "file" in _protocols(filesystem)

    def publish(self, trained: Trained, *, promote: bool = False) -> str:
        """Store a trained network; returns its model id. The same weights get the same id."""
        payload, manifest = dump(trained)
        model_id = manifest.model_id
        target = self._at("models", model_id)
        if not self._fs.exists(f"{target}/manifest.json"):
            place = self._at("models", f".{model_id}.{uuid4().hex[:8]}") if self._local else target
            self._fs.makedirs(place, exist_ok=True)
            self._fs.pipe_file(f"{place}/weights.safetensors", payload)
            self._fs.pipe_file(f"{place}/manifest.json", manifest.to_json())
            if self._local:
                self._fs.mv(place, target, recursive=True)
            self._note("publish", model_id)
        if promote:
            self.promote(model_id)
        return model_id

    def champion(self) -> str | None:
        """Id of the model that serves, or None before the first promotion. Reads a small file."""
        return self._pointer().get("model_id")

    def manifest(self, model_id: str) -> Manifest:
        """What a model says of itself. Raises UnknownModel, CorruptCheckpoint."""
        return Manifest.from_json(self._read(model_id, "manifest.json"))

    def load(self, model_id: str, device: str = "cpu") -> NetworkForecaster:
        """A model ready to serve on `device`; `auto` is the GPU where there is one.

        Raises UnknownModel, CorruptCheckpoint or IncompatibleCheckpoint; whoever serves keeps the
        model it has.
        """
        manifest = self.manifest(model_id)
        network = restore(self._read(model_id, "weights.safetensors"), manifest)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return NetworkForecaster(network, model_id, device)

    def promote(self, model_id: str) -> None:
        """Make a model the champion. Raises UnknownModel; a damaged one is refused too."""
        self.load(model_id)
        pointer = self._pointer()
        previous = pointer.get("previous", [])
        if pointer.get("model_id") == model_id:
            return
        if pointer.get("model_id"):
            previous = [*previous, pointer["model_id"]][-_KEPT:]
        self._point(model_id, previous)
        self._note("promote", model_id)

    def rollback(self) -> str:
        """Make the champion before this one the champion again; returns its id.

        Raises UnknownModel where there was none.
        """
        pointer = self._pointer()
        previous = list(pointer.get("previous", []))
        if not previous:
            raise UnknownModel("no earlier champion to roll back to")
        model_id = previous.pop()
        self.load(model_id)
        self._point(model_id, previous)
        self._note("rollback", model_id)
        return str(model_id)

    def list(self) -> Sequence[ModelEntry]:
        """All readable models, the newest data first."""
        champion = self.champion()
        folder = self._at("models")
        if not self._fs.exists(folder):
            return []
        self._fs.invalidate_cache()
        names = [
            str(path).rstrip("/").rsplit("/", 1)[-1] for path in self._fs.ls(folder, detail=False)
        ]
        entries = []
        for name in names:
            if name.startswith(".") or not self._fs.exists(f"{folder}/{name}/manifest.json"):
                continue
            try:
                entries.append(ModelEntry(name, name == champion, self.manifest(name)))
            except CorruptCheckpoint:
                continue
        return sorted(entries, key=lambda e: (e.manifest.span_ms[1], e.model_id), reverse=True)

    def audit(self) -> Sequence[dict[str, Any]]:
        """Every change, oldest first: at_ms, action, model_id."""
        path = self._at(_AUDIT)
        if not self._fs.exists(path):
            return []
        return [json.loads(line) for line in self._fs.cat_file(path).decode().splitlines()]

    def _at(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    def _read(self, model_id: str, name: str) -> bytes:
        if not model_id or "/" in model_id or model_id.startswith("."):
            raise UnknownModel(f"{model_id!r} is no model id")
        try:
            return bytes(self._fs.cat_file(self._at("models", model_id, name)))
        except FileNotFoundError:
            if name != "manifest.json":
                raise CorruptCheckpoint(f"model {model_id} has no {name}") from None
            raise UnknownModel(f"the registry {self.path} holds no model {model_id}") from None

    def _pointer(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._fs.cat_file(self._at(_CHAMPION))))
        except FileNotFoundError:
            return {}

    def _point(self, model_id: str, previous: Sequence[str]) -> None:
        body = json.dumps({"model_id": model_id, "previous": list(previous)}).encode()
        target = self._at(_CHAMPION)
        if self._local:
            aside = f"{target}.{uuid4().hex[:8]}"
            self._fs.pipe_file(aside, body)
            self._fs.mv(aside, target)
        else:
            self._fs.pipe_file(target, body)

    def _note(self, action: str, model_id: str) -> None:
        line = {"at_ms": time.time_ns() // 1_000_000, "action": action, "model_id": model_id}
        self._fs.makedirs(self._root, exist_ok=True)
        with self._fs.open(self._at(_AUDIT), "ab") as audit:
            audit.write(json.dumps(line).encode() + b"\n")


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
