"""Bytes of a fetched batch to columns; what cannot be read is refused with a reason.

Stands between `stream/kafka/faust_transport.py` and `stream/partition/watermark.py`. The fast path
decodes the whole batch into msgspec structs and checks columns at once; only when something is
wrong does it look record by record. It does not know buckets, watermarks or slots.

Axes: N = readable events of the batch, in log order.
"""

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import msgspec
import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_digest

from stream.decoding.columns import ClickColumns, Columns, OrderColumns
from stream.decoding.fields import MAX_LINE_VALUE, MAX_QUANTITY, event_times, floats
from stream.decoding.formats import Format
from stream.decoding.input_decoder import InputDecoder, Triple
from stream.decoding.refusals import UNREADABLE, Refused, refusal
from stream.decoding.schemas import Click, Heartbeat, Order
from stream.errors import UnreadableEvent
from stream.features.definitions import ACTION_COLUMNS
from stream.kafka.record_batch import RecordBatch

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
#: Columns of the decoded structs, by field.
Table = dict[str, Sequence[Any]]
E = TypeVar("E", Order, Click)


class EventDecoder(InputDecoder[E]):
    """Decoder of one topic of events; a key it has verified costs a lookup from then on."""

    def __init__(
        self,
        *,
        locations: tuple[str, ...] = (),
        max_value_bytes: int = 262_144,
        source: Format | None = None,
    ) -> None:
        super().__init__(locations=locations, max_value_bytes=max_value_bytes, source=source)
        self._plain: set[str] = set()

    def _read(self, batch: RecordBatch, latest_ms: int) -> tuple[Table, Columns]:
        """The events' fields as columns, and what all events have in common, without the bad."""
        values, keys = batch.values, batch.keys
        refused: list[Refused] = []
        try:
            if None in values or max(map(len, cast("list[bytes]", values)), default=0) > (
                self._max_value_bytes
            ):
                raise msgspec.DecodeError
            events = list(map(self._decode, cast("list[bytes]", values)))
            positions: Sequence[int] = range(len(values))
        except UNREADABLE:
            positions, events = self._one_by_one(values, refused)
            keys = [keys[position] for position in positions]
        table = self._table(events)
        bad: dict[int, UnreadableEvent] = {}
        time_N = event_times(table["ts"], latest_ms, bad)
        self._value_faults(table, bad)
        series = self._series(keys, table, bad)
        position_N = np.asarray(positions, np.int64)
        if bad:
            for place, fault in sorted(bad.items()):
                refused.append(Refused(int(position_N[place]), fault.reason, fault.detail))
            refused.sort(key=lambda one: one.position)
            keep = [place for place in range(len(events)) if place not in bad]
            table = {name: [column[i] for i in keep] for name, column in table.items()}
            series = [series[i] for i in keep]
            time_N, position_N = time_N[keep], position_N[keep]
        digests = b"".join(map(xxh3_64_digest, map(str.encode, table["event_id"])))
        hashes = np.frombuffer(digests, ">u8").astype(np.uint64)
        return table, Columns(position_N, time_N, series, hashes, refused)

    def _table(self, events: list[E]) -> Table:
        """The fields as columns: a list a field, since a tuple an event wakes the collector."""
        return {
            "event_id": [event.event_id for event in events],
            "ts": [event.ts for event in events],
            "sku": [event.sku for event in events],
            "location": [event.location for event in events],
        }

    def _value_faults(self, table: Table, bad: dict[int, UnreadableEvent]) -> None:
        """Add the places of events whose values cannot be counted to `bad`."""
        if "" in table["event_id"]:
            fault = UnreadableEvent("missing_event_id", "event_id is empty")
            bad.update((i, fault) for i, name in enumerate(table["event_id"]) if not name)

    def _one_by_one(
        self, values: list[bytes | None], refused: list[Refused]
    ) -> tuple[list[int], list[E]]:
        positions, events = [], []
        for position, value in enumerate(values):
            try:
                events.append(self._read_one(value))
                positions.append(position)
            except UNREADABLE as error:
                refused.append(refusal(position, error))
        return positions, events

    def _series(
        self, keys: list[bytes | None], table: Table, bad: dict[int, UnreadableEvent]
    ) -> Sequence[str]:
        """Series ids; places whose key, SKU or location is at fault go into `bad`."""
        skus: Sequence[str] = table["sku"]
        locations: Sequence[str | None] = table["location"]
        # Nearly always all keys are the SKUs, without location: then a few passes in C will do. The
        # separator cannot hide a shift between neighbours: no valid SKU contains it.
        if locations.count(None) == len(skus) and None not in keys:
            same = b"\0".join(cast("list[bytes]", keys)) == "\0".join(skus).encode()
            if same and self._plain.issuperset(skus):
                return skus
            new = set(skus).difference(self._plain)
            if same and not self._learn({(sku.encode(), sku, None) for sku in new}):
                return skus
        triples = list(zip(keys, skus, locations, strict=True))
        faults = self._learn(set(triples).difference(self._known))
        known = self._known
        if faults:
            for place, triple in enumerate(triples):
                if triple in faults:
                    bad.setdefault(place, faults[triple])
            return [known.get(triple, "") for triple in triples]
        return [known[triple] for triple in triples]

    def _learn(self, unknown: set[Triple]) -> dict[Triple, UnreadableEvent]:
        """Verify keys, SKUs and locations seen for the first time; the faults among them."""
        faults = {}
        for triple in unknown:
            try:
                self._known[triple] = self._name(triple)
            except UnreadableEvent as error:
                faults[triple] = error
            else:
                _, sku, location = triple
                if location is None:
                    self._plain.add(sku)
        return faults


class OrderDecoder(EventDecoder[Order]):
    """Decoder of the `orders` topic."""

    shape = Order

    def columns(self, batch: RecordBatch, *, latest_ms: int) -> OrderColumns:
        """Decode a batch; `latest_ms` is the newest event time that can be true."""
        table, common = self._read(batch, latest_ms)
        return OrderColumns(
            common.position_N,
            common.event_time_N,
            common.series_N,
            common.id_hash_N,
            common.refused,
            np.array(table["quantity"], np.int64),
            np.array(table["unit_price"], np.float64),
        )

    def _table(self, events: list[Order]) -> Table:
        table = super()._table(events)
        table["quantity"] = [event.quantity for event in events]
        table["unit_price"] = [event.unit_price for event in events]
        return table

    def _value_faults(self, table: Table, bad: dict[int, UnreadableEvent]) -> None:
        super()._value_faults(table, bad)
        quantity = floats(table["quantity"])
        price = np.array(table["unit_price"], np.float64)
        fine = (quantity != 0) & (np.abs(quantity) <= MAX_QUANTITY)
        with np.errstate(over="ignore", invalid="ignore"):  # infinite is too much as well
            fine &= (price >= 0) & (np.abs(quantity) * price <= MAX_LINE_VALUE)
        for place in np.flatnonzero(~fine).tolist():
            fault = _order_fault(table["quantity"][place], table["unit_price"][place])
            bad.setdefault(place, fault)


class ClickDecoder(EventDecoder[Click]):
    """Decoder of the `clicks` topic."""

    shape = Click

    def columns(self, batch: RecordBatch, *, latest_ms: int) -> ClickColumns:
        """Decode a batch; `latest_ms` is the newest event time that can be true."""
        table, common = self._read(batch, latest_ms)
        return ClickColumns(
            common.position_N,
            common.event_time_N,
            common.series_N,
            common.id_hash_N,
            common.refused,
            np.fromiter(map(ACTION_COLUMNS.__getitem__, table["action"]), np.int64, len(common)),
            table["visitor_id"],
        )

    def _table(self, events: list[Click]) -> Table:
        table = super()._table(events)
        table["action"] = [event.action for event in events]
        table["visitor_id"] = [event.visitor_id for event in events]
        return table


def _order_fault(quantity: int, price: float) -> UnreadableEvent:
    if quantity == 0:
        return UnreadableEvent("zero_quantity", "quantity is 0")
    if price < 0:
        return UnreadableEvent("negative_price", f"unit_price {price} is negative")
    return UnreadableEvent("out_of_range", f"quantity {quantity} at {price} is beyond belief")


decode_heartbeat = msgspec.json.Decoder(Heartbeat).decode
