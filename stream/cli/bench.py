"""Benchmarks `surgecast bench …`, the source of the figures in the README."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from stream.cli.context import settings_of
from stream.cli.options import Json
from stream.processes.output import print_json

if TYPE_CHECKING:
    from stream.bench.report import Row
    from stream.settings import Settings

Device = Annotated[str | None, typer.Option(help="cpu, cuda or auto. [model.device]")]

bench = typer.Typer(
    help="Measure speed and memory on this machine.\n\n"
    "Example:  surgecast bench ingest --events 2000000",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.add_typer(bench, name="bench")


@bench.command()
def ingest(
    context: typer.Context,
    *,
    events: Annotated[int, typer.Option(min=10_000, help="Number of events.")] = 2_000_000,
    peers: Annotated[
        Path,
        typer.Option(help="Folder with scripts of other frameworks; skipped if it does not exist."),
    ] = Path("benchmarks/ingest"),
    rounds: Annotated[
        int,
        typer.Option(min=1, help="Rounds of worker and bare aiokafka; the median is reported."),
    ] = 3,
    peer_seconds: Annotated[
        float, typer.Option(min=1, help="Time limit of each other framework, in seconds.")
    ] = 20.0,
    as_json: Json = False,
) -> None:
    """Measure the events per second that one worker ingests.

    Ingest is decoding, checks, deduplication, features and the flush to the store. Other frameworks
    read the same topics for comparison.

    Example:  surgecast bench ingest --json
    """
    from stream.bench.ingest import bench_ingest
    from stream.bench.isolated import isolated_settings

    with isolated_settings(settings_of(context)) as settings:
        rows = bench_ingest(
            settings,
            events=events,
            rounds=rounds,
            peers=peers if peers.is_dir() else None,
            peer_seconds=peer_seconds,
            notify=_print_progress,
        )
    _print("ingest", rows, as_json=as_json)


@bench.command()
def latency(
    context: typer.Context,
    *,
    rate: Annotated[int, typer.Option(min=100, help="Events per second to send.")] = 20_000,
    seconds: Annotated[float, typer.Option(min=5, help="Duration in seconds.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Measure the latency from an event to its stored features.

    Example:  surgecast bench latency --rate 20000
    """
    from stream.bench.isolated import isolated_settings
    from stream.bench.latency import bench_latency

    with isolated_settings(settings_of(context)) as settings:
        rows = bench_latency(settings, rate=rate, seconds=seconds, notify=_print_progress)
    _print("latency", rows, as_json=as_json)


@bench.command()
def inference(
    context: typer.Context,
    *,
    series: Annotated[int, typer.Option(min=1, help="Number of series.")] = 100_000,
    history: Annotated[
        int, typer.Option(min=2, help="Buckets of history for the model without carried state.")
    ] = 168,
    targets: Annotated[
        str | None,
        typer.Option(help="Further targets besides units: revenue,visitors. [model.targets]"),
    ] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Measure the time to forecast all series once.

    Compares the carried state with reading the history again, and with the limit of the machine.

    Example:  surgecast bench inference --series 100000
    """
    from stream.bench.inference import bench_inference

    flags: dict[str, object] = {} if device is None else {"device": device}
    if targets is not None:
        flags["targets"] = [name for name in targets.split(",") if name]
    settings = settings_of(context, **({"model": flags} if flags else {}))
    rows = bench_inference(
        settings.model,
        device=_device(settings),
        series=series,
        context=history,
        notify=_print_progress,
    )
    _print("inference", rows, as_json=as_json)


@bench.command()
def training(
    context: typer.Context,
    *,
    lanes: Annotated[int, typer.Option(min=4, help="Series trained in parallel.")] = 64,
    updates: Annotated[int, typer.Option(min=1, help="Timed training updates.")] = 20,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Measure training speed with and without mixed precision.

    Example:  surgecast bench training --lanes 64
    """
    from stream.bench.training import bench_training

    flags = {} if device is None else {"device": device}
    settings = settings_of(context, **({"model": flags} if flags else {}))
    rows = bench_training(
        settings.model,
        device=_device(settings),
        lanes=lanes,
        updates=updates,
        notify=_print_progress,
    )
    _print("training", rows, as_json=as_json)


def _device(settings: "Settings") -> str:
    from stream.registry.model_registry import device_of

    return device_of(settings.model.device)


@bench.command()
def store(
    context: typer.Context,
    *,
    series: Annotated[int, typer.Option(min=1, help="Number of series.")] = 100_000,
    buckets: Annotated[int, typer.Option(min=1, help="Closed buckets per series.")] = 672,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of the input topics.")] = 4,
    as_json: Json = False,
) -> None:
    """Measure the store's memory, recovery time and reads.

    100,000 series × 672 buckets take 3 GB of memory and some minutes.

    Example:  surgecast bench store --series 20000 --json
    """
    from stream.bench.store import bench_store

    settings = settings_of(context, kafka={"partitions": partitions})
    with _filling() as show:
        rows = bench_store(
            settings, series=series, buckets=buckets, notify=_print_progress, show=show
        )
    _print("store", rows, as_json=as_json)


@contextmanager
def _filling() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr."""
    console = Console(stderr=True)
    with Progress(console=console, transient=not console.is_terminal) as bar:
        task = bar.add_task("filling the store")
        yield lambda done, total: bar.update(task, completed=done, total=total)


@bench.command()
def swap(
    context: typer.Context,
    *,
    series: Annotated[int, typer.Option(min=100, help="Number of series.")] = 100_000,
    hours: Annotated[int, typer.Option(min=2, help="Stored hours per series.")] = 168,
    events: Annotated[
        int, typer.Option(min=10_000, help="Events to ingest during the swap.")
    ] = 26_000_000,
    cold: Annotated[
        bool, typer.Option("--cold", help="Warm up in the worker, without a trainer's states.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure how a busy worker switches to another model.

    Reports the hand-over of states, the warm-up, the switch, and the slow-down of ingest.

    Example:  surgecast bench swap --series 100000 --hours 168
    """
    from stream.bench.isolated import isolated_settings
    from stream.bench.swap import bench_swap

    with isolated_settings(settings_of(context)) as settings:
        rows = bench_swap(
            settings, series=series, hours=hours, events=events, cold=cold, notify=_print_progress
        )
    _print("swap", rows, as_json=as_json)


def _print_progress(text: str) -> None:
    sys.stderr.write(text + "\n")


def _print(name: str, rows: "list[Row]", *, as_json: bool) -> None:
    from stream.bench.report import cpu_name, report

    if as_json:
        print_json(report(name, cpu_name(), rows))
        return
    table = Table(title=f"bench {name}, {cpu_name()}")
    table.add_column("row")
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("details")
    for row in rows:
        details = ", ".join(f"{key} {value}" for key, value in row.facts.items())
        table.add_row(
            row.name,
            f"{row.value:,.4g}" if row.value < 100 else f"{row.value:,.0f}",
            row.unit,
            details,
        )
    Console().print(table)
