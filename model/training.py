"""Training of a quantile network: truncated backpropagation with carried state.

Lanes of series walk through the history chunk by chunk; their state is carried and detached between
chunks, so the network learns to live on carried state, and now and then a lane starts anew. Every
bucket is a possible forecast origin (forking sequences); a random subset of each chunk is used. The
end of the history is kept for validation, in order of time; training stops when it no longer
improves. The served weights are a running average of the trained ones (Polyak averaging).

Axes: B = lanes, L = buckets of a chunk, P = origins, H = horizon, Q = quantiles, C = calendar.
"""

import copy
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import TrainConfig
from model.dataset import Chunk, History, Picked, pick_series
from model.errors import HistoryTooShort
from model.inputs import new_carried
from model.losses import forecast_loss
from model.networks.base import State
from model.networks.quantile import QuantileNetwork


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """How far a training is. `share` runs from 0 to 1; losses are scaled pinball losses."""

    update: int
    updates: int
    seconds: float
    share: float
    loss: float
    validation_loss: float | None


@dataclass(slots=True)
class Trained:
    """A trained network and what there is to say about it."""

    network: QuantileNetwork
    config: TrainConfig
    span_ms: tuple[int, int]
    metrics: dict[str, float] = field(default_factory=dict)


class _Walk:
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


def _encode(
    network: QuantileNetwork, chunk: Chunk, state: State, device: torch.device
) -> tuple[Tensor, State]:
    """Encodings [N, L, D] of a chunk, and the state after it, detached."""
    begun_N = chunk.started_NL[:, 0].to(device)
    clean = tuple(part * begun_N.view(-1, *[1] * (part.dim() - 1)) for part in state)
    encoded, after = network.forward(
        chunk.inputs_NLI.to(device), chunk.calendar_NLC.to(device), clean
    )
    return encoded, tuple(part.detach() for part in after)


def _loss_at(
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
    units, sums = network.heads(by_origin(encoded_NLD[:, positions.to(device)]), horizon_OHC)
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


def _validate(
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
            encoded, state = _encode(network, chunk, state, device)
            positions = np.arange(0, length, max(1, length // 16), dtype=np.int64)
            positions = positions[first + positions >= picked.end - 1]
            if positions.size:
                part = _loss_at(
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


def require_enough(history: History, config: TrainConfig) -> int:
    """Bucket at which validation begins. Raises HistoryTooShort with what would be enough."""
    horizon = config.model.horizon
    held_back = max(horizon, round(history.buckets * config.validation_share))
    held_back = min(held_back, max(3 * horizon, 28 * config.model.buckets_per_day))
    needed = 4 * horizon + 8
    if history.buckets < needed:
        raise HistoryTooShort(
            f"{history.buckets} buckets are too few to train a horizon of {horizon}: "
            f"give at least {needed}, or a shorter horizon"
        )
    if history.bucket_ms != config.model.bucket_ms:
        raise HistoryTooShort(
            f"the history has buckets of {history.bucket_ms} ms, "
            f"the model of {config.model.bucket_ms} ms"
        )
    return history.buckets - held_back


def train(
    history: History,
    config: TrainConfig,
    progress: Callable[[TrainProgress], None] | None = None,
) -> Trained:
    """Train a network on `history`.

    On a CPU and without `max_seconds` the same seed gives the same weights, whatever else the
    process does: the kernels run on `config.threads` threads of their own. Raises HistoryTooShort
    and InvalidValues.
    """
    stop = Event()
    with ThreadPoolExecutor(
        1, "train", initializer=torch.set_num_threads, initargs=(config.threads,)
    ) as pool:
        running = pool.submit(_train, history, config, progress, stop)
        try:
            return running.result()
        finally:
            stop.set()


def _train(
    history: History,
    config: TrainConfig,
    progress: Callable[[TrainProgress], None] | None,
    stop: Event,
) -> Trained:
    began = time.monotonic()
    end = require_enough(history, config)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    picked = pick_series(
        history,
        config.model,
        end=end,
        every=min(config.chunk, max(8, end // 4)),
        limit=config.max_series,
        power=config.volume_power,
    )
    device = torch.device(config.device)
    network = QuantileNetwork(config.model).to(device)
    run = _Run(network, picked, config, rng, began=began, stop=stop)
    best = run.fit(progress or (lambda _: None))
    return Trained(
        network=best.cpu().eval(),
        config=config,
        span_ms=(history.start_ms, history.end_ms),
        metrics=run.metrics,
    )


class _Run:
    """One training: optimiser, schedule, averaging, early stopping."""

    def __init__(
        self,
        network: QuantileNetwork,
        picked: Picked,
        config: TrainConfig,
        rng: np.random.Generator,
        *,
        began: float,
        stop: Event,
    ) -> None:
        self.network = network
        self.average = copy.deepcopy(network)
        self.picked = picked
        self.config = config
        self.rng = rng
        self.began = began
        self.stop = stop
        self.metrics: dict[str, float] = {}
        self.quantiles_Q = torch.tensor(config.model.quantiles, device=config.device)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def share_done(self, update: int) -> float:
        """How much of the budget is spent: updates, or seconds if those end first."""
        share = update / self.config.updates
        if self.config.max_seconds:
            share = max(share, (time.monotonic() - self.began) / self.config.max_seconds)
        return min(share, 1.0)

    def fit(self, progress: Callable[[TrainProgress], None]) -> QuantileNetwork:
        """Update until the budget is spent or validation no longer improves; the best average."""
        config = self.config
        walk = _Walk(self.picked, self.network, config, self.rng)
        best, best_loss, stale = copy.deepcopy(self.network), math.inf, 0
        validation: float | None = None
        update, smooth = 0, 0.0
        while True:
            share = self.share_done(update)
            if update and (share >= 1.0 or update % config.validate_every == 0):
                validation = _validate(self.average, self.picked, config, self.quantiles_Q)
                if validation < best_loss:
                    best, best_loss, stale = copy.deepcopy(self.average), validation, 0
                else:
                    stale += 1
            if share >= 1.0 or stale >= config.patience or self.stop.is_set():
                break
            loss = self.update(walk, share, update)
            smooth = loss if not update else 0.95 * smooth + 0.05 * loss
            update += 1
            seconds = time.monotonic() - self.began
            progress(TrainProgress(update, config.updates, seconds, share, smooth, validation))
        seconds = time.monotonic() - self.began
        self.metrics = {
            "validation_loss": best_loss,
            "training_loss": smooth,
            "updates": float(update),
            "seconds": seconds,
        }
        progress(TrainProgress(update, config.updates, seconds, 1.0, smooth, best_loss))
        return best

    def update(self, walk: _Walk, share: float, number: int) -> float:
        """One chunk of every group, one step of the optimiser. Returns the loss."""
        config = self.config
        warm = min(1.0, (number + 1) / 50)
        rate = config.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        chunk = walk.next_chunk()
        length = chunk.inputs_NLI.shape[1]
        count = min(config.origins, length)
        positions = np.sort(self.rng.choice(length, size=count, replace=False))
        encoded, walk.state = _encode(self.network, chunk, walk.state, self.quantiles_Q.device)
        loss = _loss_at(
            network=self.network,
            picked=self.picked,
            chunk=chunk,
            encoded_NLD=encoded,
            positions_P=positions,
            quantiles_Q=self.quantiles_Q,
            cumulative_weight=config.cumulative_weight,
        )
        loss.backward()  # type: ignore[no-untyped-call]  # torch types backward loosely
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        self.optimizer.step()
        self._average(number)
        return float(loss.detach())

    def _average(self, number: int) -> None:
        """Move the running average of the weights; it starts short and gets longer."""
        keep = min(self.config.average_decay, (1 + number) / (10 + number))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
            for averaged, trained in pairs:
                averaged.lerp_(trained, 1 - keep)
