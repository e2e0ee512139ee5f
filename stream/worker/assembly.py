"""Builds the parts of a worker from the settings: the composition root of the main path.

The command line reads the settings once. Store, sinks, server and pipeline are connected
only here, with clocks and clients; `stream/worker/service.py` creates the Faust app and attaches
the pipeline to it.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import redis
import redis.asyncio as aioredis
from faust.types import TP

from model.baselines.fallback import fallback_forecaster
from stream.clock import wall_clock_ms
from stream.ingest.assignment import PartitionOwner
from stream.ingest.flushing import Flusher
from stream.ingest.pipeline import Pipeline
from stream.kafka.broker_view import BrokerView
from stream.kafka.clients import aiokafka_config
from stream.kafka.faust_app import SurgecastApp
from stream.kafka.producer import BatchProducer
from stream.registry.model_registry import Registry
from stream.registry.served_models import ServedModels
from stream.scoring.live_scoring import LiveScoring
from stream.scoring.rollup_means import RollupMeans
from stream.scoring.score_files import ScoreFiles, ScoreReporter
from stream.scoring.store_reads import StoreReads
from stream.serving.champion_watch import ChampionWatch
from stream.serving.model_server import ModelServer
from stream.serving.output_loop import OutputLoop
from stream.serving.state_snapshots import Snapshots
from stream.serving.static_features import read_categories, static_reader
from stream.serving.store_reads import ServingReads, count_series, forecast_versions
from stream.settings import Settings
from stream.sinks.explanations import RedisExplanations
from stream.sinks.readside_writer import AHEAD_RETENTION_MS, ReadSideWriter
from stream.state.connect import load_id_seed, load_pseudonyms, redis_options
from stream.state.keys import ROLLUPS, Tag
from stream.state.redis import RedisStore
from stream.worker.explanation_desk import ExplanationDesk
from stream.worker.statistics import WorkerStatistics


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """The parts of one worker; `client` and `blocking` are its two connections to the store."""

    worker_id: str
    client: aioredis.Redis
    blocking: redis.Redis
    sink: BatchProducer
    read_side: ReadSideWriter
    broker: BrokerView
    owner: PartitionOwner
    pipeline: Pipeline
    output: OutputLoop
    champion: ChampionWatch
    snapshots: Snapshots
    scores: ScoreReporter
    statistics: WorkerStatistics
    explanations: ExplanationDesk


def build_worker(app: SurgecastApp, settings: Settings, *, adopt: bool = False) -> WorkerParts:
    """Build the parts of a worker; nothing connects yet.

    `adopt` accepts a broker that the stored offsets do not fit.
    """
    url, options = redis_options(settings)
    blocking = redis.Redis.from_url(url, **options)
    client = aioredis.Redis.from_url(url, **options)
    store = RedisStore(client)
    sink = BatchProducer(aiokafka_config(settings))
    read_side = ReadSideWriter(client, ahead_retention_ms=AHEAD_RETENTION_MS)
    snapshots = Snapshots(blocking, settings.states_path)
    reads = ServingReads(
        blocking, partitions=settings.kafka.partitions, bucket_ms=settings.window.bucket
    )
    server = _server(settings, blocking, reads, snapshots)
    scores = ScoreReporter(None if (path := settings.accuracy.path) is None else ScoreFiles(path))
    output = OutputLoop(
        server,
        sink,
        read_side,
        bucket_ms=settings.window.bucket,
        publish_every_ms=settings.forecasts.publish_every,
        clock_ms=wall_clock_ms,
        scoring=LiveScoring(settings.calibration, StoreReads(blocking)),
        means=_rollup_means(settings, blocking),
        scored=scores.report,
    )
    owned_offset = _OwnedOffset()
    broker = BrokerView(app, settings, next_offset=owned_offset)
    owner = owned_offset.owner = PartitionOwner(
        settings,
        store,
        output,
        read_broker=broker.offsets,
        adopt=adopt,
        rejoin=broker.rejoin,
    )
    pipeline = Pipeline(
        settings,
        owner,
        Flusher(owner, store, sink, output),
        load_pseudonyms(settings, blocking),
        clock_ms=wall_clock_ms,
        lag=broker.lag,
        answered=broker.last_answer_ms,
        id_seed=load_id_seed(settings, blocking),
    )
    champion = ChampionWatch(
        ServedModels(
            Registry(settings.registry_path),
            settings.model,
            bucket_ms=settings.window.bucket,
            timezone=settings.window.timezone,
        ),
        server,
        settings.model,
        bucket_ms=settings.window.bucket,
        tags=_tags(owner),
        served=reads.forecast,
    )
    worker_id = f"{socket.gethostname()}-{os.getpid()}"
    return WorkerParts(
        worker_id=worker_id,
        client=client,
        blocking=blocking,
        sink=sink,
        read_side=read_side,
        broker=broker,
        owner=owner,
        pipeline=pipeline,
        output=output,
        champion=champion,
        snapshots=snapshots,
        scores=scores,
        statistics=WorkerStatistics(worker_id, pipeline, output, champion, broker),
        explanations=ExplanationDesk(
            server,
            RedisExplanations(client),
            tags=_tags(owner),
            between_steps=output.between_steps,
        ),
    )


def _server(
    settings: Settings, blocking: redis.Redis, reads: ServingReads, snapshots: Snapshots
) -> ModelServer:
    fallback = fallback_forecaster(
        horizon=settings.model.horizon,
        bucket_ms=settings.window.bucket,
        quantiles=settings.model.quantiles,
    )
    return ModelServer(
        fallback,
        reads.history,
        static=static_reader(blocking),
        snapshots=snapshots,
        plans=reads.plans,
        max_step_ms=settings.model.max_step,
        max_age_ms=settings.model.max_age,
    )


def _rollup_means(settings: Settings, blocking: redis.Redis) -> RollupMeans:
    stored = StoreReads(blocking)
    return RollupMeans(
        stored.blobs,
        partial(read_categories, blocking),
        partial(count_series, blocking),
        partial(forecast_versions, blocking, partitions=settings.kafka.partitions),
        partitions=settings.kafka.partitions,
    )


class _OwnedOffset:
    """Next offset to be counted of a topic partition; None for one that is not owned.

    Broker and owner need each other: `owner` is set once both exist.
    """

    owner: PartitionOwner

    def __call__(self, tp: TP) -> int | None:
        owned = self.owner.owned.get(tp.partition)
        return None if owned is None else owned.partition.state.positions.get(tp.topic, 0)


def _tags(owner: PartitionOwner) -> Callable[[], list[Tag]]:
    """The owned partitions, and the roll-ups where they are owned."""

    def tags() -> list[Tag]:
        numbers: list[Tag] = list(owner.owned)
        return [*numbers, ROLLUPS] if 0 in owner.owned else numbers

    return tags
