"""The state of an unfinished training, in one file: safetensors with a JSON header.

It contains everything the rest of the run depends on: weights, their running average, the best
weights so far, the optimiser's moments, the lanes with their carried state, the random generator,
and the progress. On a CPU a resumed run ends with the weights of an uninterrupted one. The file is
replaced atomically, so a crash leaves the previous one.
"""

import json
import os
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor
from torch.optim import Optimizer

from model.config import TrainConfig
from model.errors import CorruptCheckpoint
from model.tensor_file import load_tensors
from model.training.dataset import History

STATE_VERSION: Final = 1
#: Owner of the optimiser's moments among the tensors.
MOMENTS: Final = "adam"


def fingerprint(history: History, config: TrainConfig) -> str:
    """Sixteen hex digits that change with data and settings, except device and time limits."""
    settings = replace(config, device="cpu", threads=1, tags={}, max_seconds=None).as_dict()
    digest = sha256(json.dumps(settings, sort_keys=True).encode())
    place = [history.start_ms, history.bucket_ms, list(history.values_TSF.shape)]
    digest.update(json.dumps([place, history.series]).encode())
    if history.static_SX is not None:
        digest.update(np.ascontiguousarray(history.static_SX).data)
    for first in range(0, history.buckets, 512):
        digest.update(np.ascontiguousarray(history.values_TSF[first : first + 512]).data)
    if history.plans is not None:
        digest.update(history.plans.rows_N.tobytes())
        digest.update(np.ascontiguousarray(history.plans.values_TNP).data)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Saved:
    """A loaded state: plain values and tensors by name."""

    values: dict[str, Any]
    tensors: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class RunFile:
    """The file of one training's state."""

    path: Path

    @classmethod
    def of(cls, folder: Path, history: History, config: TrainConfig) -> "RunFile":
        """The file in `folder` for this configuration and history."""
        return cls(folder / f"{fingerprint(history, config)}.safetensors")

    def save(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Replace the state."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        header = json.dumps({"state_version": STATE_VERSION} | values)
        stored = {name: part.detach().cpu().contiguous() for name, part in tensors.items()}
        fresh = self.path.with_suffix(".part")
        with fresh.open("wb") as file:
            file.write(save(stored, {"surgecast": header}))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)

    def load(self) -> Saved | None:
        """Return the state, None if there is none. Raises CorruptCheckpoint for a damaged one."""
        try:
            payload = self.path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            values, tensors = load_tensors(payload)
            version = values["state_version"]
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CorruptCheckpoint(
                f"{self.path} is not a training state: {error}; delete it to start over"
            ) from error
        if version != STATE_VERSION:
            raise CorruptCheckpoint(
                f"{self.path} has format {version}, this build reads {STATE_VERSION}; "
                "delete it to start over"
            )
        return Saved(values, tensors)

    def with_lanes(self, lanes: int) -> "RunFile":
        """The file of the same training with fewer lanes, in the same folder."""
        return RunFile(self.path.with_stem(f"{self.path.stem}-{lanes}"))

    def discard(self) -> None:
        """Delete the state of a finished training, and those with fewer lanes."""
        for path in self.path.parent.glob(f"{self.path.stem}*{self.path.suffix}"):
            path.unlink(missing_ok=True)


def by_owner(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors named ``owner.key``, by owner and then by key.

    >>> list(by_owner({"walk.state.0": Tensor(), "walk.first": Tensor()})["walk"])
    ['state.0', 'first']
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, part in tensors.items():
        owner, _, key = name.partition(".")
        parts.setdefault(owner, {})[key] = part
    return parts


def moments_of(optimizer: Optimizer) -> dict[str, Tensor]:
    """The moments of an optimiser, by name."""
    return {
        f"{MOMENTS}.{number}.{key}": part
        for number, moments in optimizer.state_dict()["state"].items()
        for key, part in moments.items()
    }


def restore_moments(optimizer: Optimizer, moments: dict[str, Tensor]) -> None:
    """Load the result of `moments_of`, named without the owner."""
    state = {int(number): parts for number, parts in by_owner(moments).items()}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
