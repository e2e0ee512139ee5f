"""Carried states of all series of a partition, and their snapshots.

A snapshot is safetensors with a JSON header: what a worker would otherwise rebuild by reading the
stored history again. It belongs to one model; a foreign or damaged one is refused, and the history
is read instead. Where the bytes lie is not this module's business.

Axes: S = series, K = carried statistics.
"""

import json
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save as save_tensors

from model.errors import CorruptCheckpoint, IncompatibleCheckpoint
from model.inputs.series_inputs import new_carried
from model.inputs.static_features import LAUNCH, require_static, tell
from model.networks.base import State
from model.networks.quantile_network import QuantileNetwork
from model.tensor_file import load_tensors

SNAPSHOT_VERSION: Final = 1


class NetworkStates:
    """Carried statistics and network state of all series of a partition, on one device.

    `program` is what a stepper keeps for these very tensors, such as a captured graph; it is
    dropped when they are replaced.
    """

    def __init__(self, network: QuantileNetwork, capacity: int, device: torch.device) -> None:
        self._network = network
        self.device = device
        self.size = 0
        self.program: object | None = None
        self.last_ms: int | None = None
        #: Days since 1970 at the launch of the first series, as last told; 0 = not known.
        self.launch_day_S = np.zeros(0, np.float32)
        self.stats_SK = new_carried(capacity, network.config, device)
        self.state: State = network.new_state(capacity, device)

    @property
    def capacity(self) -> int:
        """Series there is room for."""
        return self.stats_SK.shape[0]

    def grow(self, size: int) -> None:
        """Make room for `size` series; new ones start with nothing."""
        if size > self.capacity:
            extra = max(size, 2 * self.capacity) - self.capacity
            fresh = self._network.new_state(extra, self.device)
            more_SK = new_carried(extra, self._network.config, self.device)
            self.stats_SK = torch.cat((self.stats_SK, more_SK))
            self.state = tuple(
                torch.cat((old, new)) for old, new in zip(self.state, fresh, strict=True)
            )
            self.program = None
        self.size = max(self.size, size)

    @property
    def uses_static(self) -> bool:
        """Whether the network makes anything of what `tell` says."""
        return self._network.config.uses_static

    def tell(self, static_SX: NDArray[np.float32]) -> None:
        """Take what is known of the first series [S, X], as `model.static.static_row` gives it.

        Holds from the next step on; may be told again when more is known. Does nothing for a
        network that makes nothing of it. Raises InvalidValues.
        """
        require_static(static_SX, len(static_SX))
        if self.uses_static:
            with torch.inference_mode():
                self.grow(len(static_SX))
                self.launch_day_S = static_SX[:, LAUNCH]
                rows_SK = self.stats_SK[: len(static_SX)]
                tell(rows_SK, torch.from_numpy(static_SX), self._network.config)

    @property
    def bytes_per_series(self) -> int:
        """Memory of one series' states."""
        tensors = (self.stats_SK, *self.state)
        return sum(t[:1].numel() * t.element_size() for t in tensors)

    def snapshot(self, model_id: str) -> bytes:
        """All of it as bytes, for `restored` with the same model."""
        parts = {f"state_{place}": part for place, part in enumerate(self.state)}
        tensors = {
            name: part[: self.size].cpu().contiguous()
            for name, part in (parts | {"statistics": self.stats_SK}).items()
        }
        header = {
            "snapshot_version": SNAPSHOT_VERSION,
            "model_id": model_id,
            "last_ms": self.last_ms,
        }
        return save_tensors(tensors, {"surgecast": json.dumps(header)})


def restored(
    payload: bytes, network: QuantileNetwork, model_id: str, device: torch.device
) -> NetworkStates:
    """The states a snapshot holds, bit for bit.

    Raises IncompatibleCheckpoint for a snapshot of another model or format, CorruptCheckpoint for
    one that is cut off or holds NaN.
    """
    try:
        header, tensors = load_tensors(payload)
        version, of_model, last_ms = (
            header[name] for name in ("snapshot_version", "model_id", "last_ms")
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CorruptCheckpoint(f"the snapshot of states cannot be read: {error}") from error
    if version != SNAPSHOT_VERSION or of_model != model_id:
        raise IncompatibleCheckpoint(
            f"a snapshot of format {version} and model {of_model}; "
            f"format {SNAPSHOT_VERSION} and model {model_id} serve"
        )
    stats_SK = tensors.get("statistics", torch.empty(0, 0))
    states = NetworkStates(network, max(stats_SK.shape[0], 1), device)
    targets = {f"state_{place}": part for place, part in enumerate(states.state)}
    targets["statistics"] = states.stats_SK
    size = stats_SK.shape[0]
    for name, target in targets.items():
        part = tensors.get(name)
        if part is None or part.shape != target[:size].shape or part.dtype != target.dtype:
            raise IncompatibleCheckpoint(f"the snapshot's {name} does not fit model {model_id}")
        if not bool(torch.isfinite(part).all()):
            raise CorruptCheckpoint(f"the snapshot's {name} holds NaN or infinite numbers")
        target[:size] = part.to(device)
    states.size, states.last_ms = size, last_ms
    return states
