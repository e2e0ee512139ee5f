"""Readings of the stock, from the bytes of a fetched batch to columns; the bad are refused.

The counterpart of `stream/decoding/events.py` for the topic `inventory`, with the same rules and
reasons. A reading says what lies on the shelf at a moment; it has no id, since reading it twice
changes nothing. A tombstone says nothing of any moment, so the last reading stays.

Axes: N = readings of the batch, in log order.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS
from stream.decoding.fields import event_time_ms
from stream.decoding.input_decoder import InputDecoder
from stream.decoding.refusals import UNREADABLE, Refused, refusal
from stream.decoding.schemas import StockReading
from stream.errors import UnreadableEvent
from stream.kafka.record_batch import RecordBatch

Ints = NDArray[np.int64]

#: More units than this on hand or on order, or days of lead time, are a mistake.
MAX_UNITS = 10**9
MAX_LEAD_DAYS = 3_660
#: What a reading does not tell.
UNKNOWN = -1


@dataclass(slots=True)
class InventoryColumns:
    """Readings of a batch as columns, and the refused ones.

    `position_N` is each reading's place in the batch; units on hand and on order, lead time in ms,
    the latter two `UNKNOWN` where the reading does not say. `tombstones` had no value.
    """

    position_N: Ints
    event_time_N: Ints
    series_N: list[str]
    on_hand_N: Ints
    on_order_N: Ints
    lead_time_N: Ints
    refused: list[Refused]
    tombstones: int = 0

    def __len__(self) -> int:
        return len(self.series_N)


class InventoryDecoder(InputDecoder[StockReading]):
    """Decoder of the `inventory` topic; a key it has verified costs a lookup from then on."""

    shape = StockReading

    def columns(self, batch: RecordBatch, *, latest_ms: int) -> InventoryColumns:
        """Decode a batch; `latest_ms` is the newest event time that can be true."""
        rows: list[tuple[int, int, int, int, int]] = []
        names: list[str] = []
        refused: list[Refused] = []
        tombstones = 0
        for position, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            if value is None:
                tombstones += 1
                continue
            try:
                reading = self._read_one(value)
                time_ms = event_time_ms(reading.ts, latest_ms)
                row = (position, time_ms, *_amounts(reading))
                names.append(self._series(key, reading))
                rows.append(row)
            except UNREADABLE as error:
                refused.append(refusal(position, error))
        columns = np.array(rows, np.int64).reshape(-1, 5).T
        return InventoryColumns(
            columns[0], columns[1], names, columns[2], columns[3], columns[4], refused, tombstones
        )

    def _series(self, key: bytes | None, reading: StockReading) -> str:
        triple = (key, reading.sku, reading.location)
        name = self._known.get(triple)
        if name is None:
            name = self._known[triple] = self._name(triple)
        return name


def _amounts(reading: StockReading) -> tuple[int, int, int]:
    """Units on hand and on order, and the lead time in ms.

    >>> _amounts(StockReading("A", 0, on_hand=3, lead_time_days=1.5))
    (3, -1, 129600000)
    """
    on_order = UNKNOWN
    if reading.on_order is not None:
        on_order = _units("on_order", reading.on_order)
    lead_time = UNKNOWN
    if reading.lead_time_days is not None:
        days = reading.lead_time_days
        if not (math.isfinite(days) and 0 <= days <= MAX_LEAD_DAYS):
            raise UnreadableEvent("out_of_range", f"lead_time_days {days} is beyond belief")
        lead_time = round(days * DAY_MS)
    return _units("on_hand", reading.on_hand), on_order, lead_time


def _units(name: str, units: int) -> int:
    if units < 0:
        raise UnreadableEvent("negative_stock", f"{name} {units} is negative")
    if units > MAX_UNITS:
        raise UnreadableEvent("out_of_range", f"{name} {units} is beyond belief")
    return units
