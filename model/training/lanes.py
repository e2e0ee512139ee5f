"""Lanes that advance through history for training, the loss of their forecasts, and validation.

Axes: N = lanes of all groups, B = lanes of one group, L = buckets of a chunk, P = origins in a
chunk, O = origins that share a calendar, H = horizon, Q = quantiles, C = calendar.
"""

from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import TrainConfig
from model.inputs.anchors import anchors_of
from model.inputs.plans import plan_features
from model.inputs.seasons.season_layout import layout_of
from model.inputs.series_inputs import new_carried
from model.inputs.static_features import CATEGORY, N_STATIC_CARRIED, PRIOR
from model.inputs.targets import TargetAhead
from model.networks.base import State
from model.networks.quantile_network import QuantileNetwork
from model.training.dataset import Chunk, TrainingSeries
from model.training.losses import forecast_loss, target_loss
from model.training.ranks import Ranks

#: Updates whose chunks are read at once: statistics of more lanes cost hardly more time.
_READ_AHEAD: Final = 4


class LaneGroups:
    """Groups of lanes that advance through the training part, each group at its own time.

    Processes that train together draw the same lanes, and each advances its share of every group.
    """

    def __init__(
        self,
        picked: TrainingSeries,
        network: QuantileNetwork,
        config: TrainConfig,
        rng: np.random.Generator,
        ranks: Ranks,
    ) -> None:
        self.picked = picked
        self.config = config
        self.rng = rng
        self.ranks = ranks
        self.size = max(1, config.lanes // config.groups)
        self.share = ranks.share(self.size)
        self.own = self.share.stop - self.share.start
        #: Groups of one update, and of all updates whose chunks are read at once.
        self.groups = config.groups
        self.all_groups = config.groups * _READ_AHEAD
        self.lanes_GB = torch.zeros(self.all_groups, self.size, dtype=torch.int64)
        self.first_G = np.zeros(self.all_groups, np.int64)
        self.stats_NK = new_carried(self.all_groups * self.own, config.model)
        self._before_NK = self.stats_NK
        self._state = network.new_state(self.all_groups * self.own, ranks.device(config.device))
        self._turn = 0
        self._end = picked.end
        self._chunk: Chunk | None = None

    def begin(self) -> None:
        """Draw series and a time for every group."""
        for group in range(self.all_groups):
            self._draw(group)

    def _draw(self, group: int) -> None:
        """Draw series and a random time for a group, mostly with their statistics at that time."""
        picked, rng = self.picked, self.rng
        drawn = rng.choice(picked.index_S.size, size=self.size, p=picked.weight_S)
        self.lanes_GB[group] = torch.from_numpy(drawn)
        latest = max(0, picked.end - 2) // picked.every
        at = int(rng.integers(0, latest + 1))
        cold = torch.from_numpy(rng.random(self.size) < self.config.cold_share)
        stats_BK = picked.grid_GSK[at, drawn[self.share]]
        static_BX = stats_BK[:, CATEGORY:PRIOR].clone() if self.config.model.uses_static else None
        stats_BK[cold[self.share]] = 0.0
        if static_BX is not None:
            unknown = rng.random((self.size, N_STATIC_CARRIED)) < self.config.unknown_share
            stats_BK[:, CATEGORY:PRIOR] = static_BX
            stats_BK[:, CATEGORY:PRIOR][torch.from_numpy(unknown)[self.share]] = 0.0
        rows = slice(group * self.own, (group + 1) * self.own)
        self.stats_NK[rows] = stats_BK
        for part in self._state:
            part[rows] = 0.0
        self.first_G[group] = at * picked.every

    def next_chunk(self) -> Chunk:
        """Return the next chunk of every group; groups at the end of the data are drawn again."""
        if self._chunk is None or self._turn + 1 == _READ_AHEAD:
            picked = self.picked
            if self._chunk is not None:
                self.first_G += picked.every
            for group in range(self.all_groups):
                over = self.first_G[group] + 1 >= picked.end
                if over or self.rng.random() < self.config.reset_share:
                    self._draw(group)
            self._turn = 0
            self._read(picked.end)
        else:
            self._turn += 1
        assert self._chunk is not None
        first = self._turn * self.groups
        return self._chunk.of_groups(first, first + self.groups)

    def _read(self, end: int) -> None:
        """Read the chunks of all groups; demand is known before bucket `end`."""
        self._end = end
        self._before_NK = self.stats_NK.clone()
        self._chunk = self.picked.chunk(
            self.lanes_GB[:, self.share],
            self.stats_NK,
            self.first_G,
            length=self.picked.every,
            end=end,
        )

    @property
    def state(self) -> State:
        """Network state of the lanes of the newest chunk."""
        size = self.groups * self.own
        return tuple(part[self._turn * size : (self._turn + 1) * size] for part in self._state)

    @state.setter
    def state(self, state: State) -> None:
        for part, new in zip(self.state, state, strict=True):
            part.copy_(new)

    def tensors(self) -> dict[str, Tensor]:
        """Position and state of all lanes of all processes, for `resume`; a collective call."""
        state = {f"state_{place}": part for place, part in enumerate(self._state)}
        carried = {"statistics": self._before_NK} | state
        gathered = {
            name: self.ranks.gather(part, self.all_groups) for name, part in carried.items()
        }
        return gathered | {
            "lanes": self.lanes_GB,
            "first": torch.from_numpy(self.first_G),
            "turn": torch.tensor(self._turn),
            "end": torch.tensor(self._end),
        }

    def resume(self, saved: dict[str, Tensor]) -> None:
        """Continue from saved `tensors`, on any number of processes."""

        def own(part_NX: Tensor) -> Tensor:
            split = part_NX.view(self.all_groups, -1, *part_NX.shape[1:])
            return split[:, self.share].flatten(0, 1)

        self.lanes_GB.copy_(saved["lanes"])
        self.first_G[:] = saved["first"].numpy()
        self.stats_NK.copy_(own(saved["statistics"]))
        for place, part in enumerate(self._state):
            part.copy_(own(saved[f"state_{place}"]))
        self._turn = int(saved["turn"])
        self._read(int(saved["end"]))


def encode(
    network: QuantileNetwork,
    chunk: Chunk,
    state: State,
    device: torch.device,
    *,
    mixed: bool = False,
) -> tuple[Tensor, State]:
    """Encodings [N, L, D] of a chunk, and the state after it, detached; both float32.

    `mixed` lets the encoder compute in bfloat16. The heads never do, because it would round sums
    over the horizon to three digits.
    """
    begun_N = chunk.started_NL[:, 0].to(device)
    clean = tuple(part * begun_N.view(-1, *[1] * (part.dim() - 1)) for part in state)
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        ids_N3 = None if chunk.ids_N3 is None else chunk.ids_N3.to(device)
        inputs_NLI = network.with_embedding(chunk.inputs_NLI.to(device), ids_N3)
        encoded, after = network.forward(inputs_NLI, chunk.calendar_NLC.to(device), clean)
    return encoded.float(), tuple(part.detach().float() for part in after)


def origins_first(values: Tensor, *, groups: int) -> Tensor:
    """[N, P, …] → [G · P, B, …]: the origins that share a calendar first.

    >>> origins_first(torch.tensor([[0, 1], [10, 11]]), groups=1).tolist()
    [[0, 10], [1, 11]]
    """
    split = values.view(groups, values.shape[0] // groups, *values.shape[1:])
    return split.transpose(1, 2).flatten(0, 1)


def loss_at(
    *,
    network: QuantileNetwork,
    picked: TrainingSeries,
    chunk: Chunk,
    encoded_NLD: Tensor,
    positions_P: NDArray[np.int64],
    quantiles_Q: Tensor,
    cumulative_weight: float,
    target_weight: float = 0.0,
    ranks: Ranks | None = None,
) -> Tensor:
    """Loss of the forecasts made at some buckets of a chunk; of units only by default.

    With `ranks` it is the part of this process: the parts of all processes sum to the total.
    """
    device = quantiles_Q.device
    horizon, groups = network.config.horizon, len(chunk.first_G)
    positions = torch.from_numpy(positions_P)
    by_origin = partial(origins_first, groups=groups)
    horizon_OHC = picked.horizon_calendar(chunk.first_G, positions_P).to(device)
    encoded_OBD = by_origin(encoded_NLD[:, positions.to(device)])
    ids_N3 = None if chunk.ids_N3 is None else chunk.ids_N3.to(device)
    inputs_OBI = by_origin(
        network.with_embedding(chunk.inputs_NLI[:, positions].to(device), ids_N3)
    )
    reach_PH = positions[:, None] + torch.arange(horizon)
    plans = None
    if chunk.plans_NXP is not None:
        price = chunk.price_NL[:, positions, None]
        plans = by_origin(plan_features(chunk.plans_NXP[:, reach_PH], price)).to(device)
    carried = by_origin(chunk.carried_NLK[:, positions])
    ends = by_origin(chunk.ends_NL[:, positions])
    config = network.config
    layout = layout_of(config.bucket_ms)
    coming = layout.horizon(
        ends.flatten(), horizon, config.holidays_country, timezone=config.timezone
    )
    flat = anchors_of(carried.flatten(0, 1), coming, config)
    anchors = flat.map(lambda part: part.view(*carried.shape[:2], *part.shape[1:]).to(device))
    units, sums, *extras = network.heads(encoded_OBD, inputs_OBI, horizon_OHC, anchors, plans)
    total = (ranks or Ranks()).sum

    def loss_inputs(of: Chunk | TargetAhead) -> dict[str, Tensor]:
        scale = by_origin(of.scale_NL[:, positions]).to(device)
        return {
            "target": by_origin(of.ahead_NX[:, reach_PH]).to(device) / scale.unsqueeze(-1),
            "known": by_origin(of.known_NX[:, reach_PH]).to(device),
            "weight": by_origin(of.weight_NL[:, positions]).to(device),
            "quantiles_Q": quantiles_Q,
        }

    loss = forecast_loss(
        units=units,
        sums=sums,
        cumulative_weight=cumulative_weight,
        total=total,
        **loss_inputs(chunk),
    )
    if target_weight:
        for forecast, ahead in zip(extras, chunk.targets, strict=True):
            part = target_loss(forecast=forecast, total=total, **loss_inputs(ahead))
            loss = loss + target_weight * part
    return loss


def validate(
    network: QuantileNetwork, picked: TrainingSeries, config: TrainConfig, quantiles_Q: Tensor
) -> float:
    """Mean scaled loss from `picked.end` on, for a fixed set of series, after a warm-up."""
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
