"""State of the deployment in one read: layout, progress of each partition, counters, series.

A refresh takes one round trip, however many series there are.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from redis.exceptions import RedisError

from stream.clock import wall_clock_ms
from stream.errors import ServiceUnavailable
from stream.readside.condition import BEHIND_AFTER_MS, Fault, fault_of
from stream.readside.counters import Counters
from stream.readside.deployment import Deployment, Progress
from stream.readside.series_answers import Age
from stream.readside.series_catalog import SeriesCatalog
from stream.readside.worker_stats import DeploymentStats, merge_stats
from stream.state import keys
from stream.state.keys import ROLLUPS, Tag

_LIST_WORKERS_EVERY_MS: Final = 5_000


class Overview:
    """The deployment as of the last `refresh`."""

    def __init__(self, redis: Any, *, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._redis = redis
        self._now_ms = now_ms
        self._info_text: bytes | None = None
        self._as_of_ms: dict[int, int] = {}
        self._reported_ms: dict[int, int] = {}
        self._worker_keys: list[bytes] = []
        self._workers_listed_ms: int | None = None
        self.info: Deployment | None = None
        self.stats = DeploymentStats()
        self.counters = Counters()
        self.progress: dict[Tag, Progress] = {}
        self.catalog = SeriesCatalog()

    def tags(self) -> list[Tag]:
        """Tags of the input partitions and of the roll-ups; none before a worker has started."""
        return [*range(self.info.partitions), ROLLUPS] if self.info else []

    def refresh(self) -> None:
        """Read the store. Raises ServiceUnavailable, or IncompatibleState for other features."""
        try:
            self._list_workers()
            if not self._read():
                self._read()
        except RedisError as error:
            raise ServiceUnavailable(f"the store does not answer: {error}") from error

    def _read(self) -> bool:
        """Read once. False if the deployment is new and its partitions must be read as well."""
        tags = self.tags()
        pipe = self._redis.pipeline(transaction=False)
        pipe.get(keys.info())
        pipe.hgetall(keys.as_of())
        pipe.hgetall(keys.totals())
        for tag in tags:
            pipe.hgetall(keys.of(tag, "meta"))
            pipe.llen(keys.of(tag, "series"))
        if self._worker_keys:
            pipe.mget(self._worker_keys)
        text, as_of, totals, *answers = pipe.execute()
        reports = answers.pop() if self._worker_keys else []
        self.stats = merge_stats(json.loads(report) for report in reports if report)
        if text != self._info_text:
            self._start_over(text)
            return text is None
        for tag, meta in zip(tags, answers[0::2], strict=True):
            progress = Progress.parse(meta)
            if progress is not None:
                self.progress[tag] = progress
        self.counters = Counters.read(answers[0::2], totals, self.stats)
        self._reported_ms.update(self.stats.reported_ms)
        self._as_of_ms.update({int(p): int(at_ms) for p, at_ms in as_of.items()})
        for partition, at_ms in self.stats.as_of_ms.items():
            self._as_of_ms[partition] = max(at_ms, self._as_of_ms.get(partition, 0))
        if not self.stats.workers:
            self._workers_listed_ms = None
        self.catalog.extend(self._redis, dict(zip(tags, answers[1::2], strict=True)))
        return True

    def _list_workers(self) -> None:
        now_ms = self._now_ms()
        listed_ms = self._workers_listed_ms
        if listed_ms is None or now_ms - listed_ms >= _LIST_WORKERS_EVERY_MS:
            worker_keys = self._redis.scan_iter(match=keys.stats_pattern(), count=10_000)
            self._worker_keys = sorted(worker_keys)
            self._workers_listed_ms = now_ms

    def _start_over(self, text: bytes | None) -> None:
        """Drop all state: the store now belongs to another deployment."""
        self.info = Deployment.parse(text) if text is not None else None
        self._info_text = text
        self._as_of_ms, self._reported_ms = {}, {}
        self.progress = {}
        self.catalog = SeriesCatalog()

    def age(self, series_id: str) -> Age:
        """Time since all of a series' records were known to be counted; of a roll-up, of all.

        A worker that does not report makes it stale at once, one that is behind after a while.
        """
        place = self.catalog.find(series_id)
        now_ms = self._now_ms()
        if place is None or self.info is None:
            return Age.since(None, now_ms=now_ms)
        parts = range(self.info.partitions) if place[0] == ROLLUPS else [int(place[0])]
        as_of_ms = _oldest(self._as_of_ms, parts)
        reported_ms = _oldest(self._reported_ms, parts)
        age = Age.since(as_of_ms, now_ms=now_ms)
        reporting = not Age.since(reported_ms, now_ms=now_ms).stale
        current = age.age_ms is not None and age.age_ms <= BEHIND_AFTER_MS
        return Age(age.age_ms, stale=not (reporting and current))

    def fault(self) -> Fault | None:
        """Why the answers are not those of now; None if they are."""
        partitions = self.info.partitions if self.info else 0
        now_ms = self._now_ms()
        return fault_of(self.stats, partitions=partitions, as_of_ms=self._as_of_ms, now_ms=now_ms)


def _oldest(times: Mapping[int, int], parts: Iterable[int]) -> int | None:
    """The least of the parts' times; None if one is missing."""
    known = [times.get(part) for part in parts]
    return None if None in known else min((at for at in known if at is not None), default=None)
