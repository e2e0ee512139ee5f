"""Offline training for the command line and the demo: history in, a promoted checkpoint out.

The glue between settings, `model.training` and the registry, with a progress bar. It reads no
events itself; `stream.jobs.history.from_files` makes the history.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.config import ModelConfig, TrainConfig
from model.errors import ModelError
from model.evaluation.backtest import backtest, last_origins, score
from model.inference.forecaster import Forecaster, NetworkForecaster
from model.training.checkpoint import dump
from model.training.dataset import History, last_buckets
from model.training.ranks import Ranks
from model.training.run_file import RunFile
from model.training.train import Trained, TrainProgress, train
from stream.errors import UsageError
from stream.registry.model_registry import Registry
from stream.settings import ModelSettings, duration_text

#: The demo's budget: 3 minutes on 2 cores with everything around the training.
DEMO_SECONDS = 120.0

#: Origins at which a new model is held against the seasonal naive, and days before them.
_CHECKED_ORIGINS = 7
_WARM_DAYS = 28


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """What a training left behind; `promoted` is False where the yardstick was not beaten."""

    model_id: str
    promoted: bool
    metrics: dict[str, float]
    span_ms: tuple[int, int]

    @property
    def verdict(self) -> str:
        """Why the model serves, or does not, in one line."""
        wql, naive = self.metrics["wql"], self.metrics["wql_seasonal_naive"]
        word = "promoted" if self.promoted else "stored, not promoted"
        return f"{self.model_id} {word}: WQL {wql:.3f}, seasonal naive {naive:.3f}"


@dataclass(frozen=True, slots=True)
class Keep:
    """Where trainings keep their state until they are over, and whether to go on from one."""

    folder: Path
    resume: bool = False

    def open(self, history: History, config: TrainConfig, console: Console) -> RunFile:
        """The file of this training; says what it goes on from, forgets it unless asked to."""
        run_file = RunFile.of(self.folder, history, config)
        if Ranks.current().first:
            if not self.resume:
                run_file.discard()
            elif run_file.path.exists():
                console.print(f"going on from {run_file.path}", soft_wrap=True)
            else:
                console.print(
                    "no unfinished training of this file and these options; it begins anew"
                )
        return run_file


def train_config(
    settings: ModelSettings,
    *,
    bucket_ms: int,
    seed: int = 7,
    max_seconds: float | None = DEMO_SECONDS,
    updates: int | None = None,
) -> TrainConfig:
    """Training configuration for the deployed settings."""
    model = ModelConfig(
        horizon=settings.horizon,
        bucket_ms=bucket_ms,
        quantiles=settings.quantiles,
        architecture=settings.architecture,
        inputs_off=settings.inputs_off,
        static=settings.static,
        prior=settings.prior,
        plans=settings.plans,
        targets=settings.targets,
    )
    config = TrainConfig(
        model=model,
        device=device_name(settings),
        seed=seed,
        max_seconds=max_seconds,
        # Many short updates: within a few minutes these learn most (docs/experiments).
        lanes=64,
        chunk=48,
        origins=16,
        volume_power=0.7,
    )
    return config if updates is None else replace(config, updates=updates)


def device_name(settings: ModelSettings) -> str:
    """Where to train: `auto` is the GPU where there is one."""
    if settings.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return settings.device


def train_from_history(
    history: History,
    settings: ModelSettings,
    registry: Registry,
    *,
    max_seconds: float | None = DEMO_SECONDS,
    updates: int | None = None,
    seed: int = 7,
    promote: bool = True,
    console: Console | None = None,
    progress: Callable[[TrainProgress], None] | None = None,
    keep: Keep | None = None,
) -> TrainingOutcome:
    """Train on `history`, publish to `registry`, and show how far it is.

    The model is promoted only when its WQL over the last days of the history is below that of the
    seasonal naive, which would serve in its place. `progress` takes the place of the bar on
    `console`. Raises UsageError where the history is too short or holds what is no demand.
    """
    config = train_config(
        settings,
        bucket_ms=history.bucket_ms,
        seed=seed,
        max_seconds=max_seconds,
        updates=updates,
    )
    if progress is None:
        trained = train_with_bar(history, config, console=console, keep=keep)
    else:
        trained = _trained(history, config, progress, None)
    trained.metrics |= against_naive(trained, history)
    better = trained.metrics["wql"] < trained.metrics["wql_seasonal_naive"]
    model_id = publish(trained, registry, promote=promote and better)
    return TrainingOutcome(model_id, promote and better, trained.metrics, trained.span_ms)


def publish(trained: Trained, registry: Registry, *, promote: bool) -> str:
    """Put a network into the registry; its id. Of processes that train together, the first does."""
    if Ranks.current().first:
        return registry.publish(trained, promote=promote)
    return dump(trained)[1].model_id


def against_naive(trained: Trained, history: History) -> dict[str, float]:
    """WQL of a network and of the seasonal naive over the last origins, one horizon apart.

    These buckets chose when the training stopped, so they flatter the network a little; they were
    never trained on. Both models are carried over the buckets before, as the worker would.
    """
    config = trained.config.model
    per_day = config.buckets_per_day
    kept = min(history.buckets, _CHECKED_ORIGINS * config.horizon + _WARM_DAYS * per_day)
    recent = last_buckets(history, kept)
    naive = SeasonalNaiveForecaster(
        horizon=config.horizon, bucket_ms=config.bucket_ms, quantiles=config.quantiles
    )
    models: dict[str, Forecaster] = {
        "wql": NetworkForecaster(trained.network, "trained"),
        "wql_seasonal_naive": naive,
    }
    origins = last_origins(recent, horizon=config.horizon, count=_CHECKED_ORIGINS)
    result = backtest(recent, models, origins)
    scores = {name: score(result, name).wql for name in models}
    return {name: math.inf if wql is None else wql for name, wql in scores.items()}


def train_with_bar(
    history: History,
    config: TrainConfig,
    *,
    console: Console | None = None,
    keep: Keep | None = None,
) -> Trained:
    """Train with a progress bar on `console` (default: stderr); with `keep`, resumable.

    Of processes that train together the first shows the bar.
    """
    first = Ranks.current().first
    console = console or Console(stderr=True, quiet=not first)
    run_file = None if keep is None else keep.open(history, config, console)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[losses]}"),
        console=console,
        transient=not console.is_terminal,
    )
    title = (
        f"training {config.model.architecture} on {len(history.series)} series × "
        f"{history.buckets} buckets of {duration_text(history.bucket_ms)}"
    )
    with bar:
        task = bar.add_task(title, total=1.0, losses="")

        def show(at: TrainProgress) -> None:
            losses = f"loss {at.loss:.3f}"
            if at.validation_loss is not None:
                losses += f" · validation {at.validation_loss:.3f}"
            bar.update(task, completed=at.share, losses=losses)

        return _trained(history, config, show, run_file)


def _trained(
    history: History,
    config: TrainConfig,
    progress: Callable[[TrainProgress], None],
    run_file: RunFile | None,
) -> Trained:
    try:
        return train(history, config, progress, run_file=run_file)
    except ModelError as error:
        raise UsageError(f"cannot train: {error}") from error
