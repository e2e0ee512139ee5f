"""Batches as the transport delivers them, made without a broker."""

import json
from dataclasses import dataclass
from typing import Any

from stream.kafka.reading.record_batch import RecordBatch


@dataclass(frozen=True)
class FakeRecord:
    """The fields of aiokafka's record that the product reads."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 0


def batch(
    topic: str,
    values: list[Any],
    *,
    offset: int = 0,
    partition: int = 0,
    keys: list[Any] | None = None,
) -> RecordBatch:
    """A batch of values; dicts become JSON keyed by SKU, bytes and None stay unchanged."""
    records = []
    for place, value in enumerate(values):
        key = value["sku"].encode() if isinstance(value, dict) and "sku" in value else b"?"
        if keys is not None:
            key = keys[place]
        raw = json.dumps(value).encode() if isinstance(value, dict) else value
        records.append(FakeRecord(offset + place, key, raw))
    end = offset + len(values)
    return RecordBatch(
        topic, partition, records, from_offset=offset, next_offset=end, newest_timestamp_ms=1
    )


def order(
    event_id: str, ts: Any, *, sku: str = "A", quantity: Any = 1, price: Any = 2.0, **more: Any
) -> dict[str, Any]:
    """An order line of the contract."""
    line = {"event_id": event_id, "ts": ts, "sku": sku, "quantity": quantity, "unit_price": price}
    return line | more


def click(
    event_id: str, ts: Any, *, sku: str = "A", action: str = "view", visitor: str | None = "v"
) -> dict[str, Any]:
    """A click of the contract."""
    return {"event_id": event_id, "ts": ts, "sku": sku, "action": action, "visitor_id": visitor}
