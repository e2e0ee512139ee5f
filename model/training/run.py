"""One run of training: objective, optimiser, schedule, averaging, early stopping, and its state.

`model/training/train.py` starts it. A run walks chunk by chunk with carried, detached state; every
`validate_every` updates it validates and saves itself.

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
from model.training.dataset import Chunk, Picked
from model.training.lanes import Walk, encode, loss_at, validate
from model.training.losses import TARGET_WEIGHT
from model.training.ranks import Ranks
from model.training.run_file import MOMENTS, RunFile, Saved, by_owner, moments_of, restore_moments

#: The most a killed run loses, however long its validations are apart.
_SAVE_EVERY_S = 20.0


class _Objective(nn.Module):
    """The loss of a chunk, and the state behind it: what the gradient is taken of."""

    def __init__(
        self, network: QuantileNetwork, picked: Picked, config: TrainConfig, ranks: Ranks
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
class Place:
    """How far a run is; all of it is saved.

    `share` of the budget runs from 0 to 1, `smooth` is the smoothed training loss, `finish_at` the
    update at which it turned to the finish, `seconds` what it has taken so far.
    """

    update: int = 0
    smooth: float = 0.0
    share: float = 0.0
    validation: float | None = None
    validated_at: int = 0
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
        picked: Picked,
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
        self.walk = Walk(picked, network, config, self.rng, ranks)
        self.place = Place()
        there = run_file is not None and run_file.path.exists()
        if run_file is not None and ranks.from_first(float(there), self.device):
            saved = run_file.load()
            if saved is not None:
                self._restore(saved)
        if not self.place.update:
            self.walk.begin()
        self.saved = time.monotonic()
        self.began = self.saved - self.place.seconds

    @property
    def device(self) -> torch.device:
        """Where the network is trained."""
        return self.objective.quantiles_Q.device

    def share_done(self) -> float:
        """How much of the budget is spent: updates, or seconds if those end first."""
        share = self.place.update / self.config.updates
        if self.config.max_seconds:
            spent = (time.monotonic() - self.began) / self.config.max_seconds
            share = max(share, self.ranks.from_first(spent, self.device))
        return min(share, 1.0)

    def fit(self, progress: Callable[[Place], None]) -> QuantileNetwork:
        """Learn and validate; then, at a low rate, learn from the validation part as well."""
        place = self.place
        if place.finish_at is None:
            self._learn(progress)
            if not self.stop.is_set():
                self._turn()
        if place.finish_at is not None:
            self._finish(progress)
        if self.stop.is_set() and self.ranks.size == 1:
            self._save()
        elif self.run_file is not None and self.ranks.first:
            self.run_file.discard()
        self.metrics = {
            "validation_loss": place.best_loss,
            "training_loss": place.smooth,
            "updates": float(place.update),
            "seconds": self._now().seconds,
        }
        place.share, place.validation = 1.0, place.best_loss
        progress(self._now())
        return self.average if place.update > (place.finish_at or 0) else self.best

    def _learn(self, progress: Callable[[Place], None]) -> None:
        """Learn from the training part until the validation loss no longer falls."""
        place, config = self.place, self.config
        learning = 1.0 - config.finish_share
        while not self.stop.is_set():
            place.share = self.share_done()
            over = place.share >= learning and place.update > 0
            due = over or place.update % config.validate_every == 0
            if due and place.update > place.validated_at:
                self._validate()
                self._save()
            if over or place.stale >= config.patience:
                break
            self._save_now_and_then()
            self._update(0.5 * (1 + math.cos(math.pi * place.share)))
            progress(self._now())

    def _validate(self) -> None:
        """Loss of the averaged weights on what follows the training part; keep the best."""
        place = self.place
        loss = math.inf
        if self.ranks.first:
            loss = validate(self.average, self.picked, self.config, self.objective.quantiles_Q)
        place.validation = self.ranks.from_first(loss, self.device)
        place.validated_at = place.update
        place.stale = 0 if place.validation < place.best_loss else place.stale + 1
        if not place.stale:
            self.best.load_state_dict(self.average.state_dict())
            place.best_loss = place.validation

    def _turn(self) -> None:
        """Go back to the best weights and on to the finish."""
        place = self.place
        self.network.load_state_dict(self.best.state_dict())
        self.average.load_state_dict(self.best.state_dict())
        place.finish_at, place.finish_share = place.update, place.share

    def _finish(self, progress: Callable[[Place], None]) -> None:
        """A few updates at a low rate that see the validation part too."""
        place, config = self.place, self.config
        assert place.finish_at is not None
        self.picked.end = int(self.picked.values_TSF.shape[0])
        learning = 1.0 - config.finish_share
        updates = round(place.finish_at * config.finish_share / learning)
        last = place.finish_at + updates
        while place.update < last and not self.stop.is_set():
            left = (last - place.update) / updates
            place.share = max(1 - left * (1 - place.finish_share), self.share_done())
            if place.share >= 1.0:
                break
            self._update(0.1 * left)
            if (place.update - place.finish_at) % config.validate_every == 0:
                self._save()
            self._save_now_and_then()
            progress(self._now())

    def _now(self) -> Place:
        self.place.seconds = time.monotonic() - self.began
        return self.place

    def _update(self, rate: float) -> None:
        """One chunk of every group, one step at `rate` of the learning rate."""
        config, place = self.config, self.place
        # dropout depends on the update alone, so a run that goes on needs no generator's past
        torch.manual_seed(_seed_of(config.seed, self.ranks.rank, place.update))
        warm = min(1.0, (place.update + 1) / 50)
        rate = config.learning_rate * warm * max(rate, 0.01)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        chunk = self.walk.next_chunk()
        length = chunk.inputs_NLI.shape[1]
        count = min(config.origins, length)
        positions_P = np.sort(self.rng.choice(length, size=count, replace=False))
        part, self.walk.state = self.wrapped(chunk, self.walk.state, positions_P)
        # the processes' parts add up to the loss, but their gradients are averaged
        (part * self.ranks.size).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        self.optimizer.step()
        self._average()
        loss = float(self.ranks.sum(part.detach()))
        place.smooth = loss if not place.update else 0.95 * place.smooth + 0.05 * loss
        place.update += 1

    def _average(self) -> None:
        """Move the running average of the weights; it starts short and gets longer."""
        number = self.place.update
        keep = min(self.config.average_decay, (1 + number) / (10 + number))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
            for averaged, trained in pairs:
                averaged.lerp_(trained, 1 - keep)

    def _save_now_and_then(self) -> None:
        """Save where validations lie far apart; processes that train together would not agree."""
        if self.ranks.size == 1 and time.monotonic() - self.saved > _SAVE_EVERY_S:
            self._save()

    def _save(self) -> None:
        """Keep all that the rest of the run depends on."""
        self.saved = time.monotonic()
        if self.run_file is None:
            return
        tensors = {f"walk.{name}": part for name, part in self.walk.tensors().items()}
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
        self.place = Place(**saved.values["place"])
        self.rng.bit_generator.state = saved.values["rng"]
        self.walk.resume(parts["walk"])

    def _networks(self) -> dict[str, QuantileNetwork]:
        return {"network": self.network, "average": self.average, "best": self.best}


def _seed_of(seed: int, rank: int, update: int) -> int:
    """Seed of one update of one process.

    >>> _seed_of(7, 0, 1) == _seed_of(7, 0, 1), _seed_of(7, 0, 1) == _seed_of(7, 1, 1)
    (True, False)
    """
    return int(np.random.SeedSequence([seed, rank, update]).generate_state(1)[0])
