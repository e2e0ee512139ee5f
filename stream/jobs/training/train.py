"""Runs the network's training for the command line: configuration, progress bar, resuming.

It neither judges nor stores the network: `publish.py` does.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from model.config import NETWORK_QUANTILES, ModelConfig, TrainConfig
from model.errors import ModelError
from model.networks.quantile_network import QuantileNetwork
from model.pretraining.finetune import finetune, for_history
from model.time_zones import UTC_ZONE
from model.training.dataset import History
from model.training.ranks import Ranks
from model.training.run_file import RunFile
from model.training.train import Trained, TrainProgress, train
from stream.errors import UsageError
from stream.registry.model_registry import device_of
from stream.settings import ModelSettings, duration_text

#: Time budget of the demo: with everything around the training, 3 minutes on 2 cores.
DEMO_SECONDS = 120.0
#: Share of the usual learning rate for a training that starts from trained weights.
WARM_START_RATE = 0.3


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Folder with the state of unfinished trainings; `resume` continues one of them."""

    folder: Path
    resume: bool = False

    def open(self, history: History, config: TrainConfig, console: Console) -> RunFile:
        """Return the state file of this training; without `resume`, discard its content."""
        run_file = RunFile.of(self.folder, history, config)
        if Ranks.current().first:
            if not self.resume:
                run_file.discard()
            elif run_file.path.exists():
                console.print(f"resuming from {run_file.path}", soft_wrap=True)
            else:
                console.print(
                    "no unfinished training of this file with these options; starting a new one"
                )
        return run_file


def train_config(
    settings: ModelSettings,
    *,
    bucket_ms: int,
    timezone: str = UTC_ZONE,
    seed: int = 7,
    max_seconds: float | None = DEMO_SECONDS,
    updates: int | None = None,
) -> TrainConfig:
    """Training configuration for the deployed settings."""
    model = ModelConfig(
        horizon=settings.horizon,
        bucket_ms=bucket_ms,
        quantiles=NETWORK_QUANTILES,
        architecture=settings.architecture,
        inputs_off=settings.inputs_off,
        static=settings.static,
        prior=settings.prior,
        plans=settings.plans,
        targets=settings.targets,
        holidays_country=settings.country or None,
        timezone=timezone,
    )
    config = TrainConfig(
        model=model,
        device=device_of(settings.device),
        precision=settings.precision,
        seed=seed,
        pretrained=settings.pretrained,
        max_seconds=max_seconds,
        # Many short updates reduce the loss most within a few minutes (docs/experiments).
        lanes=64,
        chunk=48,
        origins=16,
        volume_power=0.7,
    )
    return config if updates is None else replace(config, updates=updates)


def train_with_bar(
    history: History,
    config: TrainConfig,
    *,
    console: Console | None = None,
    run_folder: RunFolder | None = None,
    start: QuantileNetwork | None = None,
) -> Trained:
    """Train with a progress bar on `console` (default: stderr); resumable with `run_folder`.

    `start` is as in `train_or_refuse`. In a distributed run only rank 0 shows the bar. Raises
    UsageError.
    """
    first = Ranks.current().first
    console = console or Console(stderr=True, quiet=not first)
    run_file = None if run_folder is None else run_folder.open(history, config, console)
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

        return train_or_refuse(history, config, show, run_file, start=start)


def train_or_refuse(
    history: History,
    config: TrainConfig,
    progress: Callable[[TrainProgress], None],
    run_file: RunFile | None,
    *,
    start: QuantileNetwork | None = None,
) -> Trained:
    """Train from the weights of `start`, or of the pretrained network if the settings allow it.

    Raises UsageError if the history is too short or is not demand.
    """
    try:
        if start is not None:
            return train(history, config, progress, run_file=run_file, start=start)
        return finetune(history, for_history(config, history), progress, run_file=run_file)
    except ModelError as error:
        raise UsageError(f"cannot train: {error}") from error
