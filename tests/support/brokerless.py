"""The ingest without a broker: batches are passed to it as they would be fetched."""

from collections.abc import Callable

from faust.types import TP

from stream.ingest.assignment import PartitionOwner, ReadBroker, unknown_broker
from stream.ingest.flushing import Flusher
from stream.ingest.pipeline import Pipeline
from stream.privacy import Pseudonyms
from stream.settings import Settings
from stream.state.port import StateStore
from tests.support.memory_topics import MemoryCloses, MemoryTopics


def pipeline_of(
    settings: Settings,
    store: StateStore,
    topics: MemoryTopics,
    *,
    now_ms: int,
    lag: Callable[[TP], int | None] = lambda _: 0,
    answered: Callable[[TP], int | None] = lambda _: None,
    read_broker: ReadBroker = unknown_broker,
    adopt: bool = False,
    rejoin: Callable[[], None] = lambda: None,
) -> Pipeline:
    """A pipeline at a fixed time; by default its inputs are always read to their end."""
    output = MemoryCloses()
    owner = PartitionOwner(
        settings, store, output, read_broker=read_broker, adopt=adopt, rejoin=rejoin
    )
    return Pipeline(
        settings,
        owner,
        Flusher(owner, store, topics, output),
        Pseudonyms(b"key"),
        clock_ms=lambda: now_ms,
        lag=lag,
        answered=answered,
    )
