"""The ingest without a broker: batches are passed to it as they would be fetched."""

from collections.abc import Callable, Iterable

from faust.types import TP

from stream.ingest.assignment import PartitionOwner, ReadBroker, unknown_broker
from stream.ingest.flushing import Flusher
from stream.ingest.pipeline import Pipeline
from stream.partition.closed import ClosedBuckets
from stream.privacy import Pseudonyms
from stream.settings import Settings
from stream.state.keys import Tag
from stream.state.port import StateStore


class UnreadCloses:
    """A sink of closed buckets that drops them: the port's simplest implementation."""

    def put(self, closed: ClosedBuckets) -> None: ...

    def forget(self, tag: Tag) -> None: ...

    async def wait_for_room(self) -> None: ...


class Letters:
    """A record sink that keeps what it is sent."""

    def __init__(self) -> None:
        self.letters: list[tuple[str, bytes]] = []

    async def send(self, topic: str, records: Iterable[tuple[str, bytes]]) -> int:
        sent = list(records)
        self.letters += sent
        return len(sent)


def pipeline_of(
    settings: Settings,
    store: StateStore,
    letters: Letters,
    *,
    now_ms: int,
    lag: Callable[[TP], int | None] = lambda _: 0,
    answered: Callable[[TP], int | None] = lambda _: None,
    read_broker: ReadBroker = unknown_broker,
    adopt: bool = False,
    rejoin: Callable[[], None] = lambda: None,
) -> Pipeline:
    """A pipeline at a fixed time; by default its inputs are always read to their end."""
    output = UnreadCloses()
    owner = PartitionOwner(
        settings, store, output, read_broker=read_broker, adopt=adopt, rejoin=rejoin
    )
    return Pipeline(
        settings,
        owner,
        Flusher(owner, store, letters, output),
        Pseudonyms(b"key"),
        clock_ms=lambda: now_ms,
        lag=lag,
        answered=answered,
    )
