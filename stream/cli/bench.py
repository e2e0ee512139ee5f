"""Commands that measure: `surgecast bench …`; the README has their figures."""

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

Device = Annotated[str | None, typer.Option(help="cpu or cuda. [model.device]")]

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
    rounds: Annotated[
        int, typer.Option(min=1, help="Turns of the worker and aiokafka alone; the median counts.")
    ] = 3,
    peer_seconds: Annotated[float, typer.Option(min=1, help="Time for each peer.")] = 20.0,
    as_json: Json = False,
) -> None:
    """Events a second of one worker: decode, checks, deduplication, features, flush; and peers.

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
            say=_report_progress,
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
    from stream.bench.isolated import isolated_settings
    from stream.bench.latency import bench_latency

    with isolated_settings(settings_of(context)) as settings:
        rows = bench_latency(settings, rate=rate, seconds=seconds, say=_report_progress)
    _print("latency", rows, as_json=as_json)


@bench.command()
def inference(
    context: typer.Context,
    *,
    series: Annotated[int, typer.Option(min=1, help="Series that are stepped.")] = 100_000,
    history: Annotated[int, typer.Option(min=2, help="Buckets that a re-read reads.")] = 168,
    targets: Annotated[
        str | None, typer.Option(help="Forecast beside units: revenue,visitors. [model.targets]")
    ] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Seconds for one bucket of all series: carried, re-read, and what the machine's limits allow.

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
        say=_report_progress,
    )
    _print("inference", rows, as_json=as_json)


@bench.command()
def training(
    context: typer.Context,
    *,
    lanes: Annotated[int, typer.Option(min=4, help="Series that walk side by side.")] = 64,
    updates: Annotated[int, typer.Option(min=1, help="Updates that are timed.")] = 20,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Series-steps a second of training, with and without mixed precision.

    Example:  surgecast bench training --lanes 64
    """
    from stream.bench.training import bench_training

    flags = {} if device is None else {"device": device}
    settings = settings_of(context, **({"model": flags} if flags else {}))
    rows = bench_training(
        settings.model, device=_device(settings), lanes=lanes, updates=updates, say=_report_progress
    )
    _print("training", rows, as_json=as_json)


def _device(settings: "Settings") -> str:
    from stream.jobs.training.offline import device_name

    return device_name(settings.model)


@bench.command()
def store(
    context: typer.Context,
    *,
    series: Annotated[int, typer.Option(min=1, help="Series in all.")] = 100_000,
    buckets: Annotated[int, typer.Option(min=1, help="Closed buckets.")] = 672,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of the inputs.")] = 4,
    as_json: Json = False,
) -> None:
    """Memory of the store, time until a worker has all of it back, one series' history.

    100,000 series × 672 buckets take 3 GB of memory and some minutes.

    Example:  surgecast bench store --series 20000 --json
    """
    from stream.bench.store import bench_store

    settings = settings_of(context, kafka={"partitions": partitions})
    with _filling() as show:
        rows = bench_store(
            settings, series=series, buckets=buckets, say=_report_progress, show=show
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
    series: Annotated[int, typer.Option(min=100, help="Series of the shop.")] = 100_000,
    hours: Annotated[int, typer.Option(min=2, help="Stored hours of each.")] = 168,
    events: Annotated[int, typer.Option(min=10_000, help="Counted meanwhile.")] = 26_000_000,
    cold: Annotated[
        bool, typer.Option("--cold", help="Without states handed over by a trainer.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Another model takes over in a busy worker: hand-over, warm-up, switch, what ingest loses.

    Example:  surgecast bench swap --series 100000 --hours 168
    """
    from stream.bench.isolated import isolated_settings
    from stream.bench.swap import bench_swap

    with isolated_settings(settings_of(context)) as settings:
        rows = bench_swap(
            settings, series=series, hours=hours, events=events, cold=cold, say=_report_progress
        )
    _print("swap", rows, as_json=as_json)


def _report_progress(text: str) -> None:
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
