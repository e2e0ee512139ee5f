"""Training of a quantile network: truncated backpropagation with carried state.

Lanes of series walk through the history chunk by chunk; their state is carried and detached between
chunks, so the network learns to live on carried state, and now and then a lane starts anew. Every
bucket is a possible forecast origin (forking sequences); a random subset of each chunk is used. The
end of the history is kept for validation, in order of time; training stops when it no longer
improves. The served weights are a running average of the trained ones (Polyak averaging).

A run can be spread over processes (`model/training/ranks.py`) and can go on after it was killed
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
from model.training.ranks import Ranks
from model.training.run import Place, Run
from model.training.run_file import RunFile


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
    """A trained network and what there is to say about it; `parent` is the model it began with."""

    network: QuantileNetwork
    config: TrainConfig
    span_ms: tuple[int, int]
    metrics: dict[str, float] = field(default_factory=dict)
    parent: str | None = None


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
    *,
    run_file: RunFile | None = None,
    start: QuantileNetwork | None = None,
) -> Trained:
    """Train a network on `history`, from the weights of `start` or from random ones.

    On a CPU and without `max_seconds` the same seed gives the same weights, whatever else the
    process does: the kernels run on `config.threads` threads of their own. With `run_file` the run
    goes on from the state kept there, if there is one, keeps its own there at every validation and
    when it is interrupted, and removes it when it is over. Processes that have `joined` train one
    network together. `start` stays as it is. Raises HistoryTooShort, InvalidValues,
    CorruptCheckpoint for a state that cannot be read, and IncompatibleCheckpoint for a `start` of
    another configuration.
    """
    if start is not None and start.config != config.model:
        raise IncompatibleCheckpoint("the weights to start from are of another configuration")
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
    elif network.prior is not None:
        fit_prior(network.prior, history.values_TSF[:end], history.told_SX)
    if network.unseen is not None:
        known = history.values_TSF[:end], history.told_SX, history.start_ms
        fit_unseen(network.unseen, *known)
    picked.prior = copy.deepcopy(network.prior)
    if network.embedding is not None:
        network.embedding.meet(torch.from_numpy(history.told_SX[picked.index_S]))
    network = network.to(device)
    run = Run(network, picked, config, ranks, run_file=run_file, stop=stop)

    def report(place: Place) -> None:
        if progress is not None:
            progress(
                TrainProgress(
                    update=place.update,
                    updates=config.updates,
                    seconds=place.seconds,
                    share=place.share,
                    loss=place.smooth,
                    validation_loss=place.validation,
                )
            )

    best = run.fit(report)
    return Trained(
        network=best.cpu().eval(),
        config=config,
        span_ms=(history.start_ms, history.end_ms),
        metrics=run.metrics,
    )
