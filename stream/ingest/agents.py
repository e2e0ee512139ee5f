"""Faust agents, one per topic: each passes its batches to the pipeline."""

from collections.abc import Awaitable, Callable

from faust.types import StreamT
from mode import CrashingSupervisor

from stream.errors import SurgecastError
from stream.ingest.pipeline import CONSUMERS, Pipeline
from stream.kafka.faust_app import SurgecastApp
from stream.kafka.reading.faust_transport import AsFetched
from stream.kafka.reading.record_batch import RecordBatch


def attach(app: SurgecastApp, pipeline: Pipeline) -> None:
    """Attach an agent for each topic the pipeline consumes."""
    for name, method in CONSUMERS.items():
        _attach_one(app, name, method.__get__(pipeline))


def _attach_one(
    app: SurgecastApp, name: str, consume: Callable[[RecordBatch], Awaitable[None]]
) -> None:
    async def agent(batches: StreamT[RecordBatch]) -> None:
        async for batch in batches:
            try:
                await consume(batch)
            except SurgecastError as error:
                await app.give_up(error)
                raise

    topic = app.topic(name, key_serializer="raw", value_serializer=AsFetched(), allow_empty=True)
    # No batch may be skipped: on an error the worker stops, and resumes at the stored offsets.
    app.agent(topic, name=name, supervisor_strategy=CrashingSupervisor)(agent)
