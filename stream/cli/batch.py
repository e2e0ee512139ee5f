"""Commands that work on files, without broker or store: `train`, `backtest`, `forecast`."""

from pathlib import Path
from typing import Annotated

import typer

from stream.cli.context import settings_of
from stream.cli.options import Catalog, Clicks, Json, Until
from stream.jobs.training.for_workers import train_on_events
from stream.processes.output import print_json

History = Annotated[
    str,
    typer.Option(
        "--history",
        help="CSV or Parquet file with columns date, sales and, for several series, sku; or order "
        "lines; or `sample` for the shipped ones.",
    ),
]
Bucket = Annotated[
    str | None,
    typer.Option(
        help="Bucket width: 1h, 1d or such, week or month. [the step between the dates of the file]"
    ),
]
Horizon = Annotated[int, typer.Option(min=1, max=366, help="Number of buckets to forecast.")]
Seconds = Annotated[
    float | None, typer.Option(min=1, help="Stop training after this many seconds.")
]
Seed = Annotated[int, typer.Option(help="Seed; the same seed trains the same network.")]
Plans = Annotated[
    Path | None,
    typer.Option(
        help="Announced promotions, prices, closures and events: JSON lines as on the topic plans."
    ),
]
Plot = Annotated[Path | None, typer.Option(help="Write a plot to this PNG file.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(train)
    app.command()(backtest)
    app.command()(forecast)


def train(
    context: typer.Context,
    *,
    history: History,
    clicks: Clicks = None,
    catalog: Catalog = None,
    until: Until = None,
    bucket: Bucket = None,
    horizon: Annotated[
        int | None,
        typer.Option(min=1, max=366, help="Number of buckets to forecast. [model.horizon]"),
    ] = None,
    promote: Annotated[
        bool,
        typer.Option(
            "--promote",
            help="Make it the champion: trained on a file of sales, whichever model serves now; "
            "trained for the workers, only if it is better than what serves, on buckets held back "
            "from its training.",
        ),
    ] = False,
    plans: Plans = None,
    max_seconds: Seconds = None,
    seed: Seed = 7,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue an interrupted training with the same options."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model on a file, store it and print its id.

    With --clicks, --catalog or --until, the file must have order lines, and the model fits the
    workers: their bucket width, horizon and roll-ups. The same applies if --history is the folder
    or URL of an archive (surgecast archive).

    On several GPUs, replace surgecast with torchrun --nproc-per-node 8 -m stream.cli.

    Example:  surgecast train --history sales.csv --horizon 28
    """
    from model.training.ranks import process_group
    from stream.errors import UsageError
    from stream.jobs.archive.files import is_archive
    from stream.jobs.batch.run import run_train
    from stream.jobs.files.job_source import orders_path
    from stream.jobs.training.for_workers import train_on_archive
    from stream.jobs.training.train import RunFolder
    from stream.registry.model_registry import Registry, device_of

    for_workers = bool(clicks or catalog or until) or is_archive(history)
    flags = {
        "window": {"bucket": bucket} if bucket is not None and for_workers else {},
        "model": {"horizon": horizon} if horizon is not None else {},
    }
    settings = settings_of(context, **{name: part for name, part in flags.items() if part})
    run_folder = RunFolder(settings.data_dir / "training", resume)
    with process_group(device_of(settings.model.device)) as ranks:
        if is_archive(history):
            if plans is not None:
                raise UsageError(
                    f"--plans cannot be combined with an archive ({history}); "
                    "give --history a file of sales or order lines"
                )
            outcome = train_on_archive(
                settings, history,
                until=until, promote=promote, max_seconds=max_seconds, seed=seed,
                run_folder=run_folder,
            )  # fmt: skip
        elif for_workers:
            outcome = train_on_events(
                settings, history, clicks, catalog,
                until=until, promote=promote, max_seconds=max_seconds, seed=seed,
                run_folder=run_folder, plans=plans,
            )  # fmt: skip
        else:
            outcome = run_train(
                orders_path(history),
                settings.model,
                Registry(settings.registry_path),
                bucket_ms=_bucket_ms(bucket),
                timezone=settings.window.timezone,
                promote=promote,
                plans=plans,
                max_seconds=max_seconds,
                seed=seed,
                run_folder=run_folder,
            )
    if not ranks.first:
        return
    if as_json:
        print_json(
            {
                "model_id": outcome.model_id,
                "metrics": outcome.metrics,
                "span_ms": list(outcome.span_ms),
                "promoted": outcome.promoted,
                "reason": outcome.reason,
            }
        )
        return
    if outcome.reason:
        typer.echo(outcome.verdict, err=True)
    typer.echo(outcome.model_id)


def backtest(
    context: typer.Context,
    *,
    history: History,
    horizon: Horizon,
    origins: Annotated[
        str,
        typer.Option(help="Number of origins at the end of the file, or their dates: 2025-03-01,…"),
    ] = "4",
    bucket: Bucket = None,
    out: Annotated[
        Path | None, typer.Option(help="Write all forecasts to this Parquet or CSV file.")
    ] = None,
    plot: Plot = None,
    importance: Annotated[
        bool,
        typer.Option(
            "--importance",
            help="Also measure how much each input matters, and write importance.csv and "
            "importance.png into the folder of --out, or here.",
        ),
    ] = False,
    plans: Plans = None,
    max_seconds: Seconds = None,
    seed: Seed = 7,
) -> None:
    """Forecast from past origins and score against the actuals.

    The seasonal naive, and model.challenger if set, are scored on the same origins.

    Example:  surgecast backtest --history sales.csv --horizon 28 --origins 6
    """
    from stream.jobs.batch.run import run_backtest
    from stream.jobs.files.job_source import orders_path, time_ms

    count = int(origins) if origins.isdigit() and len(origins) < 5 else None
    settings = settings_of(context)
    run_backtest(
        orders_path(history),
        settings.model,
        horizon=horizon,
        origins=count if count is not None else [time_ms(part) for part in origins.split(",")],
        bucket_ms=_bucket_ms(bucket),
        timezone=settings.window.timezone,
        out=out,
        plot=plot,
        importance=_next_to(out, "importance.csv") if importance else None,
        plans=plans,
        max_seconds=max_seconds,
        seed=seed,
    )


def forecast(
    context: typer.Context,
    *,
    history: History,
    horizon: Horizon,
    bucket: Bucket = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the forecast to this CSV or Parquet file. [CSV on stdout]"),
    ] = None,
    plot: Plot = None,
    challenger: Annotated[
        bool,
        typer.Option("--challenger", help="Forecast with the foundation model model.challenger."),
    ] = False,
    plans: Plans = None,
    max_seconds: Seconds = None,
    seed: Seed = 7,
) -> None:
    """Forecast the buckets after the end of a file.

    Uses the champion of the registry if it fits the file; otherwise trains a network first.

    Example:  surgecast forecast --history sales.csv --horizon 28
    """
    from stream.jobs.batch.run import run_forecast
    from stream.jobs.files.job_source import orders_path
    from stream.registry.model_registry import Registry

    settings = settings_of(context)
    table = run_forecast(
        orders_path(history),
        settings.model,
        horizon=horizon,
        bucket_ms=_bucket_ms(bucket),
        timezone=settings.window.timezone,
        out=out,
        plot=plot,
        registry=Registry(settings.registry_path),
        challenger=challenger,
        plans=plans,
        max_seconds=max_seconds,
        seed=seed,
    )
    if out is None:
        typer.echo(table.write_csv(), nl=False)


def _next_to(out: Path | None, name: str) -> Path:
    return (out.parent if out is not None else Path()) / name


def _bucket_ms(text: str | None) -> int | None:
    """Bucket width in ms. Raises UsageError for neither a duration nor `week` or `month`."""
    from model.durations import MONTH_MS, WEEK_MS
    from stream.errors import UsageError
    from stream.settings import duration_ms

    try:
        named = {"week": WEEK_MS, "month": MONTH_MS}
        return None if text is None else named.get(text) or duration_ms(text)
    except ValueError as error:
        raise UsageError(f"--bucket {error}") from None
