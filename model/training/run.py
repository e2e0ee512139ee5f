"""One run of training: objective, optimiser, schedule, averaging, early stopping, and its state.

A run advances chunk by chunk with carried, detached state; every `validate_every` updates it
validates and saves itself. `model/training/train.py` starts it.

Axes: N = lanes, L = buckets of a chunk, P = origins, D = encoded width, Q = quantiles.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.config import TrainConfig
from model.networks.base import State
from model.networks.quantile_network import QuantileNetwork
from model.training.dataset import Chunk, TrainingSeries
from model.training.lanes import LaneGroups, encode, loss_at, validate
from model.training.losses import TARGET_WEIGHT
from model.training.ranks import Ranks
from model.training.run_file import MOMENTS, RunFile, Saved, by_owner, moments_of, restore_moments

#: Maximum time between saves, whatever the time between validations.
_SAVE_EVERY_S = 20.0


class _Objective(nn.Module):
    """The loss of a chunk as a module, so that its gradients can be averaged over processes."""

    def __init__(
        self, network: QuantileNetwork, picked: TrainingSeries, config: TrainConfig, ranks: Ranks
    ) -> None:
        super().__init__()
        self.network = network
        self.picked = picked
        self.config = config
        self.ranks = ranks
        self.quantiles_Q: Tensor
        device = ranks.device(config.device)
        quantiles_Q = torch.tensor(config.model.quantiles, device=device)
        self.register_buffer("quantiles_Q", quantiles_Q, persistent=False)

    def forward(
        self, chunk: Chunk, state: State, positions_P: NDArray[np.int64]
    ) -> tuple[Tensor, State]:
        """This process' part of the loss, and the state after the chunk."""
        encoded_NLD, after = encode(
            self.network, chunk, state, self.quantiles_Q.device, mixed=self.config.mixed
        )
        loss = loss_at(
            network=self.network,
            picked=self.picked,
            chunk=chunk,
            encoded_NLD=encoded_NLD,
            positions_P=positions_P,
            quantiles_Q=self.quantiles_Q,
            cumulative_weight=self.config.cumulative_weight,
            target_weight=TARGET_WEIGHT,
            ranks=self.ranks,
        )
        return loss, after


@dataclass(slots=True)
class RunPosition:
    """Progress of a run; all fields are saved.

    `share` of the budget runs from 0 to 1, `smooth` is the smoothed training loss, `finish_at` the
    update at which the finish began, `seconds` the time spent so far.
    """

    update: int = 0
    smooth: float = 0.0
    share: float = 0.0
    validation: float | None = None
    validated_at: int = -1
    best_loss: float = math.inf
    stale: int = 0
    finish_at: int | None = None
    finish_share: float = 0.0
    seconds: float = 0.0


class Run:
    """One training: optimiser, schedule, averaging, early stopping."""

    def __init__(
        self,
        network: QuantileNetwork,
        picked: TrainingSeries,
        config: TrainConfig,
        ranks: Ranks,
        *,
        run_file: RunFile | None,
        stop: Event,
    ) -> None:
        self.network = network
        self.average = copy.deepcopy(network)
        self.best = copy.deepcopy(network)
        self.picked = picked
        self.config = config
        self.ranks = ranks
        self.run_file = run_file
        self.stop = stop
        self.metrics: dict[str, float] = {}
        self.objective = _Objective(network, picked, config, ranks)
        self.wrapped = ranks.wrap(self.objective)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.rng = np.random.default_rng(config.seed)
        self.lanes = LaneGroups(picked, network, config, self.rng, ranks)
        self.position = RunPosition()
        exists = run_file is not None and run_file.path.exists()
        if run_file is not None and ranks.broadcast(float(exists), self.device):
            saved = run_file.load()
            if saved is not None:
                self._restore(saved)
        if not self.position.update:
            self.lanes.begin()
        self.saved = time.monotonic()
        self.began = self.saved - self.position.seconds

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.objective.quantiles_Q.device

    def share_done(self) -> float:
        """Share of the budget spent: updates, or seconds if those end first."""
        share = self.position.update / self.config.updates
        if self.config.max_seconds:
            spent = (time.monotonic() - self.began) / self.config.max_seconds
            share = max(share, self.ranks.broadcast(spent, self.device))
        return min(share, 1.0)

    def fit(self, progress: Callable[[RunPosition], None]) -> QuantileNetwork:
        """Learn and validate; then, at a low rate, learn from the validation part as well."""
        position = self.position
        if position.finish_at is None:
            self._learn(progress)
            if not self.stop.is_set():
                self._begin_finish()
        if position.finish_at is not None:
            self._finish(progress)
        if self.stop.is_set() and self.ranks.size == 1:
            self._save()
        elif self.run_file is not None and self.ranks.first:
            self.run_file.discard()
        self.metrics = {
            "validation_loss": position.best_loss,
            "training_loss": position.smooth,
            "updates": float(position.update),
            "seconds": self._now().seconds,
        }
        position.share, position.validation = 1.0, position.best_loss
        progress(self._now())
        return self.average if position.update > (position.finish_at or 0) else self.best

    def _learn(self, progress: Callable[[RunPosition], None]) -> None:
        """Learn from the training part until the validation loss, first of the start, is stale."""
        position, config = self.position, self.config
        learning = 1.0 - config.finish_share
        while not self.stop.is_set():
            position.share = self.share_done()
            over = position.share >= learning and position.update > 0
            due = over or position.update % config.validate_every == 0
            if due and position.update > position.validated_at:
                self._validate()
                if position.update:
                    self._save()
            if over or position.stale >= config.patience:
                break
            self._save_if_due()
            self._update(0.5 * (1 + math.cos(math.pi * position.share)))
            progress(self._now())

    def _validate(self) -> None:
        """Compute the loss of the averaged weights on the validation part; keep the best."""
        position = self.position
        loss = math.inf
        if self.ranks.first:
            loss = validate(self.average, self.picked, self.config, self.objective.quantiles_Q)
        position.validation = self.ranks.broadcast(loss, self.device)
        position.validated_at = position.update
        position.stale = 0 if position.validation < position.best_loss else position.stale + 1
        if not position.stale:
            self.best.load_state_dict(self.average.state_dict())
            position.best_loss = position.validation

    def _begin_finish(self) -> None:
        """Restore the best weights and begin the finish."""
        position = self.position
        self.network.load_state_dict(self.best.state_dict())
        self.average.load_state_dict(self.best.state_dict())
        position.finish_at, position.finish_share = position.update, position.share

    def _finish(self, progress: Callable[[RunPosition], None]) -> None:
        """Make the last updates at a low rate, on the validation part too."""
        position, config = self.position, self.config
        assert position.finish_at is not None
        self.picked.end = int(self.picked.values_TSF.shape[0])
        learning = 1.0 - config.finish_share
        updates = round(position.finish_at * config.finish_share / learning)
        last = position.finish_at + updates
        while position.update < last and not self.stop.is_set():
            left = (last - position.update) / updates
            position.share = max(1 - left * (1 - position.finish_share), self.share_done())
            if position.share >= 1.0:
                break
            self._update(0.1 * left)
            if (position.update - position.finish_at) % config.validate_every == 0:
                self._save()
            self._save_if_due()
            progress(self._now())

    def _now(self) -> RunPosition:
        self.position.seconds = time.monotonic() - self.began
        return self.position

    def _update(self, rate: float) -> None:
        """One chunk of every group, one step at `rate` of the learning rate."""
        config, position = self.config, self.position
        # dropout depends on the update alone, so a resumed run needs no generator state
        torch.manual_seed(_seed_of(config.seed, self.ranks.rank, position.update))
        warm = min(1.0, (position.update + 1) / 50)
        rate = config.learning_rate * warm * max(rate, 0.01)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        chunk = self.lanes.next_chunk()
        length = chunk.inputs_NLI.shape[1]
        count = min(config.origins, length)
        positions_P = np.sort(self.rng.choice(length, size=count, replace=False))
        part, self.lanes.state = self.wrapped(chunk, self.lanes.state, positions_P)
        # the parts of all processes sum to the loss, but their gradients are averaged
        (part * self.ranks.size).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        self.optimizer.step()
        self._average()
        loss = float(self.ranks.sum(part.detach()))
        position.smooth = loss if not position.update else 0.95 * position.smooth + 0.05 * loss
        position.update += 1

    def _average(self) -> None:
        """Update the running average of the weights; its span grows with the updates."""
        number = self.position.update
        keep = min(self.config.average_decay, (1 + number) / (10 + number))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
            for averaged, trained in pairs:
                averaged.lerp_(trained, 1 - keep)

    def _save_if_due(self) -> None:
        """Save between distant validations; single process only, as clocks differ."""
        if self.ranks.size == 1 and time.monotonic() - self.saved > _SAVE_EVERY_S:
            self._save()

    def _save(self) -> None:
        """Save everything the rest of the run depends on."""
        self.saved = time.monotonic()
        if self.run_file is None:
            return
        tensors = {f"walk.{name}": part for name, part in self.lanes.tensors().items()}
        if not self.ranks.first:
            return
        for name, network in self._networks().items():
            tensors |= {f"{name}.{key}": part for key, part in network.state_dict().items()}
        tensors |= moments_of(self.optimizer)
        values = {"place": asdict(self._now()), "rng": self.rng.bit_generator.state}
        self.run_file.save(values, tensors)

    def _restore(self, saved: Saved) -> None:
        parts = by_owner(saved.tensors)
        for name, network in self._networks().items():
            network.load_state_dict(parts[name])
        restore_moments(self.optimizer, parts.get(MOMENTS, {}))
        self.position = RunPosition(**saved.values["place"])
        self.rng.bit_generator.state = saved.values["rng"]
        self.lanes.resume(parts["walk"])

    def _networks(self) -> dict[str, QuantileNetwork]:
        return {"network": self.network, "average": self.average, "best": self.best}


def _seed_of(seed: int, rank: int, update: int) -> int:
    """Seed of one update of one process.

    >>> _seed_of(7, 0, 1) == _seed_of(7, 0, 1), _seed_of(7, 0, 1) == _seed_of(7, 1, 1)
    (True, False)
    """
    return int(np.random.SeedSequence([seed, rank, update]).generate_state(1)[0])
