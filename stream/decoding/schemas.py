"""Shapes of the input records as msgspec structs, with only the fields that are used.

Unknown fields are ignored, and so is `customer_id`; `visitor_id` becomes a keyed pseudonym.
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
    """One action of a visitor on a product page."""

    event_id: str
    ts: int | str
    sku: str
    action: Literal["view", "cart", "remove", "purchase"]
    visitor_id: str | None = None
    location: str | None = None


class CatalogEntry(msgspec.Struct, gc=False):
    """Catalog fields of a SKU."""

    sku: str
    category: str | None = None
    brand: str | None = None
    price: float | None = None
    launched_at: int | str | None = None


class StockReading(msgspec.Struct, gc=False):
    """The stock of a SKU, at a location, at one time."""

    sku: str
    ts: int | str
    on_hand: int
    on_order: int | None = None
    lead_time_days: float | None = None
    location: str | None = None


class PlanRecord(msgspec.Struct, gc=False):
    """A plan for a SKU, a category or all, at one location or all."""

    plan_id: str
    kind: str
    start: int | str
    end: int | str
    sku: str | None = None
    category: str | None = None
    location: str | None = None
    value: float | None = None


class Heartbeat(msgspec.Struct, gc=False):
    """A time mark: records before `offsets` are older than `event_time_ms`, later ones are not."""

    event_time_ms: int
    offsets: dict[str, int]
