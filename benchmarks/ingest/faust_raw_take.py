"""Faust with raw bytes and `take`: batches decoded and summed by the agent."""

import tempfile
from collections import Counter

import faust
import msgspec
from peer import BOOTSTRAP, Meter

app = faust.App(
    "peer-raw-take",
    broker=f"kafka://{BOOTSTRAP}",
    store="memory://",
    datadir=tempfile.mkdtemp(),
    web_enabled=False,
    consumer_auto_offset_reset="earliest",
    topic_disable_leader=True,
    stream_buffer_maxsize=16_384,
)


class Event(msgspec.Struct, gc=False):
    """The fields a counter needs, of both topics."""

    event_id: str
    ts: int
    sku: str
    quantity: int = 0
    unit_price: float = 0.0
    action: str = ""


decode = msgspec.json.Decoder(Event).decode
units: Counter[str] = Counter()
actions: Counter[tuple[str, str]] = Counter()
meter = Meter()


@app.agent(app.topic("orders", value_serializer="raw"))
async def count_orders(orders):
    """Sum units by SKU."""
    async for values in orders.take(5_000, within=0.2):
        for value in values:
            order = decode(value)
            units[order.sku] += order.quantity
        meter.add(len(values))
        if meter.done:
            meter.finish()


@app.agent(app.topic("clicks", value_serializer="raw"))
async def count_clicks(clicks):
    """Count clicks by SKU and action."""
    async for values in clicks.take(5_000, within=0.2):
        for value in values:
            click = decode(value)
            actions[click.sku, click.action] += 1
        meter.add(len(values))
        if meter.done:
            meter.finish()


@app.timer(5.0)
async def watch():
    """Stop at the deadline even without events."""
    if meter.done:
        meter.finish()


if __name__ == "__main__":
    app.Worker(loglevel="ERROR", quiet=True).execute_from_commandline()
