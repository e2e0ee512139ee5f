"""aiokafka with JSON decoding, without state: the upper bound of a consumer in Python."""

import asyncio

import msgspec
from aiokafka import AIOKafkaConsumer
from peer import BOOTSTRAP, TOPICS, Meter


class Event(msgspec.Struct, gc=False):
    """The fields a counter needs, of both topics."""

    event_id: str
    ts: int
    sku: str
    quantity: int = 0
    unit_price: float = 0.0
    action: str = ""


async def main() -> None:
    """Read and decode."""
    decode = msgspec.json.Decoder(Event).decode
    consumer = AIOKafkaConsumer(
        *TOPICS, bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest", group_id=None
    )
    await consumer.start()
    meter = Meter()
    while not meter.done:
        for records in (await consumer.getmany(timeout_ms=500)).values():
            for record in records:
                decode(record.value)
            meter.add(len(records))
    meter.finish()


asyncio.run(main())
