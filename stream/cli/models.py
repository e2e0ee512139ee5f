"""Commands for the models of the workers: `trainer`, `models`."""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from stream.cli.context import require_folder, settings_of
from stream.cli.options import Catalog, Clicks, Json, Lines, Until
from stream.clock import wall_clock_ms
from stream.errors import ServiceUnavailable, UsageError
from stream.jobs.training.for_workers import train_on_events
from stream.processes.output import print_json
from stream.processes.progress_lines import Step, report
from stream.settings import duration_text

if TYPE_CHECKING:
    from stream.settings import Settings


models = typer.Typer(
    help="List, promote and roll back models.\n\nExample:  surgecast models list",
    no_args_is_help=True,
)

ModelId = Annotated[str, typer.Argument(help="Model id, as `surgecast models list` shows it.")]
Note = Annotated[str, typer.Option(help="Reason, stored in the registry.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(trainer)
    app.add_typer(models, name="models")


def trainer(
    context: typer.Context,
    *,
    orders: Annotated[
        str | None,
        typer.Argument(
            help="Order lines for a first model: a CSV or Parquet file, or `sample`.",
        ),
    ] = None,
    clicks: Clicks = None,
    catalog: Catalog = None,
    until: Until = None,
    once: Annotated[
        bool, typer.Option("--once", help="Train one challenger now, then exit.")
    ] = False,
    progress_lines: Lines = False,
) -> None:
    """Train challengers on the stored history.

    Trains at intervals of trainer.every, on drift and on `surgecast models retrain`. With a file,
    trains and promotes a first model if the registry has no champion, then exits. Workers load a
    new champion without a restart. Needs SURGECAST_REDIS__URL unless a file is given.

    Example:  surgecast trainer
    """
    from stream.registry.model_registry import Registry

    settings = require_folder(settings_of(context))
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
            typer.echo(f"{champion} is already the champion", file=sys.stderr)
        return
    outcome = train_on_events(
        settings, orders, clicks, catalog, until=until, progress_lines=progress_lines, promote=True
    )
    typer.echo(outcome.verdict, file=sys.stderr)
    if not progress_lines:
        typer.echo(outcome.model_id)


def _serve_trainer(settings: "Settings", *, once: bool) -> None:
    from stream.cli.context import require_store
    from stream.jobs.training.role import run
    from stream.telemetry import serve_metrics

    settings = require_store(settings)
    if settings.trainer.metrics_port is not None:
        serve_metrics(settings.worker.metrics_host, settings.trainer.metrics_port)
    result = run(settings, once=once)
    if result is not None:
        typer.echo(f"{result.model_id or 'no model'} {result.outcome}: {result.reason}")
        if result.outcome in ("failed", "skipped"):
            raise typer.Exit(1)


@models.command("list")
def list_models(context: typer.Context, as_json: Json = False) -> None:
    """List the models, newest training data first, with the reason of the last decision on each.

    If the last training made no model, its reason comes first.

    Example:  surgecast models list
    """
    from stream.registry.audit import tenures, trainings_without_model
    from stream.registry.model_registry import Registry

    registry = Registry(settings_of(context).registry_path)
    entries, audit = registry.list(), registry.audit()
    notes = {str(line["model_id"]): line for line in audit if line.get("note")}
    in_vain = trainings_without_model(audit)
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
                "without_model": in_vain,
            }
        )
        return
    for last in in_vain[-1:]:
        at = datetime.fromtimestamp(int(last["at_ms"]) / 1_000, UTC)
        typer.echo(f"last training {last['action']} at {at:%Y-%m-%d %H:%M} UTC: {last['note']}")
    if not entries:
        typer.echo("no model yet; train one: surgecast train --history FILE", err=True)
        return
    table = Table("model", "", "bucket", "horizon", "data until", "WQL", "last decision")
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
    """Print a model's manifest and its audit log as JSON.

    Example:  surgecast models show lstm-20110905-1a2b3c4d
    """
    from stream.registry.model_registry import Registry

    registry = Registry(settings_of(context).registry_path)
    manifest = json.loads(registry.manifest(model_id).to_json())
    audit = [line for line in registry.audit() if line["model_id"] == model_id]
    sys.stdout.write(json.dumps(manifest | {"audit": audit}, indent=2, sort_keys=True) + "\n")


@models.command("promote")
def promote_model(context: typer.Context, model_id: ModelId, note: Note = "by hand") -> None:
    """Make a model the champion, whatever the last comparison decided; prints that decision.

    Workers warm it up in the background, then switch to it between two buckets.

    Example:  surgecast models promote lstm-20110905-1a2b3c4d
    """
    from stream.registry.model_registry import Registry

    settings = settings_of(context)
    registry = Registry(settings.registry_path)
    decisions = [line for line in registry.audit() if line["model_id"] == model_id]
    registry.promote(model_id, note=note)
    _announce(settings, "promote", model_id, note)
    typer.echo(f"{model_id} is the champion")
    for line in decisions[-1:]:
        if line.get("note"):
            typer.echo(f"the last decision on it was {line['action']}: {line['note']}", err=True)


@models.command("rollback")
def roll_back(context: typer.Context, note: Note = "by hand") -> None:
    """Make the previous champion the champion again.

    Example:  surgecast models rollback --note "too high for garden"
    """
    from stream.registry.model_registry import Registry

    settings = settings_of(context)
    model_id = Registry(settings.registry_path).rollback(note=note)
    _announce(settings, "rollback", model_id, note)
    typer.echo(f"{model_id} is the champion")


@models.command("retrain")
def retrain(context: typer.Context, note: Note = "by hand") -> None:
    """Request a challenger from the trainer.

    The trainer starts at the earliest trainer.cooldown after its last training. Needs
    SURGECAST_KAFKA__BOOTSTRAP_SERVERS.

    Example:  surgecast models retrain --note "new assortment"
    """
    from stream.kafka.clients import require_broker

    settings = settings_of(context)
    require_broker(settings)
    _announce(settings, "retrain", "", note)
    typer.echo("challenger requested")


def _announce(
    settings: "Settings",
    action: Literal["promote", "rollback", "retrain"],
    model_id: str,
    note: str,
) -> None:
    """Announce a change to workers and trainer if a broker is configured.

    Workers also poll the registry, so only a failed retrain request is an error.
    """
    from stream.registry.announcements import ModelRecord, announce

    if settings.kafka.bootstrap_servers is None:
        return
    try:
        at_ms = wall_clock_ms()
        announce(settings, ModelRecord(action, model_id, note, at_ms))
    except (ServiceUnavailable, UsageError) as error:
        if action == "retrain":
            raise
        typer.echo(
            f"surgecast: not announced ({error}); workers poll the registry, so it takes longer",
            err=True,
        )
