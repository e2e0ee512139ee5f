"""Quix Streams without state: JSON decoding and a callback for each event."""

from peer import BOOTSTRAP, TOPICS, Meter
from quixstreams import Application

meter = Meter()
app = Application(
    broker_address=BOOTSTRAP, consumer_group="peer-quix", auto_offset_reset="earliest",
    loglevel="ERROR",
)  # fmt: skip


def count(event: dict) -> None:
    """Read the fields a counter needs."""
    _ = event["sku"], event.get("quantity"), event.get("action")
    meter.add(1)
    if meter.done:
        meter.finish()


for name in TOPICS:
    app.dataframe(app.topic(name, value_deserializer="json")).update(count)
app.run()
