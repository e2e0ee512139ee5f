"""Carried states of all series of a partition, and their snapshots.

A snapshot is safetensors with a JSON header; it spares a worker re-reading the stored history. One
of the states belongs to one model; one of the statistics alone to all models that carry the same
statistics. A foreign or damaged one is refused, and the worker reads the history instead.

Axes: S = series, K = carried statistics, I = those that other models may inherit.
"""

import json
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save as save_tensors
from torch import Tensor

from model.config import ModelConfig
from model.errors import CorruptCheckpoint, IncompatibleCheckpoint
from model.inputs.series_inputs import new_carried
from model.inputs.static_features import LAUNCH, require_static, set_static
from model.inputs.statistics_identity import inherited_width, statistics_identity
from model.networks.base import State
from model.networks.quantile_network import QuantileNetwork
from model.tensor_file import load_tensors

SNAPSHOT_VERSION: Final = 2
_STATISTICS: Final = "statistics"


class NetworkStates:
    """Carried statistics and network state of all series of a partition, on one device.

    `program` is a stepper's cache for these very tensors, such as a captured graph; it is dropped
    when they are replaced.
    """

    def __init__(self, network: QuantileNetwork, capacity: int, device: torch.device) -> None:
        self._network = network
        self.device = device
        self.size = 0
        self.program: object | None = None
        self.last_ms: int | None = None
        #: Launch of the first series in days since 1970, from the last `set_static`; 0 = unknown.
        self.launch_day_S = np.zeros(0, np.float32)
        self.stats_SK = new_carried(capacity, network.config, device)
        self.state: State = network.new_state(capacity, device)

    @property
    def capacity(self) -> int:
        """Number of series with allocated rows."""
        return self.stats_SK.shape[0]

    def grow(self, size: int) -> None:
        """Make room for `size` series; new ones start at zero."""
        if size > self.capacity:
            extra = max(size, 2 * self.capacity) - self.capacity
            fresh = self._network.new_state(extra, self.device)
            more_SK = new_carried(extra, self._network.config, self.device)
            self.stats_SK = torch.cat((self.stats_SK.t(), more_SK.t()), dim=1).t()
            self.state = tuple(
                torch.cat((old, new)) for old, new in zip(self.state, fresh, strict=True)
            )
            self.program = None
        self.size = max(self.size, size)

    @property
    def uses_static(self) -> bool:
        """True if the network reads static features."""
        return self._network.config.uses_static

    def set_static(self, static_SX: NDArray[np.float32]) -> None:
        """Set the static features [S, X] of the first series (`static_features.static_row`).

        Takes effect at the next step; may be called again with newer values. Does nothing for a
        network without static features. Raises InvalidValues.
        """
        require_static(static_SX, len(static_SX))
        if self.uses_static:
            with torch.inference_mode():
                self.grow(len(static_SX))
                self.launch_day_S = static_SX[:, LAUNCH]
                rows_SK = self.stats_SK[: len(static_SX)]
                set_static(rows_SK, torch.from_numpy(static_SX), self._network.config)

    def inherit(self, statistics_SI: Tensor) -> None:
        """Replace the statistics of the first series; the network's state stays.

        `statistics_SI` are those of a model with the same identity (`read_statistics`). Static
        features stay; what the network derives from both is derived again in the next step.
        """
        with torch.inference_mode():
            rows, columns = statistics_SI.shape
            self.grow(rows)
            self.stats_SK[:rows, :columns] = statistics_SI.to(self.device)

    @property
    def identity(self) -> str:
        """Identity of the statistics."""
        return statistics_identity(self._network.config)

    @property
    def bytes_per_series(self) -> int:
        """Bytes of one series' states."""
        tensors = (self.stats_SK, *self.state)
        return sum(t[:1].numel() * t.element_size() for t in tensors)

    def snapshot(self, model_id: str) -> bytes:
        """The states as bytes, for `restore_states` with the same model."""
        parts = {f"state_{place}": part for place, part in enumerate(self.state)}
        tensors = {
            name: part[: self.size].cpu().contiguous()
            for name, part in (parts | {_STATISTICS: self.stats_SK}).items()
        }
        header = {
            "snapshot_version": SNAPSHOT_VERSION,
            "model_id": model_id,
            "identity": self.identity,
            "last_ms": self.last_ms,
        }
        return save_tensors(tensors, {"surgecast": json.dumps(header)})

    def statistics_snapshot(self) -> bytes:
        """The statistics alone as bytes, for `read_statistics`."""
        config = self._network.config
        rows_SI = self.stats_SK[: self.size, : inherited_width(config)].cpu().contiguous()
        return dump_statistics(rows_SI, config)


def restore_states(
    payload: bytes, network: QuantileNetwork, model_id: str, device: torch.device
) -> NetworkStates:
    """Rebuild the states of a snapshot, bit for bit.

    Raises IncompatibleCheckpoint for a snapshot of another model or format, CorruptCheckpoint for
    one that is truncated or contains NaN.
    """
    try:
        header, tensors = load_tensors(payload)
        version, of_model, last_ms = (
            header[name] for name in ("snapshot_version", "model_id", "last_ms")
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CorruptCheckpoint(f"unreadable snapshot of states: {error}") from error
    if version != SNAPSHOT_VERSION or of_model != model_id:
        raise IncompatibleCheckpoint(
            f"the snapshot has format {version} of model {of_model}, "
            f"expected format {SNAPSHOT_VERSION} of model {model_id}"
        )
    _require_identity(header, network.config)
    stats_SK = tensors.get(_STATISTICS, torch.empty(0, 0))
    states = NetworkStates(network, max(stats_SK.shape[0], 1), device)
    targets = {f"state_{place}": part for place, part in enumerate(states.state)}
    targets[_STATISTICS] = states.stats_SK
    size = stats_SK.shape[0]
    for name, target in targets.items():
        part = tensors.get(name)
        if part is None or part.shape != target[:size].shape or part.dtype != target.dtype:
            raise IncompatibleCheckpoint(f"the snapshot's {name} does not fit model {model_id}")
        if not bool(torch.isfinite(part).all()):
            raise CorruptCheckpoint(f"the snapshot's {name} contains NaN or infinite numbers")
        target[:size] = part.to(device)
    states.size, states.last_ms = size, last_ms
    return states


def dump_statistics(statistics_SI: Tensor, config: ModelConfig) -> bytes:
    """Carried statistics of all series as bytes, for `read_statistics`."""
    header = {
        "snapshot_version": SNAPSHOT_VERSION,
        "identity": statistics_identity(config),
    }
    return save_tensors(
        {_STATISTICS: statistics_SI.contiguous()}, {"surgecast": json.dumps(header)}
    )


def read_statistics(payload: bytes, config: ModelConfig) -> Tensor:
    """The statistics [S, I] of a snapshot, for `NetworkStates.inherit`.

    Raises IncompatibleCheckpoint for statistics of another identity or format, CorruptCheckpoint
    for a snapshot that is truncated or contains NaN.
    """
    try:
        header, tensors = load_tensors(payload)
        version, statistics_SI = header["snapshot_version"], tensors[_STATISTICS]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CorruptCheckpoint(f"unreadable snapshot of statistics: {error}") from error
    if version != SNAPSHOT_VERSION:
        raise IncompatibleCheckpoint(
            f"the snapshot has format {version}, expected format {SNAPSHOT_VERSION}"
        )
    _require_identity(header, config)
    if not bool(torch.isfinite(statistics_SI).all()):
        raise CorruptCheckpoint("the snapshot's statistics contain NaN or infinite numbers")
    return statistics_SI


def _require_identity(header: dict[str, Any], config: ModelConfig) -> None:
    expected = statistics_identity(config)
    if header.get("identity") != expected:
        raise IncompatibleCheckpoint(
            f"the snapshot has statistics {header.get('identity')}, this build carries {expected}"
        )
