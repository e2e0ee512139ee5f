"""Trains a model for the workers: builds a history from files or an archive, then trains on it.

For `surgecast train`, and `surgecast trainer` with a file; `trainer.py` trains on stored history.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.durations import DAY_MS
from stream.processes.progress_lines import Step, report

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.training.train import TrainProgress
    from stream.jobs.training.publish import TrainingOutcome
    from stream.jobs.training.train import RunFolder
    from stream.settings import Settings


#: Number of series in the training history besides the roll-ups: those with most units.
TRAINING_SERIES = 400


#: Older buckets are left out: a year has every season once.
TRAINING_SPAN_MS = 365 * DAY_MS


def train_on_events(
    settings: "Settings",
    orders: str,
    clicks: Path | None,
    catalog: Path | None,
    *,
    until: str | None,
    promote: bool,
    progress_lines: bool = False,
    max_seconds: float | None = None,
    seed: int = 7,
    run_folder: "RunFolder | None" = None,
    plans: Path | None = None,
) -> "TrainingOutcome":
    """Train on files, with the bucket width, horizon and roll-ups of the workers.

    Raises UsageError for files that cannot be used.
    """
    from stream.jobs.files.job_source import open_source, time_ms
    from stream.jobs.files.plan_files import with_plans
    from stream.jobs.history.from_files import build_history
    from stream.jobs.training.publish import train_and_publish
    from stream.jobs.training.train import DEMO_SECONDS
    from stream.registry.model_registry import Registry

    bucket_ms = settings.window.bucket
    end_ms = None if until is None else time_ms(until) // bucket_ms * bucket_ms
    source = open_source(settings, orders, clicks=clicks, catalog=catalog)
    sparse = build_history(
        source.orders, source.clicks, source.catalog, bucket_ms=bucket_ms, end_ms=end_ms
    )
    start_ms = max(sparse.start_ms, sparse.end_ms - TRAINING_SPAN_MS)
    history = with_plans(
        sparse.for_training(TRAINING_SERIES, start_ms=start_ms),
        plans,
        horizon=settings.model.horizon,
        categories=sparse.categories,
    )
    model = settings.model
    return train_and_publish(
        history,
        model if plans is None else model.model_copy(update={"plans": True}),
        Registry(settings.registry_path),
        timezone=settings.window.timezone,
        promote=promote,
        max_seconds=DEMO_SECONDS if progress_lines else max_seconds,
        seed=seed,
        progress=_line_reporter() if progress_lines else None,
        run_folder=run_folder,
    )


def train_on_archive(
    settings: "Settings",
    path: str,
    *,
    until: str | None,
    promote: bool,
    max_seconds: float | None = None,
    seed: int = 7,
    run_folder: "RunFolder | None" = None,
) -> "TrainingOutcome":
    """Train on the roll-ups and the largest series of an archive, for the workers.

    Raises UsageError if it cannot be used or has another bucket width than the workers.
    """
    from stream.errors import UsageError
    from stream.jobs.archive.history import read_archive
    from stream.jobs.files.job_source import time_ms
    from stream.jobs.training.publish import train_and_publish
    from stream.registry.model_registry import Registry
    from stream.settings import duration_text

    history = read_archive(
        path,
        end_ms=None if until is None else time_ms(until),
        largest=TRAINING_SERIES,
        max_span_ms=TRAINING_SPAN_MS,
    )
    if history.bucket_ms != settings.window.bucket:
        raise UsageError(
            f"archive {path} has buckets of {duration_text(history.bucket_ms)}, but window.bucket "
            f"is {duration_text(settings.window.bucket)}; set it to the archive's width"
        )
    return train_and_publish(
        history,
        settings.model,
        Registry(settings.registry_path),
        timezone=settings.window.timezone,
        promote=promote,
        max_seconds=max_seconds,
        seed=seed,
        run_folder=run_folder,
    )


def _line_reporter() -> "Callable[[TrainProgress], None]":
    def show(at: "TrainProgress") -> None:
        facts: dict[str, Any] = {"loss": at.loss, "validation": at.validation_loss}
        report(Step("train", round(100 * at.share), 100, facts))

    return show
