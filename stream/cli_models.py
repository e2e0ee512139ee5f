"""Commands around the models that serve: `trainer`, `models`."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from stream.cli_context import print_json, settings_of
from stream.cli_run import Catalog, Clicks, Json, Lines, Orders
from stream.progress import Step, report
from stream.settings import duration_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.training import TrainProgress
    from stream.jobs.offline import Keep, TrainingOutcome
    from stream.settings import Settings

#: Series of the training history besides the roll-ups: those with most units.
TRAINING_SERIES = 400
#: What lies further back is left out: a year holds every season once.
TRAINING_SPAN_MS = 365 * 86_400_000

models = typer.Typer(
    help="The model registry.\n\nExample:  surgecast models list", no_args_is_help=True
)

ModelId = Annotated[str, typer.Argument(help="Model id, as `surgecast models list` shows it.")]
Until = Annotated[str | None, typer.Option(help="Learn only from what lies before this time.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(trainer)
    app.add_typer(models, name="models")


def trainer(
    context: typer.Context,
    *,
    orders: Orders,
    clicks: Clicks = None,
    catalog: Catalog = None,
    until: Until = None,
    progress_lines: Lines = False,
) -> None:
    """Train and promote a first model if the registry has none; workers pick it up by themselves.

    Example:  surgecast trainer orders.parquet --until 2011-09-05
    """
    from stream.registry import Registry

    settings = settings_of(context)
    champion = Registry(settings.registry_path).champion()
    if champion is not None:
        if progress_lines:
            report(Step("train", 100, 100, {"model": champion}))
        else:
            typer.echo(f"{champion} serves already", file=sys.stderr)
        return
    outcome = train_on_events(
        settings, orders, clicks, catalog, until=until, progress_lines=progress_lines, promote=True
    )
    typer.echo(outcome.verdict, file=sys.stderr)
    if not progress_lines:
        typer.echo(outcome.model_id)


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
    keep: "Keep | None" = None,
) -> "TrainingOutcome":
    """Train a model for the workers: their buckets, horizon and features, roll-ups too.

    Raises UsageError for files that cannot be used.
    """
    from stream.jobs.history import build_history
    from stream.jobs.offline import DEMO_SECONDS, train_from_history
    from stream.jobs.source import open_source, time_ms
    from stream.registry import Registry

    bucket_ms = settings.window.bucket
    end_ms = None if until is None else time_ms(until) // bucket_ms * bucket_ms
    source = open_source(settings, orders, clicks=clicks, catalog=catalog)
    sparse = build_history(
        source.orders, source.clicks, source.catalog, bucket_ms=bucket_ms, end_ms=end_ms
    )
    start_ms = max(sparse.start_ms, sparse.end_ms - TRAINING_SPAN_MS)
    history = sparse.for_training(TRAINING_SERIES, start_ms=start_ms)
    return train_from_history(
        history,
        settings.model,
        Registry(settings.registry_path),
        promote=promote,
        max_seconds=DEMO_SECONDS if progress_lines else max_seconds,
        seed=seed,
        progress=_line_reporter() if progress_lines else None,
        keep=keep,
    )


def _line_reporter() -> "Callable[[TrainProgress], None]":
    def show(at: "TrainProgress") -> None:
        facts: dict[str, Any] = {"loss": at.loss, "validation": at.validation_loss}
        report(Step("train", round(100 * at.share), 100, facts))

    return show


@models.command("list")
def list_models(context: typer.Context, as_json: Json = False) -> None:
    """List the models, the newest data first; the champion serves.

    Example:  surgecast models list
    """
    from stream.registry import Registry

    entries = Registry(settings_of(context).registry_path).list()
    if as_json:
        print_json(
            {
                "models": [
                    {
                        "model_id": entry.model_id,
                        "champion": entry.is_champion,
                        "architecture": entry.manifest.architecture,
                        "span_ms": list(entry.manifest.span_ms),
                        "metrics": entry.manifest.metrics,
                    }
                    for entry in entries
                ]
            }
        )
        return
    if not entries:
        typer.echo("the registry is empty; surgecast train --history FILE fills it", err=True)
        return
    table = Table("model", "", "bucket", "horizon", "data until", "validation loss")
    table.columns[0].no_wrap = True
    for entry in entries:
        manifest = entry.manifest
        table.add_row(
            entry.model_id,
            "champion" if entry.is_champion else "",
            duration_text(manifest.bucket_ms),
            str(manifest.horizon),
            f"{datetime.fromtimestamp(manifest.span_ms[1] / 1_000, UTC):%Y-%m-%d}",
            f"{manifest.metrics.get('validation_loss', float('nan')):.4f}",
        )
    Console().print(table)


@models.command("show")
def show_model(context: typer.Context, model_id: ModelId) -> None:
    """Print a model's manifest as JSON.

    Example:  surgecast models show lstm-20110905-1a2b3c4d
    """
    from stream.registry import Registry

    manifest = Registry(settings_of(context).registry_path).manifest(model_id)
    sys.stdout.write(manifest.to_json().decode() + "\n")


@models.command("promote")
def promote_model(context: typer.Context, model_id: ModelId) -> None:
    """Let a model serve; workers switch between two closes.

    Example:  surgecast models promote lstm-20110905-1a2b3c4d
    """
    from stream.registry import Registry

    Registry(settings_of(context).registry_path).promote(model_id)
    typer.echo(f"{model_id} serves")


@models.command("rollback")
def roll_back(context: typer.Context) -> None:
    """Let the model before the champion serve again.

    Example:  surgecast models rollback
    """
    from stream.registry import Registry

    model_id = Registry(settings_of(context).registry_path).rollback()
    typer.echo(f"{model_id} serves")
