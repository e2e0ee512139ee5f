"""What the workers have done so far: deployment, progress of each partition, counters, series.

One round trip a look, however many series there are.
"""

import json
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import RedisError

from stream.clock import wall_clock_ms
from stream.errors import ServiceUnavailable
from stream.readside.deployment import Deployment, Progress
from stream.readside.series_answers import Age
from stream.readside.series_catalog import SeriesCatalog
from stream.readside.worker_stats import DeploymentStats, merge_stats
from stream.state import keys
from stream.state.keys import ROLLUPS, Tag

_LOOK_FOR_WORKERS_MS: Final = 5_000


class Overview:
    """The newest noted state of the deployment; `refresh` looks again."""

    def __init__(self, redis: Any, *, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._redis = redis
        self._now_ms = now_ms
        self._text: bytes | None = None
        self._reported_ms: dict[int, int] = {}
        self._worker_keys: list[bytes] = []
        self._looked_ms: int | None = None
        self.info: Deployment | None = None
        self.stats = DeploymentStats()
        self.progress: dict[Tag, Progress] = {}
        self.catalog = SeriesCatalog()

    def tags(self) -> list[Tag]:
        """Tags of the input partitions and of the roll-ups; none before a worker has started."""
        return [*range(self.info.partitions), ROLLUPS] if self.info else []

    def refresh(self) -> None:
        """Look again. Raises ServiceUnavailable; IncompatibleState for another build's store."""
        try:
            self._look_for_workers()
            if not self._look():
                self._look()
        except RedisError as error:
            raise ServiceUnavailable(f"the store does not answer: {error}") from error

    def _look(self) -> bool:
        tags = self.tags()
        pipe = self._redis.pipeline(transaction=False)
        pipe.get(keys.info())
        for tag in tags:
            pipe.hgetall(keys.of(tag, "meta"))
            pipe.llen(keys.of(tag, "series"))
        if self._worker_keys:
            pipe.mget(self._worker_keys)
        text, *answers = pipe.execute()
        reports = answers.pop() if self._worker_keys else []
        self.stats = merge_stats(json.loads(report) for report in reports if report)
        if text != self._text:
            self._start_over(text)
            return text is None
        for tag, meta in zip(tags, answers[0::2], strict=True):
            progress = Progress.parse(meta)
            if progress is not None:
                self.progress[tag] = progress
        self._reported_ms.update(self.stats.reported_ms)
        if not self.stats.workers:
            self._looked_ms = None
        self.catalog.extend(self._redis, dict(zip(tags, answers[1::2], strict=True)))
        return True

    def _look_for_workers(self) -> None:
        now_ms = self._now_ms()
        if self._looked_ms is None or now_ms - self._looked_ms >= _LOOK_FOR_WORKERS_MS:
            found = self._redis.scan_iter(match=keys.stats_pattern(), count=10_000)
            self._worker_keys = sorted(found)
            self._looked_ms = now_ms

    def _start_over(self, text: bytes | None) -> None:
        """Forget everything: the store belongs to another deployment now."""
        self.info = Deployment.parse(text) if text is not None else None
        self._text = text
        self._reported_ms = {}
        self.progress = {}
        self.catalog = SeriesCatalog()

    def age(self, series_id: str) -> Age:
        """Time since the worker of a series last reported; a roll-up is as old as its oldest."""
        place = self.catalog.find(series_id)
        now_ms = self._now_ms()
        if place is None or self.info is None:
            return Age.since(None, now_ms=now_ms)
        parts = range(self.info.partitions) if place[0] == ROLLUPS else [int(place[0])]
        seen = [self._reported_ms.get(part) for part in parts]
        known = [at_ms for at_ms in seen if at_ms is not None]
        oldest = min(known) if len(known) == len(seen) else None
        return Age.since(oldest, now_ms=now_ms)
