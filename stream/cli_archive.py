"""Commands around the archive: `archive`, and `backfill --from-archive`."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli_context import print_json, settings_of
from stream.cli_run import Json

if TYPE_CHECKING:
    from stream.jobs.offline import Keep, TrainingOutcome
    from stream.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(archive)


def archive(
    context: typer.Context,
    *,
    to: Annotated[
        str | None, typer.Option(help="Folder or fsspec URL. [<data_dir>/history]")
    ] = None,
    every: Annotated[
        str | None, typer.Option(help="Go on, once in this time, until stopped: 15m, 1h.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Add what has closed since the last run to an archive in Parquet, beyond state.retention.

    Example:  surgecast archive --to s3://shop/demand --every 1h
    """
    from stream.errors import ServiceUnavailable, UsageError
    from stream.feed.reader import connect
    from stream.jobs.archive import archive as run_archive
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
                        f"surgecast: {done.gaps} buckets had left the store before they were "
                        "archived; archive more often than state.retention",
                        err=True,
                    )
            if every_ms is None:
                return
            time.sleep(every_ms / 1000)


def restore(settings: "Settings", path: str, *, force: bool, if_empty: bool) -> None:
    """Fill the store from an archive. Raises what `restore_archive` raises."""
    from stream.feed.reader import connect
    from stream.jobs.restore_archive import restore_archive
    from stream.kafka_admin import earliest_offsets
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
            typer.echo("the store has state already; it is left as it is", err=True)
            return
        done = restore_archive(settings, client, path, force=force, earliest=earliest)
    typer.echo(f"stored {done.buckets:,} buckets of {done.series:,} series", err=True)
    if done.unplaced:
        typer.echo(
            "surgecast: no broker named and no fitting mark in the archive: partitions "
            f"{', '.join(map(str, done.unplaced))} will go on where the consumer group has "
            "committed, which may lie behind events of buckets not archived",
            err=True,
        )


def train_on_archive(
    settings: "Settings",
    path: str,
    *,
    until: str | None,
    promote: bool,
    max_seconds: float | None = None,
    seed: int = 7,
    keep: "Keep | None" = None,
) -> "TrainingOutcome":
    """Train a model for the workers on an archive: the roll-ups and the largest series.

    Raises UsageError where it cannot be used, or is of other buckets than the workers'.
    """
    from stream.cli_models import TRAINING_SERIES, TRAINING_SPAN_MS
    from stream.errors import UsageError
    from stream.jobs.archive_history import read_archive
    from stream.jobs.offline import train_from_history
    from stream.jobs.source import time_ms
    from stream.registry import Registry
    from stream.settings import duration_text

    history = read_archive(
        path,
        end_ms=None if until is None else time_ms(until),
        largest=TRAINING_SERIES,
        max_span_ms=TRAINING_SPAN_MS,
    )
    if history.bucket_ms != settings.window.bucket:
        raise UsageError(
            f"archive {path} holds buckets of {duration_text(history.bucket_ms)}; window.bucket "
            f"is {duration_text(settings.window.bucket)}"
        )
    return train_from_history(
        history,
        settings.model,
        Registry(settings.registry_path),
        promote=promote,
        max_seconds=max_seconds,
        seed=seed,
        keep=keep,
    )
