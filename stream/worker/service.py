"""The worker role: runs its parts under Faust, from the first assignment to an orderly stop."""

import asyncio
import gc
import os
import threading
from functools import partial
from typing import Any

import structlog
from mode import Service

from model.contract import FEATURE_NAMES, FeatureSpec
from stream.clock import wall_clock_ms
from stream.errors import IncompatibleState, ServiceUnavailable, SurgecastError, UsageError
from stream.ingest.agents import attach
from stream.ingest.pipeline import CONSUMERS
from stream.kafka.clients import aiokafka_config
from stream.kafka.faust_app import SurgecastApp, create_app
from stream.kafka.reading.joining import wait_for_topics
from stream.processes.persistent_stop import PersistentStopService
from stream.processes.signals import stop_signals
from stream.processes.stack_report import thread_stacks
from stream.registry.announcements import ModelRecord, listen
from stream.scoring.drift_task import DriftTask
from stream.settings import Settings
from stream.topics import MODELS, ORDERS
from stream.worker.assembly import WorkerParts, build_worker

log = structlog.get_logger(__name__)

STATS_EVERY_S = 0.5
EXPLANATIONS_EVERY_S = 0.25
CHAMPION_EVERY_S = 2.0
BROKER_EVERY_S = 10.0
GROUP_EVERY_S = 1.0
SCORES_EVERY_S = 60.0
DRIFT_EVERY_S = 5.0
#: Publishing continues for so long after a signal to stop, within what orchestrators grant.
LEAVE_S = 10.0
#: The longest wait for the store after that.
STORE_S = 5.0
#: The longest wait for files and connections at the end, and then for threads at work.
CLOSE_S = 3.0


class WorkerService(PersistentStopService):
    """All tasks of a worker but its agents; starts and stops with the Faust app."""

    def __init__(
        self, app: SurgecastApp, settings: Settings, parts: WorkerParts, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._app = app
        self._settings = settings
        self._parts = parts
        self._drift = DriftTask(
            settings.drift,
            parts.client,
            parts.sink,
            partitions=settings.kafka.partitions,
            bucket_ms=settings.window.bucket,
            horizon=settings.model.horizon,
            through_ms=self._rollups_through,
            on_drift=self._request_retrain,
        )

    async def on_start(self) -> None:
        """Connect the producer and publish the layout of this deployment."""
        try:
            await self._parts.sink.start()
            await self._publish_shape()
        except SurgecastError as error:
            await self._app.give_up(error)
            raise

    async def _publish_shape(self) -> None:
        settings = self._settings
        await self._parts.read_side.info(
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
    async def _ingest(self) -> None:
        await self._parts.pipeline.run()

    @Service.task
    async def _serve(self) -> None:
        await self._parts.output.run()

    @Service.task
    async def _watch_champion(self) -> None:
        await self._parts.champion.run(every_s=CHAMPION_EVERY_S)

    @Service.task
    async def _listen_for_champions(self) -> None:
        await listen(aiokafka_config(self._settings), lambda _: self._parts.champion.look_now())

    @Service.task
    async def _publish_statistics(self) -> None:
        parts = self._parts
        while not self.should_stop:
            document = parts.statistics.document(at_ms=wall_clock_ms())
            try:
                await parts.read_side.stats(parts.worker_id, document)
            except ServiceUnavailable as error:
                log.debug("statistics_wait", reason=str(error))
            await asyncio.sleep(STATS_EVERY_S)

    @Service.task
    async def _explain(self) -> None:
        await self._parts.explanations.run(every_s=EXPLANATIONS_EVERY_S)

    @Service.task
    async def _watch_drift(self) -> None:
        await self._drift.run(every_s=DRIFT_EVERY_S)

    async def _request_retrain(self, reason: str) -> None:
        record = ModelRecord("retrain", reason=reason, at_ms=wall_clock_ms(), drift=True)
        await self._parts.sink.send(MODELS.name, [(record.action, record.encode())])

    def _rollups_through(self) -> int | None:
        rollups = self._parts.owner.rollups
        return rollups.closed_through_ms if rollups.held else None

    @Service.task
    async def _write_scores(self) -> None:
        while not self.should_stop:
            await asyncio.sleep(SCORES_EVERY_S)
            await self._parts.scores.flush()

    @Service.task
    async def _watch_group(self) -> None:
        """Stop when the broker refuses this worker as a member of its group."""
        while not self.should_stop:
            await asyncio.sleep(GROUP_EVERY_S)
            if not self._app.consumer.started:
                continue
            try:
                await self._parts.broker.require_member()
            except UsageError as error:
                await self._app.give_up(error)

    @Service.task
    async def _watch_broker(self) -> None:
        """Stop when a topic is recreated under the running worker: its offsets mean nothing."""
        parts = self._parts
        while not self.should_stop:
            await asyncio.sleep(BROKER_EVERY_S)
            try:
                parts.owner.require_same(await parts.broker.identity(CONSUMERS))
            except ServiceUnavailable as error:
                log.debug("broker_silent", reason=str(error))
            except IncompatibleState as error:
                await self._app.give_up(error)

    async def on_stop(self) -> None:
        """Publish what has closed, then disconnect.

        The consumer's own stop has stored the records read before.
        """
        parts = self._parts
        if await parts.output.leave(within_s=LEAVE_S):
            try:
                async with asyncio.timeout(STORE_S):
                    await parts.pipeline.flush()  # so that the next owner need not publish it again
            except TimeoutError:
                log.warning("left_unstored", reason=f"no write was stored within {STORE_S:.0f} s")
        else:
            log.warning("output_left", reason=f"not all was published within {LEAVE_S:.0f} s")
        parts.output.server.leave()
        try:
            async with asyncio.timeout(CLOSE_S):
                await parts.scores.flush()
                await parts.sink.stop()
                await parts.client.aclose()
                close = partial(parts.snapshots.close, hurried=True)
                await asyncio.get_running_loop().run_in_executor(None, close)
        except TimeoutError:
            log.warning("left_open", reason=f"not all was closed within {CLOSE_S:.0f} s")


def run(settings: Settings, *, adopt: bool = False) -> None:
    """Run a worker until SIGTERM or SIGINT. Blocks.

    `adopt` accepts a broker that the stored offsets do not fit. Raises the SurgecastError that
    stopped it, if one did.
    """
    try:
        with stop_signals():
            wait_for_topics(settings, list(CONSUMERS), needed=ORDERS.name)
    except KeyboardInterrupt:
        return
    folder = settings.data_dir / "faust"
    folder.mkdir(parents=True, exist_ok=True)
    app = create_app(settings, data_dir=folder)
    app.service_logs = (__name__,)
    parts = build_worker(app, settings, adopt=adopt)
    app.offset_authority = parts.pipeline
    attach(app, parts.pipeline)
    app.add_dependency(WorkerService(app, settings, parts))
    _collect_seldom()
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
    finally:
        _end_within(CLOSE_S, status=1 if app.fatal is not None else 0)


def _end_within(seconds: float, *, status: int) -> None:
    """End the process by then, even if a thread still steps a model or reads history.

    All that must be stored is: what such a thread computes, the next owner computes again.
    """

    def end() -> None:
        log.info("threads_left", threads=thread_stacks())
        os._exit(status)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _collect_seldom() -> None:
    """Let the cyclic collector run seldom: batches are lists of objects without cycles.

    With Python's defaults it walks the worker's whole state several times a second, a tenth of the
    ingest's CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
