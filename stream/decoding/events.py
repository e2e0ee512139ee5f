"""Decoders of the topics `orders` and `clicks`: a fetched batch to columns and refusals.

The fast path decodes the whole batch into msgspec structs and checks whole columns; only a batch
with a bad record is read record by record. Buckets, watermarks and slots come later.

Axes: N = readable events of the batch, in log order.
"""

import math
from collections.abc import Sequence
from itertools import repeat
from typing import Any, TypeVar, cast

import msgspec
import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_digest

from stream.decoding.columns import ClickColumns, Columns, OrderColumns
from stream.decoding.fields import MAX_LINE_VALUE, MAX_QUANTITY, event_times, floats, out_of_range
from stream.decoding.formats import Format
from stream.decoding.input_decoder import InputDecoder, Triple
from stream.decoding.refusals import UNREADABLE, Refused, refusal
from stream.decoding.schemas import Click, Order
from stream.errors import UnreadableEvent
from stream.features.definitions import ACTION_COLUMNS
from stream.kafka.reading.record_batch import RecordBatch

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
#: Field of the decoded structs → its column.
Table = dict[str, Sequence[Any]]
E = TypeVar("E", Order, Click)


class EventDecoder(InputDecoder[E]):
    """Decoder of one topic of events; checks each key, SKU and location only once.

    `id_seed` is the deployment's: nobody else can make event ids whose hashes collide.
    """

    def __init__(
        self,
        *,
        locations: tuple[str, ...] = (),
        max_value_bytes: int = 262_144,
        source: Format | None = None,
        id_seed: int = 0,
    ) -> None:
        super().__init__(locations=locations, max_value_bytes=max_value_bytes, source=source)
        self._id_seed = id_seed
        #: Verified SKUs without a location.
        self._plain_skus: set[str] = set()

    def _read(self, batch: RecordBatch, latest_ms: int) -> tuple[Table, Columns]:
        """Return the readable events' fields by name, and the columns common to all topics."""
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
            for i, fault in sorted(bad.items()):
                refused.append(Refused(int(position_N[i]), fault.reason, fault.detail))
            refused.sort(key=lambda one: one.position)
            keep = [i for i in range(len(events)) if i not in bad]
            table = {name: [column[i] for i in keep] for name, column in table.items()}
            series = [series[i] for i in keep]
            time_N, position_N = time_N[keep], position_N[keep]
        ids = map(str.encode, table["event_id"])
        digests = b"".join(map(xxh3_64_digest, ids, repeat(self._id_seed)))
        hashes = np.frombuffer(digests, ">u8").astype(np.uint64)
        return table, Columns(position_N, time_N, series, hashes, refused)

    def _table(self, events: list[E]) -> Table:
        """Return one list per field: one tuple per event would trigger garbage collection."""
        return {
            "event_id": [event.event_id for event in events],
            "ts": [event.ts for event in events],
            "sku": [event.sku for event in events],
            "location": [event.location for event in events],
        }

    def _value_faults(self, table: Table, bad: dict[int, UnreadableEvent]) -> None:
        """Add events whose values cannot be counted to `bad`, by index."""
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
        """Return series ids; adds events with a wrong key, SKU or location to `bad`, by index."""
        skus: Sequence[str] = table["sku"]
        locations: Sequence[str | None] = table["location"]
        # Usually all keys equal their SKUs and there is no location: then a few passes in C are
        # enough. No valid SKU contains the separator, so it cannot hide a shift between neighbours.
        if locations.count(None) == len(skus) and None not in keys:
            same = b"\0".join(cast("list[bytes]", keys)) == "\0".join(skus).encode()
            if same and self._plain_skus.issuperset(skus):
                return skus
            new = set(skus).difference(self._plain_skus)
            if same and not self._verify({(sku.encode(), sku, None) for sku in new}):
                return skus
        triples = list(zip(keys, skus, locations, strict=True))
        faults = self._verify(set(triples).difference(self._verified))
        verified = self._verified
        if faults:
            for i, triple in enumerate(triples):
                if triple in faults:
                    bad.setdefault(i, faults[triple])
            return [verified.get(triple, "") for triple in triples]
        return [verified[triple] for triple in triples]

    def _verify(self, new: set[Triple]) -> dict[Triple, UnreadableEvent]:
        """Verify keys, SKUs and locations seen for the first time; return the faults."""
        faults = {}
        for triple in new:
            try:
                self._verified[triple] = self._series_id(triple)
            except UnreadableEvent as error:
                faults[triple] = error
            else:
                _, sku, location = triple
                if location is None:
                    self._plain_skus.add(sku)
        return faults


class OrderDecoder(EventDecoder[Order]):
    """Decoder of the `orders` topic."""

    shape = Order

    def columns(self, batch: RecordBatch, *, latest_ms: int) -> OrderColumns:
        """Decode a batch; event times after `latest_ms` are refused."""
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
        with np.errstate(over="ignore", invalid="ignore"):  # infinity exceeds the limit
            fine &= (price >= 0) & (np.abs(quantity) * price <= MAX_LINE_VALUE)
        for i in np.flatnonzero(~fine).tolist():
            bad.setdefault(i, _order_fault(table["quantity"][i], table["unit_price"][i]))


class ClickDecoder(EventDecoder[Click]):
    """Decoder of the `clicks` topic."""

    shape = Click

    def columns(self, batch: RecordBatch, *, latest_ms: int) -> ClickColumns:
        """Decode a batch; event times after `latest_ms` are refused."""
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
    if abs(quantity) > MAX_QUANTITY:
        return out_of_range("quantity", quantity, MAX_QUANTITY if quantity > 0 else -MAX_QUANTITY)
    if not math.isfinite(price):
        return out_of_range("unit_price", price, MAX_LINE_VALUE)
    return out_of_range("line value", abs(quantity) * price, MAX_LINE_VALUE)
