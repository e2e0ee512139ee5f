"""Records into Kafka by whole batches: the output side of the worker.

Batches are built per output partition with aiokafka's batch builder, which costs a fraction of a
`send` per record. The partition of a key is Kafka's default (murmur2), so consumers may rely on it.
"""

import asyncio
import sys
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.codec import lz4_encode
from aiokafka.errors import KafkaError
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from stream.errors import ServiceUnavailable
from stream.kafka.partitioner import partition_of

MAX_BATCH_BYTES = 900_000

# aiokafka compresses at level 9 and has no setting for it: 82–91 ns a byte of forecasts on the
# thread that counts. Level 1 takes 1.8 and gives a quarter more bytes.
_LZ4_LEVEL: Final = 1
sys.modules[DefaultRecordBatchBuilder.__module__].lz4_encode = partial(  # type: ignore[attr-defined]  # by name
    lz4_encode, level=_LZ4_LEVEL
)


class BatchProducer:
    """A producer of the output topics; `client` holds aiokafka's connection arguments."""

    def __init__(self, client: dict[str, Any], *, max_batch_bytes: int = MAX_BATCH_BYTES) -> None:
        self._client = client
        self._max_batch_bytes = max_batch_bytes
        self._producer: AIOKafkaProducer | None = None
        self._partitions: dict[str, int] = {}
        #: By number of partitions: where a series goes, and its key.
        self._placed: dict[int, dict[str, tuple[int, bytes]]] = {}

    async def start(self) -> None:
        """Connect. Raises ServiceUnavailable when the broker does not answer."""
        producer = AIOKafkaProducer(
            **self._client,
            acks="all",
            linger_ms=5,
            compression_type="lz4",
            max_batch_size=self._max_batch_bytes,
            max_request_size=4 * MAX_BATCH_BYTES,
        )
        try:
            await producer.start()
        except KafkaError as error:
            raise ServiceUnavailable(f"the broker did not answer: {error}") from error
        self._producer = producer

    async def stop(self) -> None:
        """Send what is buffered and disconnect."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    async def send(self, topic: str, records: Iterable[tuple[str, bytes]]) -> int:
        """Send records and wait until the broker has them; how many. Retries belong to aiokafka.

        Raises ServiceUnavailable when the broker refuses or stays silent.
        """
        producer = self._producer
        if producer is None:
            raise ServiceUnavailable("the producer is not connected")
        n_partitions = await self._count(producer, topic)
        by_partition: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
        placed = self._placed.setdefault(n_partitions, {})
        n = 0
        for name, value in records:
            place = placed.get(name)
            if place is None:
                key = name.encode()
                place = placed[name] = (partition_of(key, n_partitions), key)
            by_partition[place[0]].append((place[1], value))
            n += 1
        try:
            pending = [
                future
                for partition, items in by_partition.items()
                for future in await self._batches(producer, topic, partition, items)
            ]
            await asyncio.gather(*pending)
        except KafkaError as error:
            raise ServiceUnavailable(f"topic {topic}: the broker refused: {error!r}") from error
        return n

    async def _batches(
        self,
        producer: AIOKafkaProducer,
        topic: str,
        partition: int,
        items: list[tuple[bytes, bytes]],
    ) -> list["asyncio.Future[Any]"]:
        futures = []
        builder = producer.create_batch()
        for key, value in items:
            if builder.append(key=key, value=value, timestamp=None) is None:
                futures.append(await producer.send_batch(builder, topic, partition=partition))
                builder = producer.create_batch()
                builder.append(key=key, value=value, timestamp=None)
        if builder.record_count():
            futures.append(await producer.send_batch(builder, topic, partition=partition))
        return futures

    async def _count(self, producer: AIOKafkaProducer, topic: str) -> int:
        if topic not in self._partitions:
            self._partitions[topic] = len(await producer.partitions_for(topic))
        return self._partitions[topic]
