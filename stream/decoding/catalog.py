"""Decoder of the topic `catalog`: a fetched batch to the listings of SKUs and refusals.

An entry changes only the fields that it names: a missing, null or empty field keeps its last known
value, and a tombstone keeps all. An entry with one bad field is refused as a whole.
"""

import math
from dataclasses import dataclass, field
from typing import Final

import msgspec

from model.durations import DAY_MS
from stream.decoding.fields import (
    MAX_LINE_VALUE,
    out_of_range,
    require_name,
    series_id,
    timestamp_ms,
)
from stream.decoding.input_decoder import InputDecoder, require_key, require_same
from stream.decoding.refusals import UNREADABLE, Refused, refusal
from stream.decoding.schemas import CatalogEntry
from stream.errors import UnreadableEvent
from stream.kafka.reading.record_batch import RecordBatch

#: Greatest time between now and an announced launch: two years.
MAX_AHEAD_MS: Final = 2 * 366 * DAY_MS


class Listing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Catalog fields of a SKU except its category; None = unknown.

    `launched_ms` is the launch date, or the time of the first entry of a new SKU if the catalog
    has no date (`Partition.list_product`).

    >>> known = Listing("Acme", 2.5).updated(Listing(price=3.0))
    >>> known.stored(), Listing.read(known.stored()) == known
    ('["Acme",3.0,null]', True)
    """

    brand: str | None = None
    price: float | None = None
    launched_ms: int | None = None

    def __bool__(self) -> bool:
        return self != NOT_LISTED

    def updated(self, later: "Listing") -> "Listing":
        """Return the listing with the fields that a later entry names."""
        return Listing(
            self.brand if later.brand is None else later.brand,
            self.price if later.price is None else later.price,
            self.launched_ms if later.launched_ms is None else later.launched_ms,
        )

    def stored(self) -> str:
        """Return the listing in its stored form."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def read(cls, stored: str | bytes) -> "Listing":
        """Return a listing from its stored form."""
        return msgspec.json.decode(stored, type=cls)


NOT_LISTED: Final = Listing()


@dataclass(slots=True)
class CatalogBatch:
    """Entries of a batch in log order: `accepted` holds (SKU, category or None, listing)."""

    accepted: list[tuple[str, str | None, Listing]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


class CatalogDecoder(InputDecoder[CatalogEntry]):
    """Decoder of the `catalog` topic."""

    shape = CatalogEntry

    def read(self, batch: RecordBatch, *, now_ms: int) -> CatalogBatch:
        """Decode a batch, without tombstones; launches too far after `now_ms` are refused."""
        decoded = CatalogBatch()
        for position, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            if value is None:
                continue
            try:
                entry = self._read_one(value)
                require_same(require_key(key, "SKU"), entry.sku, "SKU")
                decoded.accepted.append((entry.sku, *validate_entry(entry, now_ms=now_ms)))
            except UNREADABLE as error:
                decoded.refused.append(refusal(position, error))
        return decoded


def validate_entry(entry: CatalogEntry, *, now_ms: int) -> tuple[str | None, Listing]:
    """Return category and listing of an entry. Raises UnreadableEvent for an invalid value.

    >>> validate_entry(CatalogEntry("A", "bags", "", 2.5, "2011-11-01T00:00:00Z"), now_ms=2**41)
    ('bags', Listing(brand=None, price=2.5, launched_ms=1320105600000))
    >>> validate_entry(CatalogEntry("A", price=-1.0), now_ms=2**41)
    Traceback (most recent call last):
        ...
    stream.errors.UnreadableEvent: negative_price: price -1.0 is negative
    """
    series_id(entry.sku, None)
    for kind, name in (("category", entry.category), ("brand", entry.brand)):
        if name is not None:
            require_name(kind, name)
    price = entry.price
    if price is not None:
        if price < 0:
            raise UnreadableEvent("negative_price", f"price {price} is negative")
        if not (math.isfinite(price) and price <= MAX_LINE_VALUE):
            raise out_of_range("price", price, MAX_LINE_VALUE)
    launched_ms = None
    if entry.launched_at is not None:
        launched_ms = timestamp_ms(entry.launched_at, name="launched_at")
        if launched_ms < 0:
            raise UnreadableEvent("future_timestamp", f"launched_at {launched_ms} is before 1970")
        if launched_ms > now_ms + MAX_AHEAD_MS:
            raise UnreadableEvent(
                "future_timestamp",
                f"launched_at {launched_ms} exceeds the limit of {now_ms + MAX_AHEAD_MS}, "
                "two years from now",
            )
    return entry.category or None, Listing(entry.brand or None, price, launched_ms)
