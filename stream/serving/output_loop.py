"""After a close is stored: features to their topic, one model step, forecasts to store and topic.

The last station of the path. Before a forecast is written, `stream/scoring/live_scoring.py` scores
those before it and corrects it. One loop takes what has closed, oldest first. While closes pile up
(a replay at full speed, a restart) a partition is stepped over all of them at once and only its
newest forecast is published: an older origin would be superseded before anyone could read it.
Features are published for every bucket of every series, after the read side has its forecast.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import structlog

from model.contract import QuantileForecast
from stream.errors import ServiceUnavailable
from stream.kafka.producer import BatchProducer
from stream.partition.state import Closed
from stream.scoring.live_scoring import BucketScore, LiveScoring, ScoredForecast
from stream.serving.model_server import ModelServer
from stream.sinks.readside_writer import ReadSideWriter
from stream.sinks.topic_records import FeatureRecords, forecast_records
from stream.state.keys import Tag
from stream.telemetry import LATENCY
from stream.topics import FEATURES, FORECASTS

R = TypeVar("R")

log = structlog.get_logger(__name__)

#: Closed buckets taken at once; more waiting than this holds the input back.
MAX_BUCKETS = 64
MAX_WAITING = 512
RETRY_S = 1.0


@dataclass(slots=True)
class ClosedBuckets:
    """Buckets of one partition that are stored as closed, and through when it has closed.

    `series` is the slot order; `buckets` may be empty where a partition only has to be served.
    """

    tag: Tag
    series: list[str]
    buckets: list[Closed]
    through_ms: int
    emitted: Callable[[int], None] = field(default=lambda _: None)
    #: How often the partition had moved away when this was put.
    moves: int = 0

    @property
    def count(self) -> int:
        """What it counts for in the queue: its buckets and one."""
        return len(self.buckets) + 1


@dataclass(slots=True)
class _Unpublished:
    forecast: QuantileForecast
    series: list[str]
    reason: str
    calibrated: bool


class OutputLoop:
    """The output loop of a worker; `clock_ms` is the wall clock.

    `scored` is told what each forecast turned out to be worth, once that is stored.
    """

    def __init__(
        self,
        serving: ModelServer,
        sink: BatchProducer,
        read_side: ReadSideWriter,
        *,
        bucket_ms: int,
        publish_every_ms: int,
        clock_ms: Callable[[], int],
        accuracy: LiveScoring | None = None,
        scored: Callable[[Sequence[BucketScore]], None] = lambda _: None,
    ) -> None:
        self.serving = serving
        self._accuracy = accuracy
        self._scored = scored
        self._sink = sink
        self._read_side = read_side
        self._bucket_ms = bucket_ms
        self._publish_every_ms = publish_every_ms
        self._clock_ms = clock_ms
        self._features = FeatureRecords(bucket_ms=bucket_ms)
        self._queue: asyncio.Queue[ClosedBuckets] = asyncio.Queue()
        self._waiting = 0
        self._room = asyncio.Event()
        self._room.set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="serving")
        self._series: dict[Tag, list[str]] = {}
        self._through: dict[Tag, int] = {}
        self._unpublished: dict[Tag, _Unpublished] = {}
        self._published_ms: dict[Tag, int] = {}
        self._moves: Counter[Tag] = Counter()
        self._busy = False
        self._leaving = False
        self._rests = asyncio.Event()
        self.latencies_ms: list[int] = []
        self.buckets_closed = 0
        self.forecasts = 0

    def put(self, closed: ClosedBuckets) -> None:
        """Queue what has been stored as closed, in portions."""
        for start in range(0, max(1, len(closed.buckets)), MAX_BUCKETS):
            buckets = closed.buckets[start : start + MAX_BUCKETS]
            through_ms = closed.through_ms
            if start + MAX_BUCKETS < len(closed.buckets):
                through_ms = buckets[-1].start_ms + self._bucket_ms
            moves = self._moves[closed.tag]
            portion = replace(closed, buckets=buckets, through_ms=through_ms, moves=moves)
            self._waiting += portion.count
            self._queue.put_nowait(portion)
        if self._waiting > MAX_WAITING:
            self._room.clear()

    async def wait_for_room(self) -> None:
        """Hold the input while too many closes wait."""
        await self._room.wait()

    @property
    def idle(self) -> bool:
        """Whether everything closed has been served and published."""
        return not (self._busy or self._waiting or self._unpublished)

    async def leave(self, *, within_s: float) -> bool:
        """Publish what waits without keeping the pace; False when that was not done in time.

        What is left is published by the next owner.
        """
        self._leaving = True
        if self.idle:
            return True
        self._rests.clear()  # set again by the loop, when nothing is left
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._rests.wait()
        return self._rests.is_set()

    async def run(self) -> None:
        """Serve until cancelled; what fails because a service is away is tried again."""
        while True:
            batch = await self._take()
            self._busy = True
            try:
                await self._serve(batch)
                await self._retried(self._publish_features, batch)
                await self._retried(self._publish_due)
            finally:
                self._busy = False
            if self.idle:
                self._rests.set()

    def forget(self, tag: Tag) -> None:
        """A partition moved away: nothing of it is served any more."""
        self._moves[tag] += 1  # what of it still waits is the next owner's to publish
        self._forget_states(tag)
        for mapping in (self._series, self._through, self._unpublished, self._published_ms):
            mapping.pop(tag, None)

    async def _take(self) -> list[ClosedBuckets]:
        batch: list[ClosedBuckets] = []
        taken = 0  # an item counts as one more than its buckets, so that none is free
        try:
            async with asyncio.timeout(0.25):  # wait_for may swallow the order to stop
                batch.append(await self._queue.get())
            taken = batch[0].count
            while taken < MAX_BUCKETS and not self._queue.empty():
                batch.append(self._queue.get_nowait())
                taken += batch[-1].count
        except TimeoutError:
            pass
        self._waiting -= taken
        if self._waiting <= MAX_WAITING:
            self._room.set()
        return [closed for closed in batch if closed.moves == self._moves[closed.tag]]

    async def _publish_features(self, batch: list[ClosedBuckets]) -> None:
        of = self._features.of
        await self._sink.send(
            FEATURES.name,
            (
                record
                for closed in batch
                for bucket in closed.buckets
                for record in of(closed.series, bucket.values_SF, start_ms=bucket.start_ms)
            ),
        )
        for closed in batch:
            if closed.buckets:
                closed.emitted(closed.buckets[-1].start_ms + self._bucket_ms)

    async def _serve(self, batch: list[ClosedBuckets]) -> None:
        cause: dict[Tag, int] = {}
        for closed in batch:
            self._series[closed.tag] = closed.series
            self._through[closed.tag] = max(closed.through_ms, self._through.get(closed.tag, 0))
            self.buckets_closed += len(closed.buckets)
            if len(closed.buckets) == 1:
                cause[closed.tag] = closed.buckets[-1].cause_ms
        due: dict[Tag, None] = {closed.tag: None for closed in batch}
        loop = asyncio.get_running_loop()
        swapped = await loop.run_in_executor(self._thread, self.serving.swap_in)
        if swapped:
            due |= dict.fromkeys(self._through)
        for tag in due:
            moves, through_ms = self._moves[tag], self._through.get(tag)
            if through_ms is None:
                continue  # it moved away meanwhile
            forecast = await self._retried(
                loop.run_in_executor, self._thread, self.serving.advance, tag, through_ms
            )
            if moves != self._moves[tag]:
                self._forget_states(tag)  # it may have left some that were being read on
                continue
            if forecast is None:
                continue
            settled = await self._retried(
                loop.run_in_executor, self._thread, self._settle, tag, forecast
            )
            if moves == self._moves[tag]:
                await self._retried(self._write, tag, settled, through_ms)
            if moves != self._moves[tag]:
                self._forget_states(tag)
                continue
            self._scored(settled.scored)
            if cause.get(tag):
                latency_ms = max(0, self._clock_ms() - cause[tag])
                self.latencies_ms = [*self.latencies_ms[-999:], latency_ms]
                LATENCY.observe(latency_ms / 1000)
            reason = "swap" if swapped else "close"
            self._unpublished[tag] = _Unpublished(
                settled.forecast, self._series[tag], reason, settled.calibrated
            )

    def _settle(self, tag: Tag, forecast: QuantileForecast) -> ScoredForecast:
        if self._accuracy is None:
            return ScoredForecast(forecast)
        return self._accuracy.score_and_correct(tag, forecast)

    def _forget_states(self, tag: Tag) -> None:
        self.serving.forget(tag)
        if self._accuracy is not None:
            self._accuracy.forget(tag)

    async def _write(self, tag: Tag, settled: ScoredForecast, through_ms: int) -> None:
        await self._read_side.forecast(
            tag,
            settled.forecast,
            calibrated=settled.calibrated,
            watermark_ms=through_ms,
            emitted_ms=self._clock_ms(),
            block=settled.block,
        )

    async def _publish_due(self) -> None:
        now = self._clock_ms()
        for tag, due in list(self._unpublished.items()):
            backlog = self._waiting > 0 and due.reason == "close"
            early = now - self._published_ms.get(tag, 0) < self._publish_every_ms
            if backlog or (early and not self._leaving):
                continue
            self.forecasts += await self._sink.send(
                FORECASTS.name,
                forecast_records(
                    due.series,
                    due.forecast,
                    watermark_ms=due.forecast.origin_ms,
                    emitted_ms=self._clock_ms(),
                    calibrated=due.calibrated,
                    reason=due.reason,
                ),
            )
            self._published_ms[tag] = now
            if self._unpublished.get(tag) is due:
                del self._unpublished[tag]

    async def _retried(self, call: Callable[..., Awaitable[R]], *arguments: Any) -> R:
        """Call until the services it needs answer."""
        while True:
            try:
                return await call(*arguments)
            except (ServiceUnavailable, ConnectionError) as error:
                log.warning("output_waits", reason=str(error))
                await asyncio.sleep(RETRY_S)
