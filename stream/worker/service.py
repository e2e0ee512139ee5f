"""The worker role: builds every part from the settings and runs them under Faust.

The composition root: settings are read once by the command line, and only here do store, sinks,
serving, pipeline and app meet. Clocks are read here and handed down.
"""

import asyncio
import gc
import os
import socket
from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio as aioredis
import structlog
from faust.types import TP
from mode import Service

from model.baselines.exponential_smoothing import SmoothingForecaster
from model.contract import FEATURE_NAMES, FeatureSpec
from stream.clock import wall_clock_ms
from stream.errors import IncompatibleState, ServiceUnavailable, SurgecastError
from stream.ingest.agents import attach
from stream.ingest.pipeline import CONSUMERS, Pipeline
from stream.kafka.broker_view import BrokerView
from stream.kafka.clients import kafka_client
from stream.kafka.faust_app import SurgecastApp, create_app
from stream.kafka.producer import BatchProducer
from stream.processes.persistent_stop import PersistentStopService
from stream.registry.announcements import ModelRecord, listen
from stream.registry.model_registry import Registry
from stream.scoring.drift_task import DriftTask
from stream.scoring.live_scoring import BucketScore, LiveScoring
from stream.scoring.score_files import ScoreFiles, count_scores
from stream.scoring.store_reads import StoreReads
from stream.serving.champion_watch import ChampionWatch
from stream.serving.model_server import ModelServer
from stream.serving.output_loop import OutputLoop
from stream.serving.state_snapshots import Snapshots
from stream.serving.static_features import static_reader
from stream.serving.store_reads import ServingReads
from stream.settings import Settings
from stream.sinks.readside_writer import AHEAD_RETENTION_MS, ReadSideWriter
from stream.state.connect import pseudonyms, redis_options
from stream.state.keys import ROLLUPS, Tag
from stream.state.redis import RedisStore
from stream.topics import MODELS
from stream.worker.statistics import WorkerStatistics

log = structlog.get_logger(__name__)

STATS_EVERY_S = 0.5
CHAMPION_EVERY_S = 2.0
BROKER_EVERY_S = 10.0
SCORES_EVERY_S = 60.0
DRIFT_EVERY_S = 5.0
#: Publishing goes on so long after the order to stop, within what orchestrators grant.
LEAVE_S = 10.0
#: The longest it then waits for the store.
STORE_S = 5.0


class WorkerService(PersistentStopService):
    """Everything of a worker that is not an agent; started and stopped with the Faust app."""

    def __init__(
        self, app: SurgecastApp, settings: Settings, *, adopt: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        url, options = redis_options(settings)
        self.settings = settings
        self.worker_id = f"{socket.gethostname()}-{os.getpid()}"
        self._blocking = redis.Redis.from_url(url, **options)
        self._client = aioredis.Redis.from_url(url, **options)
        self._read_side = ReadSideWriter(self._client, ahead_retention_ms=AHEAD_RETENTION_MS)
        self._sink = BatchProducer(kafka_client(settings))
        bucket_ms = settings.window.bucket
        fallback = SmoothingForecaster(
            horizon=settings.model.horizon,
            bucket_ms=bucket_ms,
            quantiles=settings.model.quantiles,
        )
        self._snapshots = Snapshots(self._blocking, settings.states_path)
        reads = ServingReads(
            self._blocking, partitions=settings.kafka.partitions, bucket_ms=bucket_ms
        )
        self._serving = ModelServer(
            fallback,
            reads.history,
            static=static_reader(self._blocking),
            snapshots=self._snapshots,
            plans=reads.plans,
            max_step_ms=settings.model.max_step,
            max_age_ms=settings.model.max_age,
        )
        path = settings.accuracy.path
        self._score_files = None if path is None else ScoreFiles(path)
        self._output = OutputLoop(
            self._serving,
            self._sink,
            self._read_side,
            bucket_ms=bucket_ms,
            publish_every_ms=settings.forecasts.publish_every,
            clock_ms=wall_clock_ms,
            accuracy=LiveScoring(settings.calibration, StoreReads(self._blocking)),
            scored=self._note_scores,
        )
        self._app = app
        self._broker = BrokerView(app, settings, reached=self._reached)
        self.pipeline = Pipeline(
            settings,
            RedisStore(self._client),
            self._sink,
            self._output,
            pseudonyms(settings, self._blocking),
            clock_ms=wall_clock_ms,
            lag=self._broker.lag,
            answered=self._broker.answered,
            ask=self._broker.places,
            adopt=adopt,
            rejoin=self._broker.rejoin,
        )
        self._drift = DriftTask(
            settings.drift,
            self._client,
            self._sink,
            partitions=settings.kafka.partitions,
            bucket_ms=bucket_ms,
            horizon=settings.model.horizon,
            through_ms=self._rollups_through,
            on_drift=self._want_retrain,
        )
        self._champion = ChampionWatch(
            Registry(settings.registry_path),
            self._serving,
            settings.model,
            bucket_ms=bucket_ms,
            tags=self._tags,
            served=reads.forecast,
        )
        self._stats = WorkerStatistics(
            self.worker_id, self.pipeline, self._output, self._champion, self._broker.lag
        )

    async def on_start(self) -> None:
        """Connect the producer and say what this deployment looks like."""
        try:
            await self._introduce()
        except SurgecastError as error:
            await self._app.give_up(error)
            raise

    async def _introduce(self) -> None:
        await self._sink.start()
        settings = self.settings
        await self._read_side.info(
            {
                "bucket_ms": settings.window.bucket,
                "partitions": settings.kafka.partitions,
                "horizon": settings.model.horizon,
                "quantiles": list(settings.model.quantiles),
                "feature_names": list(FEATURE_NAMES),
                "spec_hash": FeatureSpec().hash,
                "started_ms": wall_clock_ms(),
            }
        )

    @Service.task
    async def _flush(self) -> None:
        await self.pipeline.run()

    @Service.task
    async def _serve(self) -> None:
        await self._output.run()

    @Service.task
    async def _watch_champion(self) -> None:
        await self._champion.run(every_s=CHAMPION_EVERY_S)

    @Service.task
    async def _hear_of_champions(self) -> None:
        await listen(kafka_client(self.settings), lambda _: self._champion.look_now())

    @Service.task
    async def _publish_stats(self) -> None:
        while not self.should_stop:
            document = self._stats.document(at_ms=wall_clock_ms())
            try:
                await self._read_side.stats(self.worker_id, document)
            except ServiceUnavailable as error:
                log.debug("statistics_wait", reason=str(error))
            await asyncio.sleep(STATS_EVERY_S)

    @Service.task
    async def _watch_drift(self) -> None:
        await self._drift.run(every_s=DRIFT_EVERY_S)

    async def _want_retrain(self, reason: str) -> None:
        record = ModelRecord("retrain", reason=reason, at_ms=wall_clock_ms())
        await self._sink.send(MODELS.name, [(record.action, record.encode())])

    def _rollups_through(self) -> int | None:
        rollups = self.pipeline.rollups
        return rollups.closed_through_ms if rollups.held else None

    @Service.task
    async def _write_scores(self) -> None:
        while not self.should_stop:
            await asyncio.sleep(SCORES_EVERY_S)
            await self._flush_scores()

    async def _flush_scores(self) -> None:
        if self._score_files is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self._score_files.flush)

    @Service.task
    async def _watch_broker(self) -> None:
        """A topic that is recreated under a running worker stops it: its offsets mean nothing."""
        while not self.should_stop:
            await asyncio.sleep(BROKER_EVERY_S)
            try:
                self.pipeline.require_same(await self._broker.identity(CONSUMERS))
            except ServiceUnavailable as error:
                log.debug("broker_silent", reason=str(error))
            except IncompatibleState as error:
                await self._app.give_up(error)

    async def on_stop(self) -> None:
        """Publish what has closed, then disconnect.

        What was read has been stored by the consumer's own stop.
        """
        if await self._output.leave(within_s=LEAVE_S):
            try:
                async with asyncio.timeout(STORE_S):
                    await self.pipeline.flush()  # the next owner need not publish it again
            except TimeoutError:
                log.warning("left_unstored", reason=f"the store took nothing for {STORE_S:.0f} s")
        else:
            log.warning("output_left", reason=f"not all was published within {LEAVE_S:.0f} s")
        await self._flush_scores()
        await self._sink.stop()
        await self._client.aclose()
        await asyncio.get_running_loop().run_in_executor(None, self._snapshots.close)

    def _note_scores(self, scored: Sequence[BucketScore]) -> None:
        count_scores(scored)
        if self._score_files is not None:
            self._score_files.add(scored)

    def _tags(self) -> list[Tag]:
        numbers: list[Tag] = list(self.pipeline.owned)
        return [*numbers, ROLLUPS] if 0 in self.pipeline.owned else numbers

    def _reached(self, tp: TP) -> int | None:
        owned = self.pipeline.owned.get(tp.partition)
        return None if owned is None else owned.partition.positions.get(tp.topic, 0)


def run(settings: Settings, *, adopt: bool = False) -> None:
    """Run a worker until it is told to stop (SIGTERM, SIGINT). Blocks.

    `adopt` accepts a broker that the stored offsets do not fit. Raises the SurgecastError that
    stopped it, where one did.
    """
    app = create_app(settings, data_dir=settings.data_dir / "faust")
    service = WorkerService(app, settings, adopt=adopt)
    app.offset_authority = service.pipeline
    attach(app, service.pipeline)
    app.add_dependency(service)
    _calm_the_collector()
    worker = app.Worker(
        loglevel=None,
        override_logging=False,
        redirect_stdouts=False,
        quiet=True,
    )
    try:
        worker.execute_from_commandline()
    except SystemExit:
        if app.fatal is not None:
            raise app.fatal from None
        raise


def _calm_the_collector() -> None:
    """Let the cyclic collector run seldom: batches are lists of objects that hold no cycles.

    With the defaults it walks the worker's whole state several times a second, a tenth of the
    ingest's CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
