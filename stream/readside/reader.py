"""The read side of the store: what dashboards and the API ask about series, in few round trips.

`Reader.refresh()` takes note of how far the workers have come; the answers go by what it noted.
A reader belongs to one thread. It only reads.

Axes: T = buckets, F = features in the order of `model.contract.FEATURE_NAMES`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from redis import Redis
from redis.exceptions import RedisError

from stream.clock import wall_clock_ms
from stream.errors import ServiceUnavailable
from stream.features.packed_block import PACKED_BYTES, ROW_BYTES, unpack_block
from stream.readside.deployment import Deployment, Progress
from stream.readside.live_accuracy import LiveAccuracy, read_accuracy
from stream.readside.movers import Mover, Movers
from stream.readside.overview import Overview
from stream.readside.series_answers import (
    Age,
    Floats,
    OpenSums,
    SeriesForecast,
    SeriesHistory,
    open_row,
    open_values,
    parse_forecast,
)
from stream.readside.worker_stats import DeploymentStats
from stream.series_ids import split_sku
from stream.settings import RedisSettings
from stream.state import keys
from stream.state.forecasts import (
    BAND_BYTES,
    named_targets,
    row_bytes,
    target_row_bytes,
    unpack_bands,
)
from stream.state.keys import ROLLUPS, Tag
from stream.state.pages import page_of

_READ_ROWS: Final = files("stream.state").joinpath("lua/read_rows.lua").read_text()
_MAX_OPEN: Final = 64
_TRIES: Final = 3

Live = tuple[list[OpenSums], SeriesForecast | None]


def connect(settings: RedisSettings) -> "Redis":
    """Client for `Reader`, not yet connected. Raises ServiceUnavailable when no URL is set."""
    if settings.url is None:
        raise ServiceUnavailable(
            "no store: set SURGECAST_REDIS__URL, for example redis://host:6379/0"
        )
    password = settings.password.get_secret_value() if settings.password else None
    options = {"password": password} if password else {}
    return Redis.from_url(settings.url, socket_timeout=5, socket_connect_timeout=5, **options)


class Reader:
    """Answers about series, from a Redis client with `decode_responses=False`.

    Its methods raise ServiceUnavailable when the store does not answer; `refresh` raises
    IncompatibleState when the store holds another build's columns.
    """

    def __init__(self, redis: "Redis", *, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._redis: Any = redis  # its stubs mix the answers of the blocking and the async client
        self._row_script = self._redis.register_script(_READ_ROWS)
        self._seen = Overview(redis, now_ms=now_ms)
        self._movers = Movers(redis)
        self._targets: dict[Tag, tuple[str, ...]] = {}

    def refresh(self) -> None:
        """Take note of the workers' progress, counters and new series; one round trip."""
        self._seen.refresh()

    def info(self) -> Deployment | None:
        """The deployment's shape; None before the first worker has started."""
        return self._seen.info

    def stats(self) -> DeploymentStats:
        """Counters of the living workers together."""
        return self._seen.stats

    def progress(self, series_id: str) -> Progress | None:
        """How far the partition of a series has come; None when either is unknown."""
        place = self.find(series_id)
        return self._seen.progress.get(place[0]) if place else None

    def find(self, series_id: str) -> tuple[Tag, int] | None:
        """Tag and slot of a series; None when it is not known."""
        return self._seen.catalog.find(series_id)

    def series(self) -> list[tuple[str, Tag, int]]:
        """Every series as (series_id, tag, slot): roll-ups first, then in order of appearance."""
        return self._seen.catalog.listed()

    @property
    def n_series(self) -> int:
        """How many series there are, roll-ups included."""
        return len(self._seen.catalog)

    def rollups(self) -> list[str]:
        """Series ids of the roll-ups: `total`, `category:*`."""
        return self._seen.catalog.named(ROLLUPS)

    def categories(self) -> Mapping[str, str]:
        """Category of each SKU that has one."""
        return self._seen.catalog.categories

    def category_of(self, series_id: str) -> str | None:
        """Category of the series' SKU; None for a roll-up or when none is known."""
        return self.categories().get(split_sku(series_id)[0])

    def age(self, series_id: str) -> Age:
        """How old every answer about a series is."""
        return self._seen.age(series_id)

    def movers(self, n: int) -> list[Mover]:
        """The n series that rose and the n that fell most: last 24 h against the mean day before.

        Largest rise first, largest fall last. Reads each closed block once in the reader's life.
        """
        self._movers.catch_up(self._seen)
        return self._movers.top(n)

    def by_volume(self) -> list[str]:
        """Series ids by units of the last eight days, as of the last `movers`; most first."""
        return self._movers.by_volume()

    def history(self, series_id: str, from_ms: int, to_ms: int) -> SeriesHistory:
        """Closed buckets that start in `[from_ms, to_ms)`; one round trip."""
        start_T, home = self._grid(series_id, from_ms, to_ms)
        rows = self._rows(home, "closed", start_T, PACKED_BYTES, absent=b"\0")
        return SeriesHistory(series_id, start_T, unpack_block(rows), self.age(series_id))

    def ahead(self, series_id: str, from_ms: int, to_ms: int) -> Floats:
        """Quantiles 0.1, 0.5, 0.9 forecast one step ahead, float32 [T, 3], of `history`'s buckets.

        A bucket that was never forecast is a row of NaN.
        """
        start_T, home = self._grid(series_id, from_ms, to_ms)
        return unpack_bands(self._rows(home, "ahead", start_T, BAND_BYTES, absent=b"\xff"))

    def accuracy(self, days: int) -> LiveAccuracy:
        """Scores of the last days of event time, the open one included; one round trip."""
        info = self._seen.info
        through = [progress.closed_through_ms for progress in self._seen.progress.values()]
        if info is None or not through:
            return LiveAccuracy()
        return read_accuracy(
            self._redis,
            self._seen.tags(),
            horizon=info.horizon,
            through_ms=max(through),
            days=days,
        )

    def calibrated(self) -> bool:
        """Whether the newest forecasts of all partitions that have any are calibrated."""
        pipe = self._redis.pipeline(transaction=False)
        for tag in self._seen.tags():
            pipe.hget(keys.of(tag, "forecast"), "calibrated")
        flags = [flag for flag in self._answer(pipe.execute) if flag is not None]
        return bool(flags) and all(flag == b"1" for flag in flags)

    def open_bucket(self, series_id: str) -> list[OpenSums]:
        """Buckets not closed yet, oldest first: usually one, two while late events are awaited."""
        return self.live([series_id])[series_id][0]

    def forecast(self, series_id: str) -> SeriesForecast | None:
        """The newest forecast, header and rows of one moment; None when there is none yet."""
        return self.live([series_id])[series_id][1]

    def live(self, series_ids: Iterable[str]) -> dict[str, Live]:
        """Open buckets and forecast of several series; one transaction a partition."""
        answers: dict[str, Live] = {}
        by_tag: dict[Tag, list[tuple[str, int]]] = {}
        for series_id in series_ids:
            place = self.find(series_id)
            if place is None:
                answers[series_id] = ([], None)
            else:
                by_tag.setdefault(place[0], []).append((series_id, place[1]))
        for tag, slots in by_tag.items():
            answers |= self._live(tag, slots)
        return answers

    def _live(self, tag: Tag, slots: Sequence[tuple[str, int]]) -> dict[str, Live]:
        info = self._seen.info
        if info is None:
            return {series_id: ([], None) for series_id, _ in slots}
        for _ in range(_TRIES):  # a bucket may close between the look and the read: read again
            starts, targets = self._open_starts(tag), self._targets.get(tag, ())
            header, rows = self._read_live(
                tag, [slot for _, slot in slots], starts, info=info, targets=targets
            )
            self._targets[tag] = named_targets(header)
            if self._open_starts(tag)[:1] == starts[:1] and self._targets[tag] == targets:
                break
        answers: dict[str, Live] = {}
        for (series_id, _), (row, *more) in zip(slots, rows, strict=True):
            further, sums = more[: len(targets)], more[len(targets) :]
            opened = [OpenSums(s, open_row(at)) for s, at in zip(starts, sums, strict=True)]
            answers[series_id] = (
                self._open_rollup(series_id) if tag == ROLLUPS else opened,
                parse_forecast(
                    series_id,
                    header,
                    row=row,
                    shape=info,
                    age=self.age(series_id),
                    targets=dict(zip(targets, further, strict=True)),
                ),
            )
        return answers

    def _read_live(
        self,
        tag: Tag,
        slots: Sequence[int],
        starts: Sequence[int],
        *,
        info: Deployment,
        targets: Sequence[str],
    ) -> tuple[dict[bytes, bytes], list[list[bytes]]]:
        """Header of the forecast, and of each slot its row, those of `targets`, its open sums."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.hgetall(keys.of(tag, "meta"))
        pipe.hgetall(keys.of(tag, "forecast"))
        shape = info.horizon, len(info.quantiles)
        kept = [("rows", row_bytes(*shape)), *((t, target_row_bytes(*shape)) for t in targets)]
        for slot in slots:
            for kind, size in kept:
                path, at = page_of(("forecast", kind), slot, size)
                pipe.getrange(keys.of(tag, *path), at, at + size - 1)
            for start in starts:
                at = slot * ROW_BYTES
                pipe.getrange(keys.of(tag, "open", start), at, at + ROW_BYTES - 1)
        meta, header, *rows = self._answer(pipe.execute)
        progress = Progress.parse(meta)
        if progress is not None:
            self._seen.progress[tag] = progress
        width = len(kept) + len(starts)
        return header, [rows[at : at + width] for at in range(0, len(rows), width)]

    def _open_starts(self, tag: Tag) -> list[int]:
        progress, info = self._seen.progress.get(tag), self._seen.info
        if progress is None or info is None or tag == ROLLUPS:
            return []
        newest_ms = max(progress.newest_ms, progress.closed_through_ms)
        return list(range(progress.closed_through_ms, newest_ms + 1, info.bucket_ms)[:_MAX_OPEN])

    def _open_rollup(self, series_id: str) -> list[OpenSums]:
        progress = self._seen.progress.get(ROLLUPS)
        return [
            OpenSums(start, open_values(sums[series_id]))
            for start, sums in sorted(self.stats().open_rollups.items())
            if series_id in sums and (progress is None or start >= progress.closed_through_ms)
        ]

    def _grid(
        self, series_id: str, from_ms: int, to_ms: int
    ) -> tuple[NDArray[np.int64], tuple[Tag, int] | None]:
        progress, info = self.progress(series_id), self._seen.info
        if progress is None or info is None:
            return np.zeros(0, np.int64), None
        starts = progress.closed_starts(from_ms, to_ms, bucket_ms=info.bucket_ms)
        return np.array(starts, np.int64), self.find(series_id)

    def _rows(
        self,
        home: tuple[Tag, int] | None,
        kind: str,
        start_T: NDArray[np.int64],
        width: int,
        *,
        absent: bytes,
    ) -> bytes:
        """A series' rows of the blocks at `start_T`, joined; filled with `absent` where none is."""
        if home is None or not len(start_T):
            return b""
        tag, slot = home
        (_, _, *page), at = page_of((kind, 0), slot, width)
        step_ms = int(start_T[1] - start_T[0]) if len(start_T) > 1 else 1
        prefix, suffix = keys.of(tag, kind, ""), "".join(f":{number}" for number in page)
        words = (suffix, int(start_T[0]), int(start_T[-1]), step_ms, at, width, absent)
        return bytes(self._answer(lambda: self._row_script(keys=[prefix], args=words)))

    def _answer(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except RedisError as error:
            raise ServiceUnavailable(f"the store does not answer: {error}") from error
