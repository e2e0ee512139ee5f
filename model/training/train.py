"""Training of a quantile network: truncated backpropagation with carried state.

Lanes of series advance through the history chunk by chunk; their state is carried and detached
between chunks, so the network learns from carried state, and a random share of the lanes restarts.
Every bucket is a possible forecast origin (forking sequences); each chunk uses a random subset. The
end of the history is held out for validation, in order of time; training stops when it no longer
improves. The served weights are a running average of the trained ones (Polyak averaging).

A run can be spread over processes (`model/training/ranks.py`) and resumed after it was killed
(`model/training/run_file.py`).

Axes: B = lanes, L = buckets of a chunk, P = origins, H = horizon, Q = quantiles, C = calendar.
"""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event

import torch

from model.config import TrainConfig
from model.errors import HistoryTooShort, IncompatibleCheckpoint
from model.inputs.newcomer_prior import fit_prior
from model.inputs.unseen_demand import fit_unseen
from model.networks.quantile_network import QuantileNetwork
from model.training.dataset import History, pick_series
from model.training.memory import RETRIES, with_fewer_lanes
from model.training.ranks import Ranks
from model.training.run import Run, RunPosition
from model.training.run_file import RunFile


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """Progress of a training. `share` runs from 0 to 1; losses are scaled pinball losses."""

    update: int
    updates: int
    seconds: float
    share: float
    loss: float
    validation_loss: float | None


@dataclass(slots=True)
class Trained:
    """A trained network, its data span and metrics; `parent` is the model it started from."""

    network: QuantileNetwork
    config: TrainConfig
    span_ms: tuple[int, int]
    metrics: dict[str, float] = field(default_factory=dict)
    parent: str | None = None


def require_enough(history: History, config: TrainConfig) -> int:
    """Bucket at which validation starts. Raises HistoryTooShort with the required length."""
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
    *,
    run_file: RunFile | None = None,
    start: QuantileNetwork | None = None,
) -> Trained:
    """Train a network on `history`, from the weights of `start` or from random ones.

    On a CPU and without `max_seconds` the same seed gives the same weights, whatever the rest of
    the process does: the kernels run on `config.threads` threads of their own. With `run_file` the
    run resumes from the state in it, if any, saves its own state at every validation and on
    interruption, and deletes it at the end. Processes inside `ranks.process_group` train one
    network together. `start` is not changed. A training that runs out of memory begins again with
    half the lanes, if it is the only process (`model/training/memory.py`). Raises HistoryTooShort,
    InvalidValues, CorruptCheckpoint for a state that cannot be read, IncompatibleCheckpoint for a
    `start` of another configuration, and OutOfMemory.
    """
    if start is not None and start.config != config.model:
        raise IncompatibleCheckpoint("the weights to start from have another configuration")

    def attempt(config: TrainConfig, run_file: RunFile | None) -> Trained:
        stop = Event()
        with ThreadPoolExecutor(
            1, "train", initializer=torch.set_num_threads, initargs=(config.threads,)
        ) as pool:
            running = pool.submit(
                _train, history, config, progress, run_file=run_file, start=start, stop=stop
            )
            try:
                return running.result()
            finally:
                stop.set()

    # the other processes of a group would wait for this one's next gradient
    retries = RETRIES if Ranks.current().size == 1 else 0
    return with_fewer_lanes(attempt, config, run_file, retries=retries)


def _train(
    history: History,
    config: TrainConfig,
    progress: Callable[[TrainProgress], None] | None,
    *,
    run_file: RunFile | None,
    start: QuantileNetwork | None,
    stop: Event,
) -> Trained:
    end = require_enough(history, config)
    ranks = Ranks.current()
    device = ranks.device(config.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.manual_seed(config.seed)
    picked = pick_series(
        history,
        config.model,
        end=end,
        every=min(config.chunk, max(8, end // 4)),
        limit=config.max_series,
        power=config.volume_power,
    )
    network = QuantileNetwork(config.model)
    if start is not None:
        network.load_state_dict(start.state_dict())
    if network.prior is not None and not bool(network.prior.common.any()):
        fit_prior(network.prior, history.values_TSF[:end], history.static_features_SX)
    if network.unseen is not None:
        known = history.values_TSF[:end], history.static_features_SX, history.start_ms
        fit_unseen(network.unseen, *known)
    picked.prior = copy.deepcopy(network.prior)
    if network.embedding is not None:
        network.embedding.mark_seen(torch.from_numpy(history.static_features_SX[picked.index_S]))
    network = network.to(device)
    run = Run(network, picked, config, ranks, run_file=run_file, stop=stop)

    def report(position: RunPosition) -> None:
        if progress is not None:
            progress(
                TrainProgress(
                    update=position.update,
                    updates=config.updates,
                    seconds=position.seconds,
                    share=position.share,
                    loss=position.smooth,
                    validation_loss=position.validation,
                )
            )

    best = run.fit(report)
    return Trained(
        network=best.cpu().eval(),
        config=config,
        span_ms=(history.start_ms, history.end_ms),
        metrics=run.metrics,
    )
