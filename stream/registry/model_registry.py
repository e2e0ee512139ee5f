"""The model registry: checkpoints in a folder or behind any fsspec URL, one of them the champion.

Layout under the root: `models/<model_id>/{manifest.json,weights.safetensors}`, `champion.json`
(one small file: who serves, since when and why, who served before) and `audit.jsonl` (one line for
every change, refusals too). What is written appears whole, see `stream/registry/files.py`; a model
without a manifest does not exist.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import torch

from model.errors import CorruptCheckpoint, ModelError, UnknownModel
from model.inference.forecaster import NetworkForecaster
from model.networks.quantile_network import QuantileNetwork
from model.training.checkpoint import Manifest, dump, restore
from model.training.train import Trained
from stream.clock import wall_clock_ms
from stream.registry.files import RegistryFiles

_CHAMPION: Final = "champion.json"
_AUDIT: Final = "audit.jsonl"
_MANIFEST: Final = "manifest.json"
_WEIGHTS: Final = "weights.safetensors"
_REMEMBERED: Final = 50


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model of the registry."""

    model_id: str
    is_champion: bool
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Tenure:
    """A time in which a model served, and why it came to; `until_ms` is None while it does."""

    model_id: str
    since_ms: int
    until_ms: int | None
    note: str


class Registry:
    """Checkpoints under one root. Cheap to make; holds no connection."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._files = RegistryFiles(path)

    def publish(self, trained: Trained, *, promote: bool = False, note: str = "") -> str:
        """Store a trained network; returns its model id. The same weights get the same id.

        Raises OSError where the storage is full or away; nothing half is left behind.
        """
        payload, manifest = dump(trained, code_version=_code_version())
        model_id = manifest.model_id
        if not self._files.exists(f"models/{model_id}/{_MANIFEST}"):
            files = {_WEIGHTS: payload, _MANIFEST: manifest.to_json()}
            self._files.put_folder(f"models/{model_id}", files, last=_MANIFEST)
            self._note("publish", model_id, note="" if promote else note)
        if promote:
            self.promote(model_id, note=note)
        return model_id

    def champion(self) -> str | None:
        """Id of the model that serves, or None before the first promotion. Reads a small file."""
        return self._pointer().get("model_id")

    def last_champion(self) -> str | None:
        """The same, by the audit where `champion.json` cannot be read."""
        model_id: str | None = self._remembered()[0].get("model_id")
        return model_id

    def manifest(self, model_id: str) -> Manifest:
        """What a model says of itself. Raises UnknownModel, CorruptCheckpoint."""
        return Manifest.from_json(self._read(model_id, _MANIFEST))

    def network(self, model_id: str) -> QuantileNetwork:
        """A model's network. Raises UnknownModel, CorruptCheckpoint, IncompatibleCheckpoint."""
        return restore(self._read(model_id, _WEIGHTS), self.manifest(model_id))

    def load(self, model_id: str, device: str = "cpu") -> NetworkForecaster:
        """A model ready to serve on `device`; `auto` is the GPU where there is one.

        Raises UnknownModel, CorruptCheckpoint or IncompatibleCheckpoint; whoever serves keeps the
        model it has.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return NetworkForecaster(self.network(model_id), model_id, device)

    def promote(self, model_id: str, *, note: str = "") -> None:
        """Make a model the champion. Raises UnknownModel; a damaged one is refused too.

        A `champion.json` that cannot be read is replaced; what it said is taken from the audit.
        """
        self.network(model_id)
        pointer, readable = self._remembered()
        before = pointer.get("model_id")
        if before == model_id and readable:
            return
        previous = [*pointer.get("previous", []), *([before] if before else [])]
        self._point("promote", model_id, previous[-_REMEMBERED:], before=before, note=note)

    def refuse(self, model_id: str, *, note: str) -> None:
        """Remember why a challenger was not promoted, or a worker would not serve it."""
        self._note("refuse", model_id, note=note)

    def rollback(self, *, note: str = "") -> str:
        """Make the champion before this one the champion again; returns its id.

        One that is gone or damaged is passed over. Raises UnknownModel where there was none.
        """
        pointer, _ = self._remembered()
        previous = list(pointer.get("previous", []))
        fault: ModelError = UnknownModel("no earlier champion to roll back to")
        while previous:
            model_id = str(previous.pop())
            try:
                self.network(model_id)
            except ModelError as error:
                fault = error
                continue
            before = pointer.get("model_id")
            self._point("rollback", model_id, previous, before=before, note=note)
            return model_id
        raise fault

    def list(self) -> Sequence[ModelEntry]:
        """All readable models, the newest data first."""
        champion = self.last_champion()
        entries = []
        for name in self._files.names("models"):
            try:
                entries.append(ModelEntry(name, name == champion, self.manifest(name)))
            except ModelError:
                continue
        return sorted(entries, key=lambda e: (e.manifest.span_ms[1], e.model_id), reverse=True)

    def prune(self, keep: int) -> Sequence[str]:
        """Delete all but the `keep` models of the newest data; returns the ids of those deleted.

        The champion and the one before it always stay, and count.
        """
        pointer, _ = self._remembered()
        kept = {pointer.get("model_id"), *pointer.get("previous", [])[-1:]} - {None}
        others = [entry.model_id for entry in self.list() if entry.model_id not in kept]
        gone = others[max(0, keep - len(kept)) :]
        for model_id in gone:
            self._files.remove_folder(f"models/{model_id}", first=_MANIFEST)
            self._note("delete", model_id, note=f"beyond the {keep} models kept")
        self._files.sweep("models")
        return gone

    def audit(self) -> Sequence[dict[str, Any]]:
        """Every change, oldest first: at_ms, action, model_id, note, before (who served)."""
        try:
            text = self._files.read(_AUDIT).decode(errors="replace")
        except FileNotFoundError:
            return []
        changes = []
        for line in text.splitlines():
            try:
                changes.append(dict(json.loads(line)))
            except ValueError:
                continue  # a writer was killed in the middle of a line
        return changes

    def _read(self, model_id: str, name: str) -> bytes:
        if not model_id or "/" in model_id or model_id.startswith("."):
            raise UnknownModel(f"{model_id!r} is no model id")
        try:
            return self._files.read(f"models/{model_id}/{name}")
        except FileNotFoundError:
            if name != _MANIFEST and self._files.exists(f"models/{model_id}/{_MANIFEST}"):
                raise CorruptCheckpoint(f"model {model_id} has no {name}") from None
            raise UnknownModel(f"the registry {self.path} holds no model {model_id}") from None

    def _pointer(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._files.read(_CHAMPION)))
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError) as error:
            raise CorruptCheckpoint(f"{self.path}/{_CHAMPION} cannot be read: {error}") from None

    def _remembered(self) -> tuple[dict[str, Any], bool]:
        """What `champion.json` says, or the audit where it cannot be read; whether it could."""
        try:
            return self._pointer(), True
        except CorruptCheckpoint:
            served: str | None = None
            previous: list[str] = []
            for line in self.audit():
                model_id, action = line.get("model_id"), line.get("action")
                if action == "rollback" and model_id in previous:
                    del previous[len(previous) - 1 - previous[::-1].index(model_id) :]
                elif action == "promote" and served not in (None, model_id):
                    previous.append(str(served))
                elif action != "promote":
                    continue
                served = model_id
            return {"model_id": served, "previous": previous}, False

    def _point(
        self,
        action: str,
        model_id: str,
        previous: Sequence[str],
        *,
        before: str | None,
        note: str,
    ) -> None:
        pointer = {
            "model_id": model_id,
            "previous": [*previous],
            "since_ms": wall_clock_ms(),
            "note": note,
        }
        self._files.replace(_CHAMPION, json.dumps(pointer).encode())
        self._note(action, model_id, note=note, before=before)

    def _note(self, action: str, model_id: str, *, note: str, before: str | None = None) -> None:
        line = {"at_ms": wall_clock_ms(), "action": action, "model_id": model_id, "note": note}
        if before is not None:
            line["before"] = before
        self._files.append(_AUDIT, json.dumps(line).encode())


def tenures(audit: Iterable[Mapping[str, Any]]) -> list[Tenure]:
    """Who served when and why, oldest first.

    >>> one = {"at_ms": 5, "action": "promote", "model_id": "a", "note": "the first"}
    >>> back = {"at_ms": 9, "action": "rollback", "model_id": "b"}
    >>> [(t.model_id, t.since_ms, t.until_ms) for t in tenures([one, back])]
    [('a', 5, 9), ('b', 9, None)]
    """
    changes = [line for line in audit if line["action"] in ("promote", "rollback")]
    ends = [*(int(line["at_ms"]) for line in changes[1:]), None]
    return [
        Tenure(str(line["model_id"]), int(line["at_ms"]), end, str(line.get("note", "")))
        for line, end in zip(changes, ends, strict=True)
    ]


def _code_version() -> str:
    try:
        return version("surgecast")
    except PackageNotFoundError:
        return ""
