"""Commands around the models that serve: `trainer`, `models`."""

import json
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from stream.cli_context import print_json, settings_of
from stream.cli_run import Catalog, Clicks, Json, Lines
from stream.errors import ServiceUnavailable, UsageError
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
Note = Annotated[str, typer.Option(help="Why; it is kept in the registry.")]
Until = Annotated[str | None, typer.Option(help="Learn only from what lies before this time.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(trainer)
    app.add_typer(models, name="models")


def trainer(
    context: typer.Context,
    *,
    orders: Annotated[
        str | None,
        typer.Argument(help="Order lines of a first model, CSV or Parquet, or the word sample."),
    ] = None,
    clicks: Clicks = None,
    catalog: Catalog = None,
    until: Until = None,
    once: Annotated[
        bool, typer.Option("--once", help="Train one challenger now, and end.")
    ] = False,
    progress_lines: Lines = False,
) -> None:
    """Train challengers on the stored history, every trainer.every and when drift asks for one.

    With a file, train and promote a first model if the registry has none, and end. Workers pick a
    new champion up by themselves.

    Example:  surgecast trainer
    """
    from stream.registry import Registry

    settings = settings_of(context)
    if orders is None:
        if clicks or catalog or until:
            raise UsageError("--clicks, --catalog and --until need a file of order lines")
        _serve_trainer(settings, once=once)
        return
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


def _serve_trainer(settings: "Settings", *, once: bool) -> None:
    from stream.cli_roles import with_store
    from stream.jobs.trainer_role import run
    from stream.telemetry import serve_metrics

    settings = with_store(settings)
    if settings.trainer.metrics_port is not None:
        serve_metrics(settings.worker.metrics_host, settings.trainer.metrics_port)
    result = run(settings, once=once)
    if result is not None:
        typer.echo(f"{result.model_id or 'no model'} {result.outcome}: {result.reason}")
        if result.outcome in ("failed", "skipped"):
            raise typer.Exit(1)


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
    plans: Path | None = None,
) -> "TrainingOutcome":
    """Train a model for the workers: their buckets, horizon and features, roll-ups too.

    Raises UsageError for files that cannot be used.
    """
    from stream.jobs.history import build_history
    from stream.jobs.offline import DEMO_SECONDS, train_from_history
    from stream.jobs.planned import with_plans
    from stream.jobs.source import open_source, time_ms
    from stream.registry import Registry

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
    return train_from_history(
        history,
        model if plans is None else model.model_copy(update={"plans": True}),
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
    from stream.registry import Registry, tenures

    registry = Registry(settings_of(context).registry_path)
    entries, audit = registry.list(), registry.audit()
    notes = {str(line["model_id"]): line for line in audit if line.get("note")}
    if as_json:
        print_json(
            {
                "models": [
                    {
                        "model_id": entry.model_id,
                        "champion": entry.is_champion,
                        "architecture": entry.manifest.architecture,
                        "parent": entry.manifest.parent,
                        "span_ms": list(entry.manifest.span_ms),
                        "metrics": entry.manifest.metrics,
                        "note": notes.get(entry.model_id, {}).get("note", ""),
                    }
                    for entry in entries
                ],
                "tenures": [asdict(tenure) for tenure in tenures(audit)],
            }
        )
        return
    if not entries:
        typer.echo("the registry is empty; surgecast train --history FILE fills it", err=True)
        return
    table = Table("model", "", "bucket", "horizon", "data until", "WQL", "the last word on it")
    table.columns[0].no_wrap = True
    for entry in entries:
        manifest, line = entry.manifest, notes.get(entry.model_id)
        table.add_row(
            entry.model_id,
            "champion" if entry.is_champion else "",
            duration_text(manifest.bucket_ms),
            str(manifest.horizon),
            f"{datetime.fromtimestamp(manifest.span_ms[1] / 1_000, UTC):%Y-%m-%d}",
            f"{manifest.metrics.get('wql', float('nan')):.3f}",
            f"{line['action']}: {line['note']}" if line is not None else "",
        )
    Console().print(table)


@models.command("show")
def show_model(context: typer.Context, model_id: ModelId) -> None:
    """Print a model's manifest and what has become of it, as JSON.

    Example:  surgecast models show lstm-20110905-1a2b3c4d
    """
    from stream.registry import Registry

    registry = Registry(settings_of(context).registry_path)
    manifest = json.loads(registry.manifest(model_id).to_json())
    audit = [line for line in registry.audit() if line["model_id"] == model_id]
    sys.stdout.write(json.dumps(manifest | {"audit": audit}, indent=2, sort_keys=True) + "\n")


@models.command("promote")
def promote_model(context: typer.Context, model_id: ModelId, note: Note = "by hand") -> None:
    """Let a model serve; workers switch between two closes.

    Example:  surgecast models promote lstm-20110905-1a2b3c4d
    """
    from stream.registry import Registry

    settings = settings_of(context)
    Registry(settings.registry_path).promote(model_id, note=note)
    _announce(settings, "promote", model_id, note)
    typer.echo(f"{model_id} serves")


@models.command("rollback")
def roll_back(context: typer.Context, note: Note = "by hand") -> None:
    """Let the model before the champion serve again.

    Example:  surgecast models rollback --note "too high for garden"
    """
    from stream.registry import Registry

    settings = settings_of(context)
    model_id = Registry(settings.registry_path).rollback(note=note)
    _announce(settings, "rollback", model_id, note)
    typer.echo(f"{model_id} serves")


@models.command("retrain")
def retrain(context: typer.Context, note: Note = "by hand") -> None:
    """Ask the trainer for a challenger; it waits for trainer.cooldown.

    Example:  surgecast models retrain --note "new assortment"
    """
    from stream.kafka_admin import bootstrap_servers

    settings = settings_of(context)
    bootstrap_servers(settings)
    _announce(settings, "retrain", "", note)
    typer.echo("asked for")


def _announce(
    settings: "Settings",
    action: Literal["promote", "rollback", "retrain"],
    model_id: str,
    note: str,
) -> None:
    """Tell workers and trainer, where a broker is named; they look into the registry anyway."""
    from stream.control import ModelRecord, announce

    if settings.kafka.bootstrap_servers is None:
        return
    try:
        at_ms = time.time_ns() // 1_000_000
        announce(settings, ModelRecord(action, model_id, note, at_ms))
    except ServiceUnavailable as error:
        if action == "retrain":
            raise
        typer.echo(f"surgecast: not announced ({error}); workers look by themselves", err=True)
