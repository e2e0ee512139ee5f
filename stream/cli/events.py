"""Commands that feed a deployment: `up`, `replay`, `simulate`, `backfill`; and `sample-path`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.cli.archive import backfill
from stream.cli.context import require_folder, settings_of
from stream.cli.options import Catalog, Clicks, Json, Lines, Orders, Speed, Start
from stream.processes.output import print_json
from stream.processes.progress_lines import Step, report

if TYPE_CHECKING:
    from stream.ops.up import ReplaySource


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(up)
    app.command()(replay)
    app.command()(simulate)
    app.command("sample-path")(sample_path)
    app.command()(backfill)


def up(
    context: typer.Context,
    *,
    orders: Annotated[
        str | None,
        typer.Option(
            "--replay",
            help="Order lines to replay: a CSV or Parquet file, or `sample` for the shipped one.",
        ),
    ] = None,
    clicks: Clicks = None,
    catalog: Catalog = None,
    speed: Speed = "3600",
    start: Start = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop after the replay and print a summary.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the whole product on this machine.

    Starts a broker, a store, a worker, a trainer, the HTTP API and the dashboard. To use a running
    broker or store, set SURGECAST_KAFKA__BOOTSTRAP_SERVERS or SURGECAST_REDIS__URL. Events before
    --start are stored as history, on which a first model is trained. Ctrl-C stops everything.

    Example:  surgecast up --replay sample --speed 3600
    """
    from stream.errors import UsageError
    from stream.ops.up import up as run_up
    from stream.ops.up_view import View

    settings = settings_of(context)
    source = None
    if orders is not None:
        source = _replay_source(orders, clicks, catalog, speed, start)
    elif until_end or clicks or catalog or start:
        raise UsageError("--until-end, --clicks, --catalog and --start need --replay FILE")
    run_up(settings, View(as_json=as_json), replay=source, until_end=until_end)


def replay(
    context: typer.Context,
    *,
    orders: Orders,
    clicks: Clicks = None,
    catalog: Catalog = None,
    speed: Speed = "max",
    start: Start = None,
    end: Annotated[str | None, typer.Option(help="End the replay before this time.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Replay at most this many order lines.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted replay of the same files.")
    ] = False,
    as_json: Json = False,
    progress_lines: Lines = False,
) -> None:
    """Send the events of files to Kafka in event-time order.

    Example:  surgecast replay orders.parquet --clicks clicks.parquet
    """
    from contextlib import nullcontext

    from stream.jobs.files.job_source import (
        default_start_ms,
        open_source,
        orders_path,
        publish_labels,
        speed_of,
        time_ms,
    )
    from stream.jobs.replay.progress import ReplayProgress, shown_progress
    from stream.jobs.replay.run import replay as run_replay
    from stream.kafka.clients import require_broker
    from stream.processes.signals import stop_signals

    settings = require_folder(settings_of(context))
    require_broker(settings)
    rate = speed_of(speed)
    path = orders_path(orders)
    source = open_source(settings, path, clicks=clicks, catalog=catalog)
    publish_labels(settings, source.labels)

    def show_line(at: ReplayProgress) -> None:
        facts: dict[str, Any] = {"events_per_s": at.events_per_s, "event_time_ms": at.event_time_ms}
        report(Step("replay", at.acked, at.total, facts))

    shown = nullcontext(show_line) if progress_lines else shown_progress()
    with stop_signals(), shown as show:
        result = run_replay(
            settings,
            source.orders,
            source.clicks,
            source.catalog,
            speed=rate,
            start_ms=default_start_ms(path) if start is None else time_ms(start),
            end_ms=None if end is None else time_ms(end),
            limit=limit,
            resume=resume,
            progress=show,
        )
    sent = sum(result.events.values())
    if progress_lines:
        report(Step("replay", sent, sent, {"end_ms": result.heartbeat_ms}))
    elif as_json:
        print_json(
            {
                "events": result.events,
                "seconds": round(result.seconds, 3),
                "events_per_s": round(result.events_per_s, 1),
                "first_event_ms": result.first_event_ms,
                "last_event_ms": result.last_event_ms,
                "complete": result.complete,
            }
        )
    else:
        counts = ", ".join(f"{count:,} {topic}" for topic, count in result.events.items())
        typer.echo(f"sent {counts} in {result.seconds:.1f} s", file=sys.stderr)


def simulate(
    context: typer.Context,
    *,
    products: Annotated[int, typer.Option(min=1, help="Number of products.")] = 300,
    orders_per_hour: Annotated[float, typer.Option(help="Order lines per hour, on average.")] = 600,
    speed: Speed = "3600",
    start: Annotated[
        str | None, typer.Option(help="Opening time of the shop. [28 days ago]")
    ] = None,
    hours: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many hours of event time.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed; the same seed gives the same shop.")] = 1,
    truth: Annotated[
        Path | None, typer.Option(help="Folder for the true demand. [<data_dir>/simulation]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Send the events of a simulated shop to Kafka until Ctrl-C.

    The shop has seasons, promotions, launches, spikes, stock-outs and returns. It runs at --speed
    until it has caught up with the present, then in real time. The true demand is written to
    Parquet files, one per day.

    Example:  surgecast simulate --products 500 --orders-per-hour 2000
    """
    from stream.jobs.files.job_source import publish_labels, speed_of, time_ms
    from stream.jobs.replay.progress import shown_progress
    from stream.jobs.simulate.run import SIMULATED_LABELS
    from stream.jobs.simulate.run import simulate as run_simulation
    from stream.kafka.clients import require_broker
    from stream.processes.signals import stop_signals

    settings = require_folder(settings_of(context))
    require_broker(settings)
    publish_labels(settings, SIMULATED_LABELS)
    with stop_signals(), shown_progress() as show:
        done = run_simulation(
            settings,
            seed=seed,
            products=products,
            orders_per_hour=orders_per_hour,
            speed=speed_of(speed),
            start_ms=None if start is None else time_ms(start),
            hours=hours,
            truth=truth,
            progress=show,
        )
    if as_json:
        print_json({**asdict(done), "truth": str(done.truth)})
    else:
        text = f"sent {done.events:,} events of {done.hours:,} hours; true demand: {done.truth}"
        typer.echo(text, err=True)


def sample_path() -> None:
    """Print the path of the shipped order lines.

    Example:  surgecast replay $(surgecast sample-path)
    """
    from stream.jobs.files.sample import sample_orders

    typer.echo(str(sample_orders()))


def _replay_source(
    orders: str, clicks: Path | None, catalog: Path | None, speed: str, start: str | None
) -> "ReplaySource":
    """Check the files that `up` replays, before anything starts."""
    from stream.errors import UsageError
    from stream.jobs.files.job_source import default_start_ms, orders_path, speed_of, time_ms
    from stream.ops.up import ReplaySource

    path = orders_path(orders)
    for file in (clicks, catalog):
        if file is not None and not file.is_file():
            raise UsageError(f"{file}: no such file")
    start_ms = default_start_ms(path) if start is None else time_ms(start)
    return ReplaySource(path.resolve(), clicks, catalog, speed_of(speed), start_ms)
