"""Input of a job: the files named on the command line, or the shipped sample.

The word `sample` names the shipped order lines. They come with a catalog, a default start of the
replay, and synthetic clicks, which are generated once and stored in the data directory.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import polars as pl
from redis.exceptions import RedisError

from stream.errors import ServiceUnavailable, UsageError
from stream.jobs.files.event_files import read_catalog, read_clicks, read_orders
from stream.jobs.files.sample import (
    REPLAY_START_MS,
    SAMPLE_LABELS,
    is_sample,
    sample_catalog,
    sample_orders,
)
from stream.jobs.files.synthetic_clicks import cached_clicks
from stream.readside.reader import connect
from stream.settings import Settings
from stream.state import keys

SAMPLE: Final = "sample"


@dataclass(frozen=True, slots=True)
class Source:
    """Orders, clicks and catalog, sorted by time; `labels` describe the inputs."""

    orders: pl.DataFrame
    clicks: pl.DataFrame | None
    catalog: pl.DataFrame | None
    labels: dict[str, str]


def orders_path(name: str | Path) -> Path:
    """Path of the file `name`, a path or `sample`. Raises UsageError if it does not exist."""
    path = sample_orders() if str(name) == SAMPLE else Path(name)
    if not path.is_file():
        raise UsageError(f"{path}: no such file (write {SAMPLE} for the shipped orders)")
    return path


def default_start_ms(path: Path) -> int | None:
    """Default start of a replay; None (the start of the file) for all files but the sample."""
    return REPLAY_START_MS if is_sample(path) else None


def open_source(
    settings: Settings,
    orders: str | Path,
    *,
    clicks: Path | None = None,
    catalog: Path | None = None,
) -> Source:
    """Read the files of a job; the sample comes with its own catalog and synthetic clicks.

    Raises UsageError naming file, column and row if one cannot be used.
    """
    path = orders_path(orders)
    lines = read_orders(path)
    seen = read_clicks(clicks) if clicks is not None else None
    known = read_catalog(catalog) if catalog is not None else None
    labels: dict[str, str] = {}
    if is_sample(path):
        labels = dict(SAMPLE_LABELS)
        known = read_catalog(sample_catalog()) if known is None else known
        if seen is None:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
            seen = cached_clicks(lines, settings.data_dir / "sample-clicks.parquet")
        else:
            del labels["clicks"]
    return Source(lines, seen, known, labels)


def publish_labels(settings: Settings, labels: Mapping[str, str]) -> None:
    """Write the labels of the inputs to the store (`sc2:info`), if a store is configured.

    Raises ServiceUnavailable if the store does not answer.
    """
    if not labels or settings.redis.url is None:
        return
    try:
        with connect(settings.redis) as client:
            info = json.loads(client.get(keys.info()) or b"{}")
            info["labels"] = {**info.get("labels", {}), **labels}
            client.set(keys.info(), json.dumps(info))
    except RedisError as error:
        raise ServiceUnavailable(
            f"the store does not answer ({error}); start it or correct SURGECAST_REDIS__URL"
        ) from None


def time_ms(text: str) -> int:
    """Milliseconds of a date, an RFC 3339 time or integer milliseconds. Raises UsageError.

    >>> time_ms("2011-09-05"), time_ms("2011-09-05T01:00:00+01:00"), time_ms("1315180800000")
    (1315180800000, 1315180800000, 1315180800000)
    """
    if text.lstrip("-").isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is not a time; write 2011-09-05, 2011-09-05T08:00:00Z or milliseconds"
        ) from None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1_000)


def speed_of(text: str) -> float | None:
    """Event-time seconds per second; None for `max`. Raises UsageError.

    >>> speed_of("3600"), speed_of("max")
    (3600.0, None)
    """
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise UsageError(f"--speed {text}: give a number above 0, or max")
    return speed
