"""After a close: one model step, the forecast to store and topic, features to their topic.

The loop takes closed buckets, oldest first. Before a forecast is stored, the earlier forecasts of
its bucket are scored and the new one is corrected. While closes pile up (a fast replay, a restart),
a partition is stepped over all of them and only its newest forecast is published: an older origin
would be superseded before anyone could read it. Features are published for every bucket, after the
read side has the forecast.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog

from model.contract import QuantileForecast
from stream.errors import ServiceUnavailable
from stream.kafka.record_sink import RecordSink
from stream.partition.closed import ClosedBuckets
from stream.scoring.live_scoring import BucketScore, LiveScoring, ScoredForecast
from stream.scoring.rollup_means import RollupMeans
from stream.scoring.summed_rollups import SummedRollups
from stream.serving.close_queue import CloseQueue
from stream.serving.ports import BucketServer, ForecastStore
from stream.sinks.topic_records import FeatureRecords, forecast_records
from stream.state.keys import ROLLUPS, Tag
from stream.state.port import ReadSideWrite
from stream.telemetry import LATENCY
from stream.topics import FEATURES, FORECASTS

R = TypeVar("R")

log = structlog.get_logger(__name__)

RETRY_S = 1.0


@dataclass(slots=True)
class _Unpublished:
    forecast: QuantileForecast
    series: list[str]
    reason: str
    calibrated: bool


class OutputLoop:
    """Forecasts, stores and publishes what has closed; `clock_ms` is the wall clock.

    `scored` is called with the scores of the bucket just closed, once they are stored. With `means`
    the expected values of roll-ups are the sums of those of their series.
    """

    def __init__(
        self,
        server: BucketServer,
        sink: RecordSink,
        read_side: ForecastStore,
        *,
        bucket_ms: int,
        publish_every_ms: int,
        clock_ms: Callable[[], int],
        scoring: LiveScoring | None = None,
        means: RollupMeans | None = None,
        scored: Callable[[Sequence[BucketScore]], None] = lambda _: None,
    ) -> None:
        self.server = server
        self._scoring = scoring
        self._means = means
        self._summed = None
        if means is not None:
            self._summed = SummedRollups(means, self._in_thread, lambda: self._queue.waiting > 0)
        self._rollups: ScoredForecast | None = None
        self._report_scores = scored
        self._sink = sink
        self._read_side = read_side
        self._bucket_ms = bucket_ms
        self._publish_every_ms = publish_every_ms
        self._clock_ms = clock_ms
        self._features = FeatureRecords(bucket_ms=bucket_ms)
        self._queue = CloseQueue(bucket_ms=bucket_ms)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="serving")
        self._series: dict[Tag, list[str]] = {}
        self._through: dict[Tag, int] = {}
        self._watermark_ms: dict[Tag, int] = {}
        self._unpublished: dict[Tag, _Unpublished] = {}
        self._published_ms: dict[Tag, int] = {}
        self._busy = False
        self._leaving = False
        self._at_rest = asyncio.Event()
        self.latencies_ms: list[int] = []
        self.buckets_closed = 0
        self.forecasts = 0

    def put(self, closed: ClosedBuckets) -> None:
        """Queue buckets that the store has as closed."""
        self._queue.put(closed)

    def forget(self, tag: Tag) -> None:
        """Drop everything queued or known of a partition that moved to another worker."""
        self._queue.forget(tag)
        self._forget_states(tag)
        for known in (self._series, self._through, self._watermark_ms, self._published_ms):
            known.pop(tag, None)
        self._unpublished.pop(tag, None)

    async def wait_for_room(self) -> None:
        """Wait while too many closed buckets are queued."""
        await self._queue.wait_for_room()

    async def between_steps(self, call: Callable[..., R], *arguments: Any) -> R:
        """Run a call in the serving thread, where no step runs meanwhile; returns its result."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, call, *arguments)

    @property
    def idle(self) -> bool:
        """True if everything that has closed is forecast and published."""
        return not (self._busy or self._queue.waiting or self._unpublished)

    async def leave(self, *, within_s: float) -> bool:
        """Publish what waits, without regard to `publish_every_ms`. True if done in time.

        The next owner publishes what is left.
        """
        self._leaving = True
        if self.idle:
            return True
        self._at_rest.clear()  # the loop sets it when nothing is left
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._at_rest.wait()
        return self._at_rest.is_set()

    async def run(self) -> None:
        """Run until cancelled; a call that fails because a service is away is repeated."""
        while True:
            batch = await self._queue.take()
            self._busy = True
            try:
                await self._serve(batch)
                await self._sum_again()
                await self._retried(self._publish_features, batch)
                await self._retried(self._publish_due)
            finally:
                self._busy = False
            if self.idle:
                self._at_rest.set()

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
        """Forecast the partitions of a batch; all known partitions after a swap."""
        cause_ms = self._note_closed(batch)
        due: dict[Tag, None] = {closed.tag: None for closed in batch}
        swapped = await self.between_steps(self.server.swap_in)
        if swapped:
            due |= dict.fromkeys(self._through)
        for tag in sorted(due, key=lambda tag: tag == ROLLUPS):  # they add up the others
            moves, through_ms = self._queue.moves(tag), self._through.get(tag)
            if through_ms is None:
                continue  # it has moved away
            forecast = await self._in_thread(self.server.advance, tag, through_ms)
            if moves != self._queue.moves(tag):
                self._forget_states(tag)  # the step may have left some behind
                continue
            if forecast is None:
                continue
            series = self._series[tag]
            if tag == ROLLUPS and self._summed is not None:
                forecast = await self._summed.summed(series, forecast)
            scored = await self._in_thread(self._score, tag, series, forecast)
            if moves == self._queue.moves(tag):
                await self._retried(self._write, tag, scored)
            if moves != self._queue.moves(tag):
                self._forget_states(tag)
                continue
            if tag == ROLLUPS:
                self._rollups = scored
            self._report_scores(scored.scores)
            self._note_latency(cause_ms.get(tag))
            self._unpublished[tag] = _Unpublished(
                scored.forecast, series, "swap" if swapped else "close", scored.calibrated
            )

    def _note_closed(self, batch: list[ClosedBuckets]) -> dict[Tag, int]:
        """Note series and newest close; returns the cause of each partition's only closed bucket.

        With several buckets at once there is no single record whose latency could be measured.
        """
        cause_ms: dict[Tag, int] = {}
        for closed in batch:
            self._series[closed.tag] = closed.series
            self._through[closed.tag] = max(closed.through_ms, self._through.get(closed.tag, 0))
            self._watermark_ms[closed.tag] = max(closed.watermark_ms, self._through[closed.tag])
            self.buckets_closed += len(closed.buckets)
            if len(closed.buckets) == 1:
                cause_ms[closed.tag] = closed.buckets[-1].cause_ms
        return cause_ms

    def _note_latency(self, cause_ms: int | None) -> None:
        if cause_ms:
            latency_ms = max(0, self._clock_ms() - cause_ms)
            self.latencies_ms = [*self.latencies_ms[-999:], latency_ms]
            LATENCY.observe(latency_ms / 1000)

    async def _sum_again(self) -> None:
        """Store and publish the roll-ups once more if other workers have forecast again."""
        scored = self._rollups
        if self._summed is None or scored is None:
            return
        moves, series = self._queue.moves(ROLLUPS), self._series[ROLLUPS]
        found = await self._summed.changed(series)
        if found is None or moves != self._queue.moves(ROLLUPS):
            return
        sums = replace(scored.forecast, mean_SH=found.mean_SH)
        self._rollups = again = replace(scored, forecast=sums, write=ReadSideWrite(), scores=[])
        await self._retried(self._write, ROLLUPS, again)
        if moves == self._queue.moves(ROLLUPS):
            self._unpublished[ROLLUPS] = _Unpublished(sums, series, "swap", scored.calibrated)

    async def _in_thread(self, call: Callable[..., R], *arguments: Any) -> R:
        """Call in the serving thread until the store answers."""
        return await self._retried(self.between_steps, call, *arguments)

    def _score(self, tag: Tag, series: list[str], forecast: QuantileForecast) -> ScoredForecast:
        scored = ScoredForecast(forecast)
        if self._scoring is not None:
            scored = self._scoring.score_and_correct(tag, forecast)
        if self._means is not None and tag != ROLLUPS:
            path, payload = self._means.sums_of(tag, series, scored.forecast)
            scored.write.puts[path] = payload
        return scored

    def _forget_states(self, tag: Tag) -> None:
        self.server.forget(tag)
        if self._means is not None:
            self._means.forget(tag)
        if tag == ROLLUPS:
            self._rollups = None
            if self._summed is not None:
                self._summed.forget()
        if self._scoring is not None:
            self._scoring.forget(tag)

    async def _write(self, tag: Tag, scored: ScoredForecast) -> None:
        await self._read_side.forecast(
            tag,
            scored.forecast,
            calibrated=scored.calibrated,
            watermark_ms=self._watermark_ms.get(tag, scored.forecast.origin_ms),
            emitted_ms=self._clock_ms(),
            write=scored.write,
        )

    async def _publish_due(self) -> None:
        now = self._clock_ms()
        for tag, due in list(self._unpublished.items()):
            backlog = self._queue.waiting > 0 and due.reason == "close"
            early = now - self._published_ms.get(tag, 0) < self._publish_every_ms
            if backlog or (early and not self._leaving):
                continue
            self.forecasts += await self._sink.send(
                FORECASTS.name,
                forecast_records(
                    due.series,
                    due.forecast,
                    watermark_ms=self._watermark_ms.get(tag, due.forecast.origin_ms),
                    emitted_ms=self._clock_ms(),
                    calibrated=due.calibrated,
                    reason=due.reason,
                ),
            )
            self._published_ms[tag] = now
            if self._unpublished.get(tag) is due:
                del self._unpublished[tag]

    async def _retried(self, call: Callable[..., Awaitable[R]], *arguments: Any) -> R:
        """Call until the services it needs answer; returns the result."""
        while True:
            try:
                return await call(*arguments)
            except (ServiceUnavailable, ConnectionError) as error:
                log.warning("output_waits", reason=str(error))
                await asyncio.sleep(RETRY_S)
