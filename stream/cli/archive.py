"""Commands that fill the archive and the store: `archive`, `backfill`."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.context import settings_of
from stream.cli.options import Catalog, Clicks, Json, Lines
from stream.processes.output import print_json
from stream.processes.progress_lines import Step, report

if TYPE_CHECKING:
    from stream.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(archive)


def archive(
    context: typer.Context,
    *,
    to: Annotated[
        str | None,
        typer.Option(help="Archive: a folder or a URL such as s3://… [<data_dir>/history]"),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(help="Repeat at this interval until stopped, such as 15m or 1h."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Append newly closed buckets to a Parquet archive.

    The store drops buckets older than state.retention; the archive keeps them.

    Example:  surgecast archive --to s3://shop/demand --every 1h
    """
    from stream.errors import ServiceUnavailable, UsageError
    from stream.jobs.archive.export import archive as run_archive
    from stream.readside.reader import connect
    from stream.settings import duration_ms

    settings = settings_of(context)
    path = to or str(settings.data_dir / "history")
    try:
        every_ms = None if every is None else duration_ms(every)
    except ValueError as error:
        raise UsageError(f"--every {error}") from None
    with connect(settings.redis) as client:
        while True:
            try:
                done = run_archive(client, path)
            except ServiceUnavailable as error:
                if every_ms is None:
                    raise
                typer.echo(f"surgecast: {error}; trying again later", err=True)
            else:
                if as_json:
                    print_json(
                        {
                            "path": path,
                            "blocks": done.blocks,
                            "rows": done.rows,
                            "through_ms": done.through_ms,
                            "lost_buckets": done.gaps,
                        }
                    )
                else:
                    typer.echo(f"archived {done.blocks:,} blocks, {done.rows:,} rows", err=True)
                if done.gaps:
                    typer.echo(
                        f"surgecast: {done.gaps} buckets were dropped from the store before they "
                        "were archived; archive more often than state.retention",
                        err=True,
                    )
            if every_ms is None:
                return
            time.sleep(every_ms / 1000)


def restore(settings: "Settings", path: str, *, force: bool, if_empty: bool) -> None:
    """Fill the store from an archive. Raises the errors of `restore_archive`."""
    from stream.jobs.archive.restore import restore_archive
    from stream.kafka.admin import earliest_offsets
    from stream.readside.reader import connect
    from stream.state import keys
    from stream.topics import CATALOG, CLICKS, ORDERS

    earliest = None
    if settings.kafka.bootstrap_servers is not None:
        topics = (ORDERS.name, CLICKS.name, CATALOG.name)
        offsets = earliest_offsets(settings, topics)

        def earliest(number: int) -> dict[str, int]:
            return {topic: offsets[topic, number] for topic in topics if (topic, number) in offsets}

    with connect(settings.redis) as client:
        if if_empty and set(client.hkeys(keys.of(0, "meta"))) - {b"fence"}:
            typer.echo("the store is not empty; nothing was written", err=True)
            return
        done = restore_archive(settings, client, path, force=force, earliest=earliest)
    typer.echo(f"stored {done.buckets:,} buckets of {done.series:,} series", err=True)
    if done.unplaced:
        typer.echo(
            "surgecast: no broker is configured and the archive has no usable mark: partitions "
            f"{', '.join(map(str, done.unplaced))} will continue at the consumer group's "
            "committed offsets, which may skip events of buckets that are not archived",
            err=True,
        )


def backfill(
    context: typer.Context,
    orders: Annotated[
        str | None,
        typer.Argument(help="Order lines: a CSV or Parquet file, or `sample` for the shipped one."),
    ] = None,
    *,
    until: Annotated[
        str | None, typer.Option(help="Store buckets that end at or before this time.")
    ] = None,
    from_archive: Annotated[
        str | None,
        typer.Option(help="Instead of ORDERS: folder or URL of an archive (surgecast archive)."),
    ] = None,
    clicks: Clicks = None,
    catalog: Catalog = None,
    force: Annotated[
        bool, typer.Option("--force", help="Delete the state in the store first.")
    ] = False,
    if_empty: Annotated[
        bool, typer.Option("--if-empty", help="Do nothing if the store is not empty.")
    ] = False,
    statistics: Annotated[
        bool,
        typer.Option(help="Also carry the statistics of ORDERS older than the store, for models."),
    ] = True,
    progress_lines: Lines = False,
) -> None:
    """Fill an empty store with history, before the first worker.

    History comes from files or from an archive. Workers then continue after its last bucket. The
    store keeps the last state.retention; means, age and seasons of each series are of all of it.

    Example:  surgecast backfill orders.parquet --until 2025-03-01
    """
    from stream.errors import IncompatibleState, UsageError
    from stream.jobs.backfill import backfill as run_backfill
    from stream.jobs.files.job_source import open_source, time_ms
    from stream.jobs.history.file_statistics import keep_statistics
    from stream.jobs.history.from_files import build_history
    from stream.readside.reader import connect

    settings = settings_of(context)
    if from_archive is not None:
        restore(settings, from_archive, force=force, if_empty=if_empty)
        return
    if orders is None or until is None:
        raise UsageError("backfill needs ORDERS and --until, or --from-archive")
    source = open_source(settings, orders, clicks=clicks, catalog=catalog)
    carried = 0
    if progress_lines:
        report(Step("history", 1, 2))
    try:
        with connect(settings.redis) as client:
            done = run_backfill(
                settings,
                client,
                source.orders,
                source.clicks,
                source.catalog,
                until_ms=time_ms(until),
                labels=source.labels,
                force=force,
            )
            if statistics and done.buckets:
                whole = build_history(
                    source.orders, source.clicks, source.catalog,
                    bucket_ms=settings.window.bucket, end_ms=done.end_ms,
                )  # fmt: skip
                carried = keep_statistics(settings, client, whole)
    except IncompatibleState:
        if not if_empty:
            raise
        typer.echo("the store is not empty; nothing was written", err=True)
        return
    if progress_lines:
        report(Step("history", 2, 2, {"buckets": done.buckets, "series": done.series}))
        return
    typer.echo(f"stored {done.buckets:,} buckets of {done.series:,} series", err=True)
    if carried:
        typer.echo(f"carried their statistics over {carried:,} buckets", err=True)
