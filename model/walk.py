"""Lanes that walk through history for training, the loss of what they see, and validation.

Axes: N = lanes of all groups, B = lanes of one group, L = buckets of a chunk, P = origins in a
chunk, O = origins that share a calendar, H = horizon, Q = quantiles, C = calendar.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import TrainConfig
from model.dataset import Chunk, Picked
from model.inputs import new_carried
from model.losses import forecast_loss
from model.networks.base import State
from model.networks.quantile import QuantileNetwork


class Walk:
    """Groups of lanes that walk through the training part, each group at its own time."""

    def __init__(
        self,
        picked: Picked,
        network: QuantileNetwork,
        config: TrainConfig,
        rng: np.random.Generator,
    ) -> None:
        self.picked = picked
        self.config = config
        self.rng = rng
        self.size = max(1, config.lanes // config.groups)
        lanes = config.groups * self.size
        self.lanes_GB = torch.zeros(config.groups, self.size, dtype=torch.int64)
        self.first_G = np.zeros(config.groups, np.int64)
        self.stats_NK = new_carried(lanes, config.model)
        self.state = network.new_state(lanes, torch.device(config.device))
        for group in range(config.groups):
            self._draw(group)

    def _draw(self, group: int) -> None:
        """Send a group to a random time, mostly with the statistics its series have there."""
        picked, rng = self.picked, self.rng
        drawn = rng.choice(picked.index_S.size, size=self.size, p=picked.weight_S)
        self.lanes_GB[group] = torch.from_numpy(drawn)
        latest = (picked.end - 1 - picked.every) // picked.every
        at = int(rng.integers(0, max(latest, 0) + 1))
        stats_BK = picked.grid_GSK[at, drawn]
        stats_BK[torch.from_numpy(rng.random(self.size) < self.config.cold_share)] = 0.0
        rows = slice(group * self.size, (group + 1) * self.size)
        self.stats_NK[rows] = stats_BK
        for part in self.state:
            part[rows] = 0.0
        self.first_G[group] = at * picked.every

    def next_chunk(self) -> Chunk:
        """The next chunk of every group; groups at the end of the data are drawn anew."""
        picked = self.picked
        for group in range(self.config.groups):
            over = self.first_G[group] + picked.every >= picked.end
            if over or self.rng.random() < self.config.reset_share:
                self._draw(group)
        chunk = picked.chunk(
            self.lanes_GB, self.stats_NK, self.first_G, length=picked.every, end=picked.end
        )
        self.first_G += picked.every
        return chunk


def encode(
    network: QuantileNetwork, chunk: Chunk, state: State, device: torch.device
) -> tuple[Tensor, State]:
    """Encodings [N, L, D] of a chunk, and the state after it, detached."""
    begun_N = chunk.started_NL[:, 0].to(device)
    clean = tuple(part * begun_N.view(-1, *[1] * (part.dim() - 1)) for part in state)
    encoded, after = network.forward(
        chunk.inputs_NLI.to(device), chunk.calendar_NLC.to(device), clean
    )
    return encoded, tuple(part.detach() for part in after)


def loss_at(
    *,
    network: QuantileNetwork,
    picked: Picked,
    chunk: Chunk,
    encoded_NLD: Tensor,
    positions_P: NDArray[np.int64],
    quantiles_Q: Tensor,
    cumulative_weight: float,
) -> Tensor:
    """Loss of the forecasts made at some buckets of a chunk."""
    device = quantiles_Q.device
    horizon, groups = network.config.horizon, len(chunk.first_G)
    positions = torch.from_numpy(positions_P)

    def by_origin(values: Tensor) -> Tensor:
        """[N, P, …] → [G · P, B, …]: the origins that share a calendar first."""
        split = values.view(groups, values.shape[0] // groups, *values.shape[1:])
        return split.transpose(1, 2).flatten(0, 1)

    horizon_OHC = picked.horizon_calendar(chunk.first_G, positions_P).to(device)
    encoded_OBD = by_origin(encoded_NLD[:, positions.to(device)])
    inputs_OBI = by_origin(chunk.inputs_NLI[:, positions]).to(device)
    units, sums = network.heads(encoded_OBD, inputs_OBI, horizon_OHC)
    reach_PH = positions[:, None] + torch.arange(horizon)
    scale = by_origin(chunk.scale_NL[:, positions]).to(device)
    target = by_origin(chunk.ahead_NX[:, reach_PH]).to(device) / scale.unsqueeze(-1)
    known = by_origin(chunk.known_NX[:, reach_PH]).to(device)
    weight = by_origin(chunk.weight_NL[:, positions]).to(device)
    return forecast_loss(
        units=units,
        sums=sums,
        target=target,
        known=known,
        weight=weight,
        quantiles_Q=quantiles_Q,
        cumulative_weight=cumulative_weight,
    )


def validate(
    network: QuantileNetwork, picked: Picked, config: TrainConfig, quantiles_Q: Tensor
) -> float:
    """Mean scaled loss behind `picked.end`, on a fixed set of series, after a warm-up before it."""
    rng = np.random.default_rng(config.seed + 1)
    size = min(picked.index_S.size, 128)
    drawn = rng.choice(picked.index_S.size, size=size, replace=False, p=picked.weight_S)
    device = quantiles_Q.device
    buckets = picked.values_TSF.shape[0]
    at = max(0, picked.end // picked.every - 2)
    lanes_GB = torch.from_numpy(np.sort(drawn))[None]
    stats_NK = picked.grid_GSK[at, lanes_GB[0]]
    state = network.new_state(size, device)
    loss, counted = 0.0, 0
    with torch.no_grad():
        for first in range(at * picked.every, buckets - 1, picked.every):
            length = min(picked.every, buckets - 1 - first)
            chunk = picked.chunk(lanes_GB, stats_NK, np.array([first]), length=length, end=buckets)
            encoded, state = encode(network, chunk, state, device)
            positions = np.arange(0, length, max(1, length // 16), dtype=np.int64)
            positions = positions[first + positions >= picked.end - 1]
            if positions.size:
                part = loss_at(
                    network=network,
                    picked=picked,
                    chunk=chunk,
                    encoded_NLD=encoded,
                    positions_P=positions,
                    quantiles_Q=quantiles_Q,
                    cumulative_weight=config.cumulative_weight,
                )
                loss += float(part) * positions.size
                counted += positions.size
    return loss / max(counted, 1)
