"""Offline training for the command line and the demo: history in, a promoted checkpoint out.

The glue between settings, `model.training` and the registry, with a progress bar. It reads no
events itself; `stream.jobs.history` makes the history.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from model.config import ModelConfig, TrainConfig
from model.dataset import History
from model.errors import ModelError
from model.training import Trained, TrainProgress, train
from stream.errors import UsageError
from stream.registry import Registry
from stream.settings import ModelSettings, duration_text

#: The demo's budget: 3 minutes on 2 cores with everything around the training.
DEMO_SECONDS = 150.0


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """What a training left behind."""

    model_id: str
    metrics: dict[str, float]
    span_ms: tuple[int, int]


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
    )
    config = TrainConfig(model=model, seed=seed, max_seconds=max_seconds)
    return config if updates is None else replace(config, updates=updates)


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
) -> TrainingOutcome:
    """Train on `history`, publish to `registry`, promote, and show how far it is.

    `progress` takes the place of the bar on `console`. Raises UsageError where the history is too
    short or holds what is no demand.
    """
    config = train_config(
        settings,
        bucket_ms=history.bucket_ms,
        seed=seed,
        max_seconds=max_seconds,
        updates=updates,
    )
    if progress is None:
        trained = train_with_bar(history, config, console=console)
    else:
        trained = _trained(history, config, progress)
    model_id = registry.publish(trained, promote=promote)
    return TrainingOutcome(model_id, trained.metrics, trained.span_ms)


def train_with_bar(
    history: History, config: TrainConfig, *, console: Console | None = None
) -> Trained:
    """Train with a progress bar on `console` (default: stderr)."""
    console = console or Console(stderr=True)
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

        return _trained(history, config, show)


def _trained(
    history: History, config: TrainConfig, progress: Callable[[TrainProgress], None]
) -> Trained:
    try:
        return train(history, config, progress)
    except ModelError as error:
        raise UsageError(f"cannot train: {error}") from error
