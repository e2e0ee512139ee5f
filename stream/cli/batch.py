"""The batch path, without broker or store: `train`, `backtest`, `forecast`."""

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
        help="Sales (date,sales and, for many, sku) or order lines, CSV or Parquet; or sample.",
    ),
]
Bucket = Annotated[
    str | None, typer.Option(help="Bucket width, such as 1h or 1d. [what the dates show]")
]
Horizon = Annotated[int, typer.Option(min=1, max=366, help="Buckets ahead.")]
Seconds = Annotated[float | None, typer.Option(min=1, help="Stop training after so long.")]
Seed = Annotated[int, typer.Option(help="The same seed trains the same network.")]
Plans = Annotated[
    Path | None,
    typer.Option(help="Promotions, prices, closures, events: a JSON line each, as on the topic."),
]
Plot = Annotated[Path | None, typer.Option(help="Draw it into this PNG.")]


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
    horizon: Annotated[int | None, typer.Option(min=1, max=366, help="Buckets ahead.")] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Let it serve, whatever serves now.")
    ] = False,
    plans: Plans = None,
    max_seconds: Seconds = None,
    seed: Seed = 7,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a killed run of the same options was.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model on a file and put it into the registry; its id is printed.

    With --clicks, --catalog or --until the file holds order lines and the model is made for the
    workers: their buckets and horizon, roll-ups too. So it is from an archive's folder or URL
    (surgecast archive).

    On several GPUs:  torchrun --nproc-per-node 8 -m stream.cli train --history sales.csv

    Example:  surgecast train --history sales.csv --horizon 28
    """
    from model.training.ranks import joined
    from stream.errors import UsageError
    from stream.jobs.archive.files import is_archive
    from stream.jobs.batch.run import run_train
    from stream.jobs.files.job_source import orders_path
    from stream.jobs.training.for_workers import train_on_archive
    from stream.jobs.training.offline import Keep, device_name
    from stream.registry.model_registry import Registry

    flags = {
        "window": {"bucket": bucket} if bucket is not None else {},
        "model": {"horizon": horizon} if horizon is not None else {},
    }
    settings = settings_of(context, **{name: part for name, part in flags.items() if part})
    keep = Keep(settings.data_dir / "training", resume)
    with joined(device_name(settings.model)) as ranks:
        if is_archive(history):
            if plans is not None:
                raise UsageError("--plans needs a file of sales or order lines, not an archive")
            outcome = train_on_archive(
                settings, history,
                until=until, promote=promote, max_seconds=max_seconds, seed=seed, keep=keep,
            )  # fmt: skip
        elif clicks or catalog or until:
            outcome = train_on_events(
                settings, history, clicks, catalog,
                until=until, promote=promote, max_seconds=max_seconds, seed=seed, keep=keep,
                plans=plans,
            )  # fmt: skip
        else:
            outcome = run_train(
                orders_path(history),
                settings.model,
                Registry(settings.registry_path),
                bucket_ms=_bucket_ms(bucket),
                promote=promote,
                plans=plans,
                max_seconds=max_seconds,
                seed=seed,
                keep=keep,
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
            }
        )
    else:
        typer.echo(outcome.model_id)


def backtest(
    context: typer.Context,
    *,
    history: History,
    horizon: Horizon,
    origins: Annotated[
        str, typer.Option(help="How many of the last origins, or their dates with commas.")
    ] = "4",
    bucket: Bucket = None,
    out: Annotated[Path | None, typer.Option(help="Every forecast, long, as Parquet.")] = None,
    plot: Plot = None,
    importance: Annotated[
        bool,
        typer.Option(
            "--importance",
            help="What each input is worth: importance.csv and .png beside --out, or here.",
        ),
    ] = False,
    plans: Plans = None,
    max_seconds: Seconds = None,
    seed: Seed = 7,
) -> None:
    """Forecast from past origins and score against what came, next to the baselines.

    Example:  surgecast backtest --history sales.csv --horizon 28 --origins 2025-03-01,2025-04-01
    """
    from stream.jobs.batch.run import run_backtest
    from stream.jobs.files.job_source import orders_path, time_ms

    count = int(origins) if origins.isdigit() and len(origins) < 5 else None
    run_backtest(
        orders_path(history),
        settings_of(context).model,
        horizon=horizon,
        origins=count if count is not None else [time_ms(part) for part in origins.split(",")],
        bucket_ms=_bucket_ms(bucket),
        out=out,
        plot=plot,
        importance=_beside(out, "importance.csv") if importance else None,
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
    out: Annotated[Path | None, typer.Option(help="The forecast, as CSV or Parquet.")] = None,
    plot: Plot = None,
    plans: Plans = None,
    max_seconds: Seconds = None,
    seed: Seed = 7,
) -> None:
    """Forecast what follows a file; the champion serves if it fits, else a network is trained.

    Example:  surgecast forecast --history sales.csv --horizon 28 --out forecast.csv
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
        out=out,
        plot=plot,
        registry=Registry(settings.registry_path),
        plans=plans,
        max_seconds=max_seconds,
        seed=seed,
    )
    if out is None:
        typer.echo(table.write_csv(), nl=False)


def _beside(out: Path | None, name: str) -> Path:
    return (out.parent if out is not None else Path()) / name


def _bucket_ms(text: str | None) -> int | None:
    """Bucket width in ms. Raises UsageError for what is no duration."""
    from stream.errors import UsageError
    from stream.settings import duration_ms

    try:
        return None if text is None else duration_ms(text)
    except ValueError as error:
        raise UsageError(f"--bucket {error}") from None
