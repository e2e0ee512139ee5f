"""Bytes of a fetched batch to columns; what cannot be read is refused with a reason.

Stands between `stream/transport.py` and `stream/eventtime.py`. The fast path decodes the whole
batch into msgspec structs and checks columns at once; only when something is wrong does it look
record by record. It does not know buckets, watermarks or slots.

Axes: N = readable events of the batch, in log order.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar, cast

import msgspec
import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from stream.errors import UnreadableEvent
from stream.events import CatalogEntry, Click, Heartbeat, Order
from stream.features.definitions import ACTION_COLUMNS
from stream.privacy import Pseudonyms
from stream.transport import RecordBatch

Ints = NDArray[np.int64]
E = TypeVar("E", Order, Click)

MAX_QUANTITY = 10**9
#: No line value above this (in units of the currency) enters a sum, so that no sum can overflow.
MAX_LINE_VALUE = 10**10
_RESERVED = ("category:", "location:")


@dataclass(slots=True)
class Refused:
    """A record that is not counted: its place in the batch, and why."""

    position: int
    reason: str
    detail: str


@dataclass(slots=True)
class Columns(Generic[E]):
    """Readable events of a batch as columns, and the refused ones.

    `position_N` is each event's place in the batch, `series_N` its series id, `id_hash_N` the
    64-bit hash of its `event_id`.
    """

    position_N: Ints
    event_time_N: Ints
    series_N: list[str]
    id_hash_N: list[int]
    events: list[E]
    refused: list[Refused] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.events)


def timestamp_ms(value: int | str) -> int:
    """Event time in ms of an integer (ms) or an RFC 3339 string with an offset.

    Raises UnreadableEvent for anything else.

    >>> timestamp_ms("2011-11-01T00:00:00Z")
    1320105600000
    """
    if isinstance(value, int):
        return value
    try:
        moment = msgspec.convert(value, datetime, strict=False)
    except msgspec.ValidationError:
        raise UnreadableEvent("invalid_timestamp", f"ts {value!r} is not RFC 3339") from None
    if moment.tzinfo is None:
        raise UnreadableEvent("invalid_timestamp", f"ts {value!r} has no UTC offset")
    return round(moment.astimezone(UTC).timestamp() * 1000)


def series_id(sku: str, location: str | None) -> str:
    """Series of a SKU at a location. Raises UnreadableEvent for names that would be ambiguous.

    >>> series_id("85123A", None), series_id("85123A", "Berlin")
    ('85123A', '85123A@Berlin')
    """
    if not sku or len(sku) > 200 or not sku.isprintable() or sku != sku.strip():
        raise UnreadableEvent(
            "invalid_sku", f"sku {sku[:60]!r} is empty, too long or not printable"
        )
    if "@" in sku or sku == "total" or sku.startswith(_RESERVED):
        raise UnreadableEvent("invalid_sku", f"sku {sku[:60]!r} is reserved for series names")
    if location is None:
        return sku
    if not location or len(location) > 200 or not location.isprintable() or "@" in location:
        raise UnreadableEvent("invalid_location", f"location {location[:60]!r} cannot be used")
    return f"{sku}@{location}"


class EventDecoder(Generic[E]):
    """Decoder of one input topic; it keeps what it has verified: a known key costs a lookup."""

    def __init__(
        self,
        shape: type[E],
        *,
        locations: tuple[str, ...] = (),
        max_value_bytes: int = 262_144,
    ) -> None:
        self._decode: Callable[[bytes], E] = msgspec.json.Decoder(shape).decode
        self._locations = frozenset(locations)
        self._max_value_bytes = max_value_bytes
        self._known: dict[tuple[bytes | None, str, str | None], str] = {}

    def columns(self, batch: RecordBatch, *, latest_ms: int) -> Columns[E]:
        """Decode a batch; `latest_ms` is the newest event time that can be true."""
        values = batch.values
        refused: list[Refused] = []
        positions: list[int] | range = range(len(values))
        try:
            if any(value is None or len(value) > self._max_value_bytes for value in values):
                raise msgspec.DecodeError
            events = list(map(self._decode, cast("list[bytes]", values)))
        except (msgspec.DecodeError, UnicodeDecodeError):
            positions, events = self._one_by_one(values, refused)
        keys = batch.keys
        if len(events) != len(values):
            keys = [keys[position] for position in positions]
        return self._checked(np.asarray(positions, np.int64), events, keys, refused, latest_ms)

    def _one_by_one(
        self, values: list[bytes | None], refused: list[Refused]
    ) -> tuple[list[int], list[E]]:
        positions, events = [], []
        for position, value in enumerate(values):
            try:
                events.append(self._decode(self._admissible(value)))
                positions.append(position)
            except UnreadableEvent as error:
                refused.append(Refused(position, error.reason, error.detail))
            except msgspec.ValidationError as error:
                refused.append(Refused(position, _schema_reason(str(error)), str(error)))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                refused.append(Refused(position, "malformed_json", str(error)))
        return positions, events

    def _admissible(self, value: bytes | None) -> bytes:
        if value is None:
            raise UnreadableEvent("null_value", "the record has no value")
        if len(value) > self._max_value_bytes:
            raise UnreadableEvent(
                "too_large", f"{len(value)} bytes, at most {self._max_value_bytes} are read"
            )
        return value

    def _checked(
        self,
        position_N: Ints,
        events: list[E],
        keys: list[bytes | None],
        refused: list[Refused],
        latest_ms: int,
    ) -> Columns[E]:
        triples = [
            (key, event.sku, event.location) for key, event in zip(keys, events, strict=True)
        ]
        known = self._known
        faults = self._learn(set(triples).difference(known))
        times, time_faults = self._times(events, latest_ms)
        bad: dict[int, UnreadableEvent] = dict(time_faults)
        for place, fault in _faulty_values(events):
            bad.setdefault(place, fault)
        if faults:
            for place, triple in enumerate(triples):
                if triple in faults:
                    bad.setdefault(place, faults[triple])
        if bad:
            for place, error in sorted(bad.items()):
                refused.append(Refused(int(position_N[place]), error.reason, error.detail))
            refused.sort(key=lambda r: r.position)
            keep = [place for place in range(len(events)) if place not in bad]
            events = [events[place] for place in keep]
            triples = [triples[place] for place in keep]
            times, position_N = times[keep], position_N[keep]
        return Columns(
            position_N=position_N,
            event_time_N=times,
            series_N=[known[triple] for triple in triples],
            id_hash_N=[xxh3_64_intdigest(event.event_id.encode()) for event in events],
            events=events,
            refused=refused,
        )

    def _learn(
        self, unknown: set[tuple[bytes | None, str, str | None]]
    ) -> dict[tuple[bytes | None, str, str | None], UnreadableEvent]:
        """Verify keys, SKUs and locations seen for the first time; the faults among them."""
        faults = {}
        for triple in unknown:
            key, sku, location = triple
            try:
                name = series_id(sku, location)
                if key is None:
                    raise UnreadableEvent("null_key", "the key must be the SKU in UTF-8")
                if key != sku.encode():
                    raise UnreadableEvent(
                        "key_mismatch", f"key {key[:60]!r} is not the SKU {sku[:60]!r}"
                    )
                if self._locations and location is not None and location not in self._locations:
                    raise UnreadableEvent(
                        "unknown_location", f"location {location!r} is not in ingest.locations"
                    )
            except UnreadableEvent as error:
                faults[triple] = error
            else:
                self._known[triple] = name
        return faults

    def _times(self, events: list[E], latest_ms: int) -> tuple[Ints, dict[int, UnreadableEvent]]:
        faults: dict[int, UnreadableEvent] = {}
        raw = [event.ts for event in events]
        try:
            times = np.array(raw, dtype=np.int64) if raw else np.zeros(0, np.int64)
            if any(type(value) is str for value in raw):
                raise ValueError
        except (ValueError, OverflowError):
            parsed = []
            for place, value in enumerate(raw):
                try:
                    parsed.append(min(timestamp_ms(value), 2**62))
                except UnreadableEvent as error:
                    faults[place] = error
                    parsed.append(0)
            times = np.array(parsed, dtype=np.int64)
        for place in np.flatnonzero((times > latest_ms) | (times < 0)).tolist():
            faults.setdefault(
                place,
                UnreadableEvent("future_timestamp", _future_detail(int(times[place]), latest_ms)),
            )
        return times, faults


def _future_detail(event_time_ms: int, latest_ms: int) -> str:
    if event_time_ms < 0:
        return f"ts {event_time_ms} is before 1970"
    return f"ts {event_time_ms} is {event_time_ms - latest_ms} ms beyond window.future_tolerance"


def _faulty_values(events: list[Any]) -> list[tuple[int, UnreadableEvent]]:
    """Places of events whose values cannot be counted."""
    faults: list[tuple[int, UnreadableEvent]] = []
    if any(not event.event_id for event in events):
        faults += [
            (place, UnreadableEvent("missing_event_id", "event_id is empty"))
            for place, event in enumerate(events)
            if not event.event_id
        ]
    if events and isinstance(events[0], Order):
        faults += _faulty_orders(events)
    return faults


def _faulty_orders(events: list[Order]) -> list[tuple[int, UnreadableEvent]]:
    quantity = np.array([event.quantity for event in events], dtype=np.float64)
    price = np.array([event.unit_price for event in events], dtype=np.float64)
    fine = (quantity != 0) & (np.abs(quantity) <= MAX_QUANTITY)
    fine &= (price >= 0) & (np.abs(quantity) * price <= MAX_LINE_VALUE)
    faults = []
    for place in np.flatnonzero(~fine).tolist():
        event = events[place]
        if event.quantity == 0:
            fault = UnreadableEvent("zero_quantity", "quantity is 0")
        elif event.unit_price < 0:
            fault = UnreadableEvent("negative_price", f"unit_price {event.unit_price} is negative")
        else:
            fault = UnreadableEvent(
                "out_of_range", f"quantity {event.quantity} at {event.unit_price} is beyond belief"
            )
        faults.append((place, fault))
    return faults


def _schema_reason(message: str) -> str:
    """Dead-letter reason of a msgspec validation message.

    >>> _schema_reason("Object missing required field `sku`")
    'missing_field'
    >>> _schema_reason("Expected `int`, got `str` - at `$.quantity`")
    'wrong_type'
    """
    if "missing required field" in message:
        return "missing_field"
    if "Invalid enum value" in message:
        return "unknown_action"
    if "out of range" in message:
        return "out_of_range"
    return "wrong_type"


def order_columns(events: list[Order]) -> tuple[Ints, NDArray[np.float64]]:
    """Quantities (units) and prices (currency) of decoded order lines."""
    n = len(events)
    quantity = np.fromiter((event.quantity for event in events), np.int64, n)
    price = np.fromiter((event.unit_price for event in events), np.float64, n)
    return quantity, price


def click_columns(events: list[Click], people: Pseudonyms) -> tuple[Ints, list[int | None]]:
    """Feature columns of the actions, and the visitors' pseudonyms (None without visitor)."""
    n = len(events)
    column = np.fromiter((ACTION_COLUMNS[event.action] for event in events), np.int64, n)
    number: Callable[[str], int] = people.number
    visitors = [None if e.visitor_id is None else number(e.visitor_id) for e in events]
    return column, visitors


decode_catalog = msgspec.json.Decoder(CatalogEntry).decode
decode_heartbeat = msgspec.json.Decoder(Heartbeat).decode
