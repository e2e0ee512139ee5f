"""The shapes of the input records, as msgspec structs: only what the product computes with.

Fields that name people (`customer_id`) and nobody needs are not read at all; `visitor_id` becomes a
keyed pseudonym in the decoder. Unknown fields are ignored.
"""

from typing import Literal

import msgspec


class Order(msgspec.Struct, gc=False):
    """One order line; a negative quantity is a return or cancellation."""

    event_id: str
    ts: int | str
    sku: str
    quantity: int
    unit_price: float
    location: str | None = None


class Click(msgspec.Struct, gc=False):
    """One thing a visitor did on a product page."""

    event_id: str
    ts: int | str
    sku: str
    action: Literal["view", "cart", "remove", "purchase"]
    visitor_id: str | None = None
    location: str | None = None


class CatalogEntry(msgspec.Struct, gc=False):
    """What is known of a SKU."""

    sku: str
    category: str | None = None
    brand: str | None = None
    price: float | None = None
    launched_at: int | str | None = None


class StockReading(msgspec.Struct, gc=False):
    """What was in stock of a SKU, at a location, at a moment."""

    sku: str
    ts: int | str
    on_hand: int
    on_order: int | None = None
    lead_time_days: float | None = None
    location: str | None = None


class PlanRecord(msgspec.Struct, gc=False):
    """What is planned for a SKU, a category or everything, at one location or all."""

    plan_id: str
    kind: str
    start: int | str
    end: int | str
    sku: str | None = None
    category: str | None = None
    location: str | None = None
    value: float | None = None


class Heartbeat(msgspec.Struct, gc=False):
    """A promise: up to `offsets` all is older than `event_time_ms`, and nothing older follows."""

    event_time_ms: int
    offsets: dict[str, int]
