"""Queries about series, in few round trips to the store.

`Reader.refresh()` reads how far the workers have come; answers are as of the last refresh. A reader
serves one thread and writes nothing.

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
from stream.readside.condition import Fault
from stream.readside.counters import Counters
from stream.readside.deployment import Deployment, Progress
from stream.readside.live_accuracy import LiveAccuracy, read_accuracy
from stream.readside.overview import Overview
from stream.readside.rolling.movers import Mover, Movers
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
from stream.state import keys
from stream.state.connect import connect
from stream.state.forecasts import (
    BAND_BYTES,
    named_targets,
    row_bytes,
    target_row_bytes,
    unpack_bands,
)
from stream.state.keys import ROLLUPS, Tag
from stream.state.pages import page_of

__all__ = ["Live", "Reader", "connect"]

_READ_ROWS: Final = files("stream.state").joinpath("lua/read_rows.lua").read_text()
_MAX_OPEN: Final = 64
_ATTEMPTS: Final = 3

Live = tuple[list[OpenSums], SeriesForecast | None]


class Reader:
    """Answers queries about series, with a Redis client that has `decode_responses=False`.

    Its methods raise ServiceUnavailable if the store does not answer; `refresh` raises
    IncompatibleState if the store was written with other features.
    """

    def __init__(self, redis: "Redis", *, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._redis: Any = redis  # redis-py's stubs mix blocking and async results
        self._row_script = self._redis.register_script(_READ_ROWS)
        self._overview = Overview(redis, now_ms=now_ms)
        self._movers = Movers(redis)
        self._targets: dict[Tag, tuple[str, ...]] = {}

    def refresh(self) -> None:
        """Read the workers' progress, counters and new series; one round trip."""
        self._overview.refresh()

    def info(self) -> Deployment | None:
        """Layout of the deployment; None before the first worker has started."""
        return self._overview.info

    def stats(self) -> DeploymentStats:
        """Totals over the workers that report."""
        return self._overview.stats

    def counters(self) -> Counters:
        """Totals since the store began; they never fall."""
        return self._overview.counters

    def fault(self) -> Fault | None:
        """Why the answers are not those of now; None if they are."""
        return self._overview.fault()

    def progress(self, series_id: str) -> Progress | None:
        """Progress of the partition of a series; None if either is unknown."""
        found = self.find(series_id)
        return self._overview.progress.get(found[0]) if found else None

    def find(self, series_id: str) -> tuple[Tag, int] | None:
        """Tag and slot of a series; None if it is unknown."""
        return self._overview.catalog.find(series_id)

    def series(self) -> list[tuple[str, Tag, int]]:
        """Every series as (series_id, tag, slot): roll-ups first, then in order of appearance."""
        return self._overview.catalog.entries()

    @property
    def n_series(self) -> int:
        """Number of series, including roll-ups."""
        return len(self._overview.catalog)

    def rollups(self) -> list[str]:
        """Series ids of the roll-ups: `total`, `category:*`, `location:*`."""
        return self._overview.catalog.ids_in(ROLLUPS)

    def categories(self) -> Mapping[str, str]:
        """Category of each SKU that has one."""
        return self._overview.catalog.categories

    def category_of(self, series_id: str) -> str | None:
        """Category of the series' SKU; None for a roll-up or an unknown category."""
        return self.categories().get(split_sku(series_id)[0])

    def age(self, series_id: str) -> Age:
        """Age of the answers about a series."""
        return self._overview.age(series_id)

    def movers(self, n: int) -> list[Mover]:
        """The n largest rises and falls: units of the last 24 h against the mean day before.

        Largest rise first, largest fall last. Reads each closed block once per reader.
        """
        self._movers.update(self._overview)
        return self._movers.top(n)

    def by_volume(self) -> list[str]:
        """Series ids by units of the last eight days, largest first, as of the last `movers`."""
        return self._movers.by_volume()

    def volumes(self) -> Mapping[str, float]:
        """Units of the last eight days of every series with closed buckets, roll-ups included."""
        self._movers.update(self._overview)
        return self._movers.volumes()

    def history(self, series_id: str, from_ms: int, to_ms: int) -> SeriesHistory:
        """Closed buckets that start in `[from_ms, to_ms)`; one round trip."""
        start_T, found = self._closed_starts(series_id, from_ms, to_ms)
        rows = self._rows(found, "closed", start_T, PACKED_BYTES, absent=b"\0")
        return SeriesHistory(series_id, start_T, unpack_block(rows), self.age(series_id))

    def ahead(self, series_id: str, from_ms: int, to_ms: int) -> Floats:
        """One-step-ahead forecasts of `history`'s buckets: quantiles 0.1, 0.5, 0.9, float32 [T, 3].

        A bucket without a forecast is a row of NaN.
        """
        start_T, found = self._closed_starts(series_id, from_ms, to_ms)
        return unpack_bands(self._rows(found, "ahead", start_T, BAND_BYTES, absent=b"\xff"))

    def accuracy(self, days: int) -> LiveAccuracy:
        """Scores of the last `days` days of event time, with the current one; one round trip."""
        info = self._overview.info
        through_ms = [progress.closed_through_ms for progress in self._overview.progress.values()]
        if info is None or not through_ms:
            return LiveAccuracy()
        span = {"horizon": info.horizon, "through_ms": max(through_ms), "days": days}
        return read_accuracy(self._redis, self._overview.tags(), **span)

    def calibrated(self) -> bool:
        """True if the newest forecasts of every partition that has any are calibrated."""
        pipe = self._redis.pipeline(transaction=False)
        for tag in self._overview.tags():
            pipe.hget(keys.of(tag, "forecast"), "calibrated")
        flags = [flag for flag in self._call(pipe.execute) if flag is not None]
        return bool(flags) and all(flag == b"1" for flag in flags)

    def open_bucket(self, series_id: str) -> list[OpenSums]:
        """Open buckets, oldest first: usually one, two within the allowed lateness."""
        return self.live([series_id])[series_id][0]

    def forecast(self, series_id: str) -> SeriesForecast | None:
        """The newest forecast, header and rows read atomically; None if there is none yet."""
        return self.live([series_id])[series_id][1]

    def live(self, series_ids: Iterable[str]) -> dict[str, Live]:
        """Open buckets and forecast of several series; one transaction per partition."""
        answers: dict[str, Live] = {}
        by_tag: dict[Tag, list[tuple[str, int]]] = {}
        for series_id in series_ids:
            if (found := self.find(series_id)) is None:
                answers[series_id] = ([], None)
            else:
                by_tag.setdefault(found[0], []).append((series_id, found[1]))
        for tag, slots in by_tag.items():
            answers |= self._live(tag, slots)
        return answers

    def _live(self, tag: Tag, slots: Sequence[tuple[str, int]]) -> dict[str, Live]:
        if (info := self._overview.info) is None:
            return {series_id: ([], None) for series_id, _ in slots}
        for _ in range(_ATTEMPTS):  # a bucket may close between refresh and read
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
        """Read the forecast's header and, per slot, its row, its `targets` rows and open sums."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.hgetall(keys.of(tag, "meta"))
        pipe.hgetall(keys.of(tag, "forecast"))
        shape = info.horizon, len(info.quantiles)
        columns = [("rows", row_bytes(*shape)), *((t, target_row_bytes(*shape)) for t in targets)]
        for slot in slots:
            for kind, size in columns:
                path, at = page_of(("forecast", kind), slot, size)
                pipe.getrange(keys.of(tag, *path), at, at + size - 1)
            for start in starts:
                at = slot * ROW_BYTES
                pipe.getrange(keys.of(tag, "open", start), at, at + ROW_BYTES - 1)
        meta, header, *rows = self._call(pipe.execute)
        if (progress := Progress.parse(meta)) is not None:
            self._overview.progress[tag] = progress
        width = len(columns) + len(starts)
        return header, [rows[at : at + width] for at in range(0, len(rows), width)]

    def _open_starts(self, tag: Tag) -> list[int]:
        progress, info = self._overview.progress.get(tag), self._overview.info
        if progress is None or info is None or tag == ROLLUPS:
            return []
        newest_ms = max(progress.newest_ms, progress.closed_through_ms)
        return list(range(progress.closed_through_ms, newest_ms + 1, info.bucket_ms)[:_MAX_OPEN])

    def _open_rollup(self, series_id: str) -> list[OpenSums]:
        progress = self._overview.progress.get(ROLLUPS)
        return [
            OpenSums(start, open_values(sums[series_id]))
            for start, sums in sorted(self.stats().open_rollups.items())
            if series_id in sums and (progress is None or start >= progress.closed_through_ms)
        ]

    def _closed_starts(
        self, series_id: str, from_ms: int, to_ms: int
    ) -> tuple[NDArray[np.int64], tuple[Tag, int] | None]:
        progress, info = self.progress(series_id), self._overview.info
        if progress is None or info is None:
            return np.zeros(0, np.int64), None
        starts = progress.closed_starts(from_ms, to_ms, bucket_ms=info.bucket_ms)
        return np.array(starts, np.int64), self.find(series_id)

    def _rows(
        self,
        found: tuple[Tag, int] | None,
        kind: str,
        start_T: NDArray[np.int64],
        width: int,
        *,
        absent: bytes,
    ) -> bytes:
        """A series' rows of the blocks at `start_T`, joined; `absent` bytes fill a missing row."""
        if found is None or not len(start_T):
            return b""
        tag, slot = found
        (_, _, *page), at = page_of((kind, 0), slot, width)
        step_ms = int(start_T[1] - start_T[0]) if len(start_T) > 1 else 1
        suffix = "".join(f":{number}" for number in page)
        args = (suffix, int(start_T[0]), int(start_T[-1]), step_ms, at, width, absent)
        return bytes(self._call(lambda: self._row_script(keys=[keys.of(tag, kind, "")], args=args)))

    def _call(self, request: Callable[[], Any]) -> Any:
        try:
            return request()
        except RedisError as error:
            raise ServiceUnavailable(f"the store does not answer: {error}") from error
