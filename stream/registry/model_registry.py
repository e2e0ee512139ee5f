"""The model registry: checkpoints in a folder or behind any fsspec URL, one of them the champion.

Layout under the root: `models/<model_id>/{manifest.json,weights.safetensors}`, `champion.json`
(the champion, since when and why, and the champions before it) and `audit.jsonl` (one line for
every change and verdict, and for each training that made no model; `audit.py` reads it). All writes
are atomic (`stream/registry/files.py`); a model without a manifest does not exist.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal

import torch

from model.errors import CorruptCheckpoint, ModelError, UnknownModel
from model.evaluation.looks import Look
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
_MAX_PREVIOUS: Final = 50


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model of the registry."""

    model_id: str
    is_champion: bool
    manifest: Manifest


def device_of(name: str) -> str:
    """The device of a setting; `auto` is the GPU if there is one.

    >>> device_of("cpu")
    'cpu'
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


class Registry:
    """Checkpoints under one root. Cheap to create; keeps no connection."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._files = RegistryFiles(path)

    def publish(self, trained: Trained, *, promote: bool = False, note: str = "") -> str:
        """Store a trained network; returns its model id. Equal weights have equal ids.

        Raises OSError if the storage is full or unavailable; no partial model remains.
        """
        payload, manifest = dump(trained, code_version=_code_version())
        model_id = manifest.model_id
        if not self._files.exists(f"models/{model_id}/{_MANIFEST}"):
            files = {_WEIGHTS: payload, _MANIFEST: manifest.to_json()}
            self._files.put_folder(f"models/{model_id}", files, last=_MANIFEST)
            self._log_change("publish", model_id, note="" if promote else note)
        if promote:
            self.promote(model_id, note=note)
        return model_id

    def champion(self) -> str | None:
        """Id of the champion, or None before the first promotion. Reads one small file.

        Raises CorruptCheckpoint if `champion.json` is damaged.
        """
        return self._pointer().get("model_id")

    def last_champion(self) -> str | None:
        """Id of the champion, from the audit if `champion.json` is damaged."""
        model_id: str | None = self._pointer_or_audit()[0].get("model_id")
        return model_id

    def manifest(self, model_id: str) -> Manifest:
        """A model's manifest. Raises UnknownModel, CorruptCheckpoint."""
        return Manifest.from_json(self._read(model_id, _MANIFEST))

    def network(self, model_id: str) -> QuantileNetwork:
        """A model's network. Raises UnknownModel, CorruptCheckpoint, IncompatibleCheckpoint."""
        return restore(self._read(model_id, _WEIGHTS), self.manifest(model_id))

    def load(
        self,
        model_id: str,
        device: str = "cpu",
        *,
        quantiles: tuple[float, ...] | None = None,
        timezone: str | None = None,
        rounded: bool = False,
    ) -> NetworkForecaster:
        """A model ready to serve on `device`; `auto` selects the GPU if there is one.

        `quantiles` are the levels to publish (default: the network's own), `timezone` is the zone
        whose wall clock it reads (default: that of its training); with `rounded` matrix products
        are in bfloat16.
        Raises UnknownModel, CorruptCheckpoint or IncompatibleCheckpoint; a worker then keeps the
        model it serves.
        """
        network = self.network(model_id)
        if timezone is not None:
            network.config = replace(network.config, timezone=timezone)
        return NetworkForecaster(
            network, model_id, device_of(device), quantiles=quantiles, rounded=rounded
        )

    def promote(self, model_id: str, *, note: str = "", look: Look | None = None) -> None:
        """Make a model the champion. Raises UnknownModel, CorruptCheckpoint if it is damaged.

        `look` is the span on which a comparison decided so. A damaged `champion.json` is replaced;
        its content is recovered from the audit.
        """
        self.network(model_id)
        pointer, readable = self._pointer_or_audit()
        before = pointer.get("model_id")
        if before == model_id and readable:
            return
        previous = [*pointer.get("previous", []), *([before] if before else [])]
        self._set_champion(
            "promote", model_id, previous[-_MAX_PREVIOUS:], before=before, note=note, look=look
        )

    def refuse(self, model_id: str, *, note: str, look: Look | None = None) -> None:
        """Log why a challenger was not promoted, or why a worker refused to serve it."""
        self._log_change("refuse", model_id, note=note, look=look)

    def no_challenger(self, outcome: Literal["failed", "skipped"], *, note: str) -> None:
        """Log why a training made no model."""
        self._log_change(outcome, "", note=note)

    def looks(self) -> list[Look]:
        """Spans (ms) on which comparisons have decided, oldest first (`model/evaluation/looks`)."""
        return [
            (int(line["look_ms"][0]), int(line["look_ms"][1]))
            for line in self.audit()
            if "look_ms" in line
        ]

    def rollback(self, *, note: str = "") -> str:
        """Make the previous champion the champion again; returns its id.

        Deleted and damaged models are skipped. Raises UnknownModel if there was no other champion.
        """
        pointer, _ = self._pointer_or_audit()
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
            self._set_champion("rollback", model_id, previous, before=before, note=note)
            return model_id
        raise fault

    def list(self) -> Sequence[ModelEntry]:
        """All readable models; those trained on the newest data first."""
        champion = self.last_champion()
        entries = []
        for name in self._files.names("models"):
            try:
                entries.append(ModelEntry(name, name == champion, self.manifest(name)))
            except ModelError:
                continue
        return sorted(entries, key=lambda e: (e.manifest.span_ms[1], e.model_id), reverse=True)

    def prune(self, keep: int) -> Sequence[str]:
        """Delete all but the `keep` models of the newest data; returns the deleted ids.

        The champion and the previous one are never deleted, and count as kept.
        """
        pointer, _ = self._pointer_or_audit()
        kept = {pointer.get("model_id"), *pointer.get("previous", [])[-1:]} - {None}
        others = [entry.model_id for entry in self.list() if entry.model_id not in kept]
        deleted = others[max(0, keep - len(kept)) :]
        for model_id in deleted:
            self._files.remove_folder(f"models/{model_id}", first=_MANIFEST)
            self._log_change("delete", model_id, note=f"beyond the {keep} models kept")
        self._files.sweep("models")
        return deleted

    def audit(self) -> Sequence[dict[str, Any]]:
        """Every change, oldest first: at_ms, action, model_id, note.

        `before` is the last champion, `look_ms` the span on which a comparison decided.
        """
        try:
            text = self._files.read(_AUDIT).decode(errors="replace")
        except FileNotFoundError:
            return []
        changes = []
        for line in text.splitlines():
            try:
                changes.append(dict(json.loads(line)))
            except ValueError:
                continue  # a killed writer left a partial line
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

    def _pointer_or_audit(self) -> tuple[dict[str, Any], bool]:
        """Content of `champion.json`, from the audit if damaged; True if it was readable."""
        try:
            return self._pointer(), True
        except CorruptCheckpoint:
            champion: str | None = None
            previous: list[str] = []
            for line in self.audit():
                model_id, action = line.get("model_id"), line.get("action")
                if action == "rollback" and model_id in previous:
                    del previous[len(previous) - 1 - previous[::-1].index(model_id) :]
                elif action == "promote" and champion not in (None, model_id):
                    previous.append(str(champion))
                elif action != "promote":
                    continue
                champion = model_id
            return {"model_id": champion, "previous": previous}, False

    def _set_champion(
        self,
        action: str,
        model_id: str,
        previous: Sequence[str],
        *,
        before: str | None,
        note: str,
        look: Look | None = None,
    ) -> None:
        pointer = {
            "model_id": model_id,
            "previous": [*previous],
            "since_ms": wall_clock_ms(),
            "note": note,
        }
        self._files.replace(_CHAMPION, json.dumps(pointer).encode())
        self._log_change(action, model_id, note=note, before=before, look=look)

    def _log_change(
        self,
        action: str,
        model_id: str,
        *,
        note: str,
        before: str | None = None,
        look: Look | None = None,
    ) -> None:
        line = {"at_ms": wall_clock_ms(), "action": action, "model_id": model_id, "note": note}
        if before is not None:
            line["before"] = before
        if look is not None:
            line["look_ms"] = [*look]
        self._files.append(_AUDIT, json.dumps(line).encode())


def _code_version() -> str:
    try:
        return version("surgecast")
    except PackageNotFoundError:
        return ""
