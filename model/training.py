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

from model.config import TrainConfig
from model.dataset import History, Picked, pick_series
from model.errors import HistoryTooShort
from model.networks.quantile import QuantileNetwork
from model.walk import Walk, encode, loss_at, validate


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
        """Learn and validate; then, at a low rate, learn from the validation part as well."""
        config = self.config
        walk = Walk(self.picked, self.network, config, self.rng)
        best, best_loss, stale = copy.deepcopy(self.network), math.inf, 0
        validation: float | None = None
        update, smooth, share = 0, 0.0, 0.0

        def learn(rate: float) -> None:
            nonlocal update, smooth
            loss = self.update(walk, rate, update)
            smooth = loss if not update else 0.95 * smooth + 0.05 * loss
            update += 1
            seconds = time.monotonic() - self.began
            progress(TrainProgress(update, config.updates, seconds, share, smooth, validation))

        learning = 1.0 - config.finish_share
        while not self.stop.is_set():
            share = self.share_done(update)
            over = share >= learning and update > 0
            if update and (over or update % config.validate_every == 0):
                validation = validate(self.average, self.picked, config, self.quantiles_Q)
                stale = 0 if validation < best_loss else stale + 1
                if not stale:
                    best, best_loss = copy.deepcopy(self.average), validation
            if over or stale >= config.patience:
                break
            learn(0.5 * (1 + math.cos(math.pi * share)))

        self.network.load_state_dict(best.state_dict())
        self.average.load_state_dict(best.state_dict())
        self.picked.end = int(self.picked.values_TSF.shape[0])
        last = update + round(update * config.finish_share / learning)
        first, began_at = update, share
        while update < last and not self.stop.is_set():
            left = (last - update) / (last - first)
            share = max(1 - left * (1 - began_at), self.share_done(update))
            if share >= 1.0:
                break
            learn(0.1 * left)
        seconds = time.monotonic() - self.began
        self.metrics = {
            "validation_loss": best_loss,
            "training_loss": smooth,
            "updates": float(update),
            "seconds": seconds,
        }
        progress(TrainProgress(update, config.updates, seconds, 1.0, smooth, best_loss))
        return self.average if update > first else best

    def update(self, walk: Walk, rate: float, number: int) -> float:
        """One chunk of every group, one step at `rate` of the learning rate; the loss."""
        config = self.config
        warm = min(1.0, (number + 1) / 50)
        rate = config.learning_rate * warm * max(rate, 0.01)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        chunk = walk.next_chunk()
        length = chunk.inputs_NLI.shape[1]
        count = min(config.origins, length)
        positions = np.sort(self.rng.choice(length, size=count, replace=False))
        encoded, walk.state = encode(self.network, chunk, walk.state, self.quantiles_Q.device)
        loss = loss_at(
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
