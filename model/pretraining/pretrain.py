"""Pretraining: one network learns from thousands of synthetic shops of every bucket width.

Every update reads a chunk of two shops. The shops differ in bucket width, horizon, density, season
and length (`walks.KINDS`), so the weights serve any of them, and a shop that is new starts with
them instead of with none. On a CPU the same seed gives the same weights.

Axes: P = origins in a chunk, Q = quantiles.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from model.config import NETWORK_QUANTILES, ModelConfig
from model.durations import DAY_MS
from model.inputs.anchors import error_of
from model.networks.quantile_network import QuantileNetwork
from model.pretraining.walks import KINDS, Fleet, Kind, Walk
from model.training.dataset import Chunk
from model.training.lanes import encode, loss_at

#: The network that ships; bucket width, horizon and country are those of whoever serves it.
PRETRAINED: Final = ModelConfig(
    horizon=28, bucket_ms=DAY_MS, quantiles=NETWORK_QUANTILES, plans=True,
    holidays_country=None, dropout=0.05,
)  # fmt: skip
_FLEETS: Final = 6
_RATE: Final = 2e-3
_WARM_UP: Final = 100
_AVERAGE: Final = 0.998
#: Forecasts of one series and chunk that are scored, in buckets of the horizon.
_SCORED: Final = 280
#: Least error of these weights, in multiples of the scale.
_LEAST_ERROR: Final = 0.03


@dataclass(slots=True)
class PretrainProgress:
    """Updates so far, and the smoothed loss of each kind of shop."""

    update: int = 0
    loss: dict[Kind, float] = field(default_factory=dict)

    def note(self, kind: Kind, loss: float) -> None:
        """Smooth the loss of one chunk."""
        self.loss[kind] = 0.98 * self.loss.get(kind, loss) + 0.02 * loss


def pretrain(
    updates: int,
    *,
    seed: int,
    kinds: Sequence[Kind] = KINDS,
    progress: Callable[[PretrainProgress, QuantileNetwork], None] | None = None,
) -> QuantileNetwork:
    """Train for a number of updates; returns the running average of the weights.

    `progress` is called after each update with the average so far.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = QuantileNetwork(PRETRAINED)
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=1e-4)
    quantiles_Q = torch.tensor(PRETRAINED.quantiles)
    fleets = [_new_fleet(kinds, rng) for _ in range(_FLEETS)]
    done = PretrainProgress()
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = _rate(update, updates)
        optimizer.zero_grad(set_to_none=True)
        for _ in range(2):
            place = int(rng.integers(_FLEETS))
            if fleets[place].over:
                fleets[place] = _new_fleet(kinds, rng)
            walk, chunk = fleets[place].next()
            loss = _loss(network, walk, chunk, rng, quantiles_Q)
            if loss.requires_grad and bool(torch.isfinite(loss)):
                (loss / 2).backward()  # type: ignore[no-untyped-call]  # torch
                done.note(fleets[place].kind, float(loss.detach()))
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        keep = min(_AVERAGE, (1 + update) / (10 + update))
        with torch.no_grad():
            for mean, own in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(own, 1 - keep)
        done.update = update + 1
        if progress is not None:
            progress(done, average)
    return average.eval()


def _new_fleet(kinds: Sequence[Kind], rng: np.random.Generator) -> Fleet:
    share = np.array([kind.share for kind in kinds])
    kind = kinds[int(rng.choice(len(kinds), p=share / share.sum()))]
    return Fleet(PRETRAINED, kind, rng)


def _rate(update: int, updates: int) -> float:
    """Learning rate: a linear start, then a cosine down to 2 %.

    >>> round(_rate(0, 1000), 6), round(_rate(999, 1000), 6)
    (2e-05, 4e-05)
    """
    cosine = max(0.02, 0.5 * (1 + math.cos(math.pi * update / updates)))
    return _RATE * min(1.0, (update + 1) / _WARM_UP) * cosine


def _loss(
    network: QuantileNetwork,
    walk: Walk,
    chunk: Chunk,
    rng: np.random.Generator,
    quantiles_Q: Tensor,
) -> Tensor:
    """Loss of some forecasts of a chunk; carries the state of the walk over it."""
    device = torch.device("cpu")
    config = walk.config
    chunk = replace(chunk, weight_NL=_in_errors(chunk))
    here = configured(network, config)
    if walk.state is None:
        walk.state = network.new_state(walk.size, device)
    encoded_NLD, walk.state = encode(here, chunk, walk.state, device)
    length = encoded_NLD.shape[1]
    count = min(length, max(2, min(10, _SCORED // config.horizon + 1)))
    positions_P = np.sort(rng.choice(length, size=count, replace=False))
    return loss_at(
        network=here,
        picked=walk.picked,
        chunk=chunk,
        encoded_NLD=encoded_NLD,
        positions_P=positions_P,
        quantiles_Q=quantiles_Q,
        cumulative_weight=0.3,
    )


def _in_errors(chunk: Chunk) -> Tensor:
    """Weights [N, L] that turn a loss in multiples of the scale into one in the series' own error.

    So steady series count as much as noisy ones, as they do in a mean over panels of the loss
    relative to that of a naive forecast.
    """
    error_X = error_of(chunk.carried_NLK.flatten(0, 1), chunk.scale_NL.flatten())
    return chunk.started_NL / error_X.view(chunk.scale_NL.shape).clamp(min=_LEAST_ERROR)


def configured(network: QuantileNetwork, config: ModelConfig) -> QuantileNetwork:
    """The same network, sharing its weights, at another bucket width, horizon or country."""
    shared = copy.copy(network)
    shared.config = config
    return shared
