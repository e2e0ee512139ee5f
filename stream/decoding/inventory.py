"""Decoder of the topic `inventory`: a fetched batch to stock readings as columns and refusals.

A reading is the stock at one time; it has no id, since a duplicate changes nothing. A tombstone has
no time, so the last reading remains valid.

Axes: N = readings of the batch, in log order.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS
from stream.decoding.fields import event_time_ms, out_of_range
from stream.decoding.input_decoder import InputDecoder
from stream.decoding.refusals import UNREADABLE, Refused, refusal
from stream.decoding.schemas import StockReading
from stream.errors import UnreadableEvent
from stream.kafka.reading.record_batch import RecordBatch

Ints = NDArray[np.int64]

#: Greatest units on hand or on order, and greatest lead time.
MAX_UNITS = 10**9
MAX_LEAD_DAYS = 3_660
#: Stands for a value that the reading does not have.
UNKNOWN = -1


@dataclass(slots=True)
class InventoryColumns:
    """Readings of a batch as columns, and the refused records.

    `position_N` is a reading's position in the batch. Units on hand and on order, lead time in ms;
    the latter two may be `UNKNOWN`. `tombstones` is the number of records without a value.
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
    """Decoder of the `inventory` topic; checks each key, SKU and location only once."""

    shape = StockReading

    def columns(self, batch: RecordBatch, *, latest_ms: int) -> InventoryColumns:
        """Decode a batch; event times after `latest_ms` are refused."""
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
        name = self._verified.get(triple)
        if name is None:
            name = self._verified[triple] = self._series_id(triple)
        return name


def _amounts(reading: StockReading) -> tuple[int, int, int]:
    """Return units on hand and on order, and the lead time in ms.

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
            raise UnreadableEvent(
                "out_of_range", f"lead_time_days {days} is not between 0 and {MAX_LEAD_DAYS}"
            )
        lead_time = round(days * DAY_MS)
    return _units("on_hand", reading.on_hand), on_order, lead_time


def _units(name: str, units: int) -> int:
    if units < 0:
        raise UnreadableEvent("negative_stock", f"{name} {units} is negative")
    if units > MAX_UNITS:
        raise out_of_range(name, units, MAX_UNITS)
    return units
