"""The contract of a record sink, for the fake and for the producer on a broker."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from stream.errors import ServiceUnavailable
from stream.kafka.clients import aiokafka_config
from stream.kafka.producer import BatchProducer
from stream.kafka.record_sink import RecordSink
from tests.support.memory_topics import MemoryTopics
from tests.support.services import KINDS, running_broker
from tests.support.stack import read_topic

Read = Callable[[], list[tuple[str, bytes]]]

TOPIC = "alerts"


@pytest.fixture(
    params=["memory", *(pytest.param(kind, marks=pytest.mark.integration) for kind in KINDS)]
)
async def sink(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[RecordSink, Read]]:
    """A sink of each kind, and how all records of the topic are read back."""
    if request.param == "memory":
        topics = MemoryTopics()
        yield topics, lambda: topics.records[TOPIC]
        return
    with running_broker(request.param, tmp_path) as broker:
        servers = broker.settings.kafka.bootstrap_servers or ""
        producer = BatchProducer(aiokafka_config(broker.settings))
        await producer.start()
        yield (
            producer,
            lambda: [(one.key.decode(), one.value) for one in read_topic(servers, TOPIC)],
        )
        await producer.stop()


async def test_records_arrive_whole_and_in_the_order_of_their_key(
    sink: tuple[RecordSink, Read],
) -> None:
    """A generator is read once, and the number of its records returned."""
    target, read = sink
    made = [(f"sku-{n % 3}", str(n).encode()) for n in range(60)]

    def records() -> Iterator[tuple[str, bytes]]:
        yield from made

    assert await target.send(TOPIC, records()) == 60

    found = read()
    for key in {name for name, _ in made}:
        expected = [value for name, value in made if name == key]
        assert [value for name, value in found if name == key] == expected


async def test_an_empty_batch_is_no_error(sink: tuple[RecordSink, Read]) -> None:
    """Nothing is sent, and the sink says so."""
    assert await sink[0].send(TOPIC, []) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "kafka"])
async def test_a_sink_without_a_broker_raises(kind: str) -> None:
    """The caller keeps the records and tries again."""
    target: RecordSink
    if kind == "memory":
        target = topics = MemoryTopics()
        topics.away = True
    else:
        target = producer = BatchProducer({"bootstrap_servers": "127.0.0.1:1"})
        with pytest.raises(ServiceUnavailable):
            await producer.start()

    with pytest.raises(ServiceUnavailable):
        await target.send(TOPIC, [("a", b"1")])
