"""Commands that measure: `surgecast bench ingest|latency`; the README has their figures."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from stream.cli_context import print_json, settings_of
from stream.cli_run import Json

if TYPE_CHECKING:
    from stream.jobs.bench.report import Row

bench = typer.Typer(
    help="Measure this machine.\n\nExample:  surgecast bench ingest --events 2000000",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.add_typer(bench, name="bench")


@bench.command()
def ingest(
    context: typer.Context,
    *,
    events: Annotated[int, typer.Option(min=10_000, help="Events to count.")] = 2_000_000,
    peers: Annotated[
        Path, typer.Option(help="Folder of the peers' scripts; none there, none measured.")
    ] = Path("benchmarks/ingest"),
    peer_seconds: Annotated[float, typer.Option(min=1, help="Time for each peer.")] = 20.0,
    as_json: Json = False,
) -> None:
    """Events a second of one worker: decode, checks, deduplication, features, flush; and peers.

    Example:  surgecast bench ingest --json
    """
    from stream.jobs.bench.ingest import bench_ingest

    settings = settings_of(context)
    rows = bench_ingest(
        settings,
        events=events,
        peers=peers if peers.is_dir() else None,
        peer_seconds=peer_seconds,
        say=_say,
    )
    _print("ingest", rows, as_json=as_json)


@bench.command()
def latency(
    context: typer.Context,
    *,
    rate: Annotated[int, typer.Option(min=100, help="Events a second.")] = 20_000,
    seconds: Annotated[float, typer.Option(min=5, help="How long.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Time from an event's production until its features can be read in the store.

    Example:  surgecast bench latency --rate 20000
    """
    from stream.jobs.bench.latency import bench_latency

    rows = bench_latency(settings_of(context), rate=rate, seconds=seconds, say=_say)
    _print("latency", rows, as_json=as_json)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _print(name: str, rows: "list[Row]", *, as_json: bool) -> None:
    from stream.jobs.bench.report import cpu_name, report

    if as_json:
        print_json(report(name, cpu_name(), rows))
        return
    table = Table(title=f"bench {name}, {cpu_name()}")
    table.add_column("row")
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("beside it")
    for row in rows:
        beside = ", ".join(f"{key} {value}" for key, value in row.facts.items())
        table.add_row(
            row.name,
            f"{row.value:,.4g}" if row.value < 100 else f"{row.value:,.0f}",
            row.unit,
            beside,
        )
    Console().print(table)
