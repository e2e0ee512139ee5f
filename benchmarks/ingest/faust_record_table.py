"""Idiomatic Faust: `Record` models and windowed tables count units, clicks, revenue by SKU."""

import tempfile

import faust
from peer import BOOTSTRAP, Meter

app = faust.App(
    "peer-record-table",
    broker=f"kafka://{BOOTSTRAP}",
    store="memory://",
    datadir=tempfile.mkdtemp(),
    web_enabled=False,
    consumer_auto_offset_reset="earliest",
    topic_partitions=4,
    topic_disable_leader=True,
)


class Order(faust.Record, serializer="json"):
    """One order line."""

    event_id: str
    ts: int
    sku: str
    quantity: int
    unit_price: float


class Click(faust.Record, serializer="json"):
    """One click."""

    event_id: str
    ts: int
    sku: str
    action: str


units = app.Table("units", default=int).tumbling(3600.0, expires=86_400.0)
revenue = app.Table("revenue", default=float).tumbling(3600.0, expires=86_400.0)
actions = app.Table("actions", default=int).tumbling(3600.0, expires=86_400.0)
meter = Meter()


@app.agent(app.topic("orders", value_type=Order))
async def count_orders(orders):
    """Sum units and revenue."""
    async for order in orders:
        units[order.sku] += order.quantity
        revenue[order.sku] += order.quantity * order.unit_price
        meter.add(1)
        if meter.done:
            meter.finish()


@app.agent(app.topic("clicks", value_type=Click))
async def count_clicks(clicks):
    """Count clicks by SKU and action."""
    async for click in clicks:
        actions[f"{click.sku}/{click.action}"] += 1
        meter.add(1)
        if meter.done:
            meter.finish()


@app.timer(5.0)
async def watch():
    """Stop at the deadline even without events."""
    if meter.done:
        meter.finish()


if __name__ == "__main__":
    app.Worker(loglevel="ERROR", quiet=True).execute_from_commandline()
