"""Catalog entries, from the bytes of a fetched batch to what is kept of a SKU; the bad are refused.

The counterpart of `stream/decoding/events.py` for the topic `catalog`, with the same rules and
reasons. An entry says what it names and nothing of the rest: a field that is left out, null or
empty keeps what was last known, and so does a tombstone. An entry is taken whole or refused whole.
"""

import math
from dataclasses import dataclass, field
from typing import Final

import msgspec

from model.durations import DAY_MS
from stream.decoding.fields import MAX_LINE_VALUE, MAX_NAME, series_id, timestamp_ms
from stream.decoding.input_decoder import InputDecoder, require_key, require_same
from stream.decoding.refusals import UNREADABLE, Refused, refusal
from stream.decoding.schemas import CatalogEntry
from stream.errors import UnreadableEvent
from stream.kafka.record_batch import RecordBatch

#: How far ahead a product may be announced.
MAX_AHEAD_MS: Final = 2 * 366 * DAY_MS


class Listing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the catalog says of a SKU beside its category; None = never told.

    `launched_ms` is when it is first sold; without a date of the catalog, when a SKU that nothing
    was known of came into the catalog (`Partition.list_product`).

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
        """This, with what a later entry names."""
        return Listing(
            self.brand if later.brand is None else later.brand,
            self.price if later.price is None else later.price,
            self.launched_ms if later.launched_ms is None else later.launched_ms,
        )

    def stored(self) -> str:
        """As the store keeps it."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def read(cls, stored: str | bytes) -> "Listing":
        """What `stored` made."""
        return msgspec.json.decode(stored, type=cls)


NOT_LISTED: Final = Listing()


@dataclass(slots=True)
class Listed:
    """What a batch says, in log order: `taken` holds (SKU, category or None, the rest)."""

    taken: list[tuple[str, str | None, Listing]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


class CatalogDecoder(InputDecoder[CatalogEntry]):
    """Decoder of the `catalog` topic."""

    shape = CatalogEntry

    def read(self, batch: RecordBatch, *, now_ms: int) -> Listed:
        """Decode a batch; `now_ms` says what lies in the future. Tombstones say nothing."""
        listed = Listed()
        for position, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            if value is None:
                continue
            try:
                entry = self._read_one(value)
                require_same(require_key(key, "SKU"), entry.sku, "SKU")
                listed.taken.append((entry.sku, *checked(entry, now_ms=now_ms)))
            except UNREADABLE as error:
                listed.refused.append(refusal(position, error))
        return listed


def checked(entry: CatalogEntry, *, now_ms: int) -> tuple[str | None, Listing]:
    """Category and the rest of an entry. Raises UnreadableEvent for what makes no sense.

    >>> checked(CatalogEntry("A", "bags", "", 2.5, "2011-11-01T00:00:00Z"), now_ms=2**41)
    ('bags', Listing(brand=None, price=2.5, launched_ms=1320105600000))
    >>> checked(CatalogEntry("A", price=-1.0), now_ms=2**41)
    Traceback (most recent call last):
        ...
    stream.errors.UnreadableEvent: negative_price: price -1.0 is negative
    """
    series_id(entry.sku, None)
    for kind, name in (("category", entry.category), ("brand", entry.brand)):
        if name is not None and len(name) > MAX_NAME:
            raise UnreadableEvent(f"invalid_{kind}", f"{kind} {name[:60]!r} cannot be used")
    price = entry.price
    if price is not None:
        if price < 0:
            raise UnreadableEvent("negative_price", f"price {price} is negative")
        if not (math.isfinite(price) and price <= MAX_LINE_VALUE):
            raise UnreadableEvent("out_of_range", f"price {price} is beyond belief")
    launched_ms = None
    if entry.launched_at is not None:
        launched_ms = timestamp_ms(entry.launched_at, name="launched_at")
        if launched_ms < 0:
            raise UnreadableEvent("future_timestamp", f"launched_at {launched_ms} is before 1970")
        if launched_ms > now_ms + MAX_AHEAD_MS:
            raise UnreadableEvent(
                "future_timestamp", f"launched_at {launched_ms} is more than two years ahead"
            )
    return entry.category or None, Listing(entry.brand or None, price, launched_ms)
