"""Runs the drift watch: reads a day's scores from the store, sends alerts to their topic.

Runs in the worker that owns the roll-ups. A day is judged after the roll-ups have closed the first
bucket of the next day: by then every partition has closed the day. The state is stored after the
alerts are sent, so a crash in between repeats the same alerts.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import redis.asyncio as aioredis
import structlog

from model.durations import DAY_MS
from model.evaluation.score_sums import Sums
from stream.errors import ServiceUnavailable
from stream.kafka.record_sink import RecordSink
from stream.scoring.drift_watch import DriftWatch, decode, encode
from stream.settings import DriftSettings
from stream.state import keys
from stream.state.keys import ROLLUPS, Tag
from stream.state.redis import translate_store_errors
from stream.state.scores import add_scores
from stream.topics import ALERTS

log = structlog.get_logger(__name__)

#: Requests a new model; the argument is the reason.
OnDrift = Callable[[str], Awaitable[None]]


class DriftTask:
    """`through_ms` returns the end of the closed roll-ups; None if another worker owns them."""

    def __init__(
        self,
        settings: DriftSettings,
        client: aioredis.Redis,
        sink: RecordSink,
        *,
        partitions: int,
        bucket_ms: int,
        horizon: int,
        through_ms: Callable[[], int | None],
        on_drift: OnDrift,
    ) -> None:
        self._settings = settings
        self._client = client
        self._sink = sink
        self._tags: Sequence[Tag] = (*range(partitions), ROLLUPS)
        self._bucket_ms = bucket_ms
        self._horizon = horizon
        self._through_ms = through_ms
        self._on_drift = on_drift
        self._watch: DriftWatch | None = None

    async def run(self, *, every_s: float) -> None:
        """Judge days until cancelled; waits while a service is unavailable."""
        while True:
            try:
                await self.check()
            except ServiceUnavailable as error:
                self._watch = None  # resume from the stored state
                log.debug("drift_waits", reason=str(error))
            await asyncio.sleep(every_s)

    async def check(self) -> None:
        """Judge all days that have ended."""
        through_ms = self._through_ms()
        if through_ms is None or not self._settings.enabled:
            self._watch = None
            return
        if self._watch is None:
            with translate_store_errors():
                payload: Any = await self._client.get(keys.drift())
            state = decode(payload)
            self._watch = DriftWatch(self._settings, state)
        state = self._watch.state
        if state.through_ms is None:
            state.through_ms = through_ms // DAY_MS * DAY_MS
        while state.through_ms + DAY_MS + self._bucket_ms <= through_ms:
            await self._judge(self._watch, state.through_ms)

    async def _judge(self, watch: DriftWatch, day_ms: int) -> None:
        alerts, retrain = watch.day(day_ms, await self._scores(day_ms))
        for alert in alerts:
            log.warning("drift", state=alert["state"], reason=alert["message"])
        encoded = [(alert["series_id"], msgspec.json.encode(alert)) for alert in alerts]
        if encoded:
            await self._sink.send(ALERTS.name, encoded)
        if retrain is not None:
            await self._on_drift(retrain)
        with translate_store_errors():
            await self._client.set(keys.drift(), encode(watch.state))

    async def _scores(self, day_ms: int) -> dict[str, Sums]:
        with translate_store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for tag in self._tags:
                    pipe.hgetall(keys.of(tag, "scores", day_ms))
                answers = await pipe.execute()
        return add_scores(answers, horizon=self._horizon)
