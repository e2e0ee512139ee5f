"""Turns order documents and order lines under any key into order lines under their SKU. Pure.

A document has `lines[]`; each line becomes a record of the topic `orders` with the id
``{event_id}:{index in lines}``, counted from 0. A record without `lines` is an order line already
and keeps its id. The ids depend on the document alone, so lines that are sent twice are duplicates.

Only the fields of the contract are passed on, and customers' ids as pseudonyms: what else a
document says of a person stays in the source.

Unreadable input is refused: the whole document if its head is unreadable, a single line if only
that line is. The ingest decides whether a line is valid.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stream.decoding.fields import timestamp_ms
from stream.decoding.formats import Format, JsonFormat
from stream.decoding.input_decoder import require_value
from stream.decoding.refusals import UNREADABLE, Refused, refusal, unreadable
from stream.errors import UnreadableEvent
from stream.privacy import Pseudonyms


class Line(msgspec.Struct, gc=False):
    """One line of an order document."""

    sku: str
    quantity: int
    unit_price: float
    location: str | None = None
    currency: Any = None


class _Head(msgspec.Struct, gc=False, omit_defaults=True):
    """Fields that lines inherit from their document."""

    event_id: str
    ts: int | str
    order_id: Any = None
    customer_id: Any = None
    location: str | None = None
    currency: Any = None


class Document(_Head, omit_defaults=True):
    """An order document, or, without `lines`, an order line with its own SKU."""

    lines: list[Line] | None = None
    sku: str | None = None


class _LooseDocument(_Head, omit_defaults=True):
    """A document with undecoded lines, to find the faulty ones."""

    lines: list[Any] | None = None
    sku: str | None = None


class OrderLine(msgspec.Struct, gc=False, omit_defaults=True):
    """A record of the topic `orders`."""

    event_id: str
    ts: int | str
    sku: str
    quantity: int
    unit_price: float
    order_id: Any = None
    customer_id: Any = None
    location: str | None = None
    currency: Any = None


@dataclass(slots=True)
class Routed:
    """Result of one record: position in the batch, event time, lines with their SKU, refusals.

    `time_ms` is None if the event time is unreadable.
    """

    position: int
    time_ms: int | None = None
    lines: list[tuple[str, bytes]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


class DocumentReader:
    """Reads the records of the source; values longer than `max_bytes` are refused.

    Without `people` customers' ids are left out.

    >>> line = b'{"sku": "A", "quantity": 1, "unit_price": 2}'
    >>> value = b'{"event_id": "7", "ts": 5, "lines": [' + line + b"]}"
    >>> [routed] = DocumentReader().read([value])
    >>> routed.lines[0][0], msgspec.json.decode(routed.lines[0][1])["event_id"]
    ('A', '7:0')
    """

    def __init__(
        self,
        source: Format | None = None,
        *,
        people: Pseudonyms | None = None,
        max_bytes: int = 900_000,
    ) -> None:
        self._people = people
        source = source or JsonFormat()
        self._decode: Callable[[bytes], Document] = source.decoder(Document)
        self._decode_loose: Callable[[bytes], _LooseDocument] = source.decoder(_LooseDocument)
        self._decode_line: Callable[[bytes], OrderLine] = source.decoder(OrderLine)
        self._max_bytes = max_bytes
        self._encode = msgspec.json.Encoder().encode

    def read(self, values: Sequence[bytes | None]) -> list[Routed]:
        """Route each record; results are in the order of the records."""
        return [self._route(position, value) for position, value in enumerate(values)]

    def _route(self, position: int, value: bytes | None) -> Routed:
        routed = Routed(position)
        try:
            value = require_value(value, max_bytes=self._max_bytes)
            try:
                document = self._decode(value)
            except (msgspec.ValidationError, UnreadableEvent):
                self._route_faulty(routed, value)
            else:
                self._explode(routed, document, value)
        except (*UNREADABLE, OverflowError) as error:
            routed.lines = []
            routed.refused.append(refusal(position, error))
        return routed

    def _explode(self, routed: Routed, document: Document, value: bytes) -> None:
        routed.time_ms = timestamp_ms(document.ts)
        if document.lines is None:
            if document.sku is None:
                raise UnreadableEvent("missing_field", "neither `lines` nor `sku`")
            line = self._decode_line(value)
            line.order_id, line.currency = _scalar(line.order_id), _scalar(line.currency)
            line.customer_id = self._pseudonym(line.customer_id)
            routed.lines.append((line.sku, self._encode(line)))
            return
        if not document.event_id:
            raise UnreadableEvent("missing_event_id", "event_id is empty")
        if not document.lines:
            raise UnreadableEvent("no_lines", "`lines` is empty")
        routed.lines += self._lines(document, enumerate(document.lines))

    def _lines(
        self, head: _Head, lines: "enumerate[Line] | list[tuple[int, Line]]"
    ) -> Iterator[tuple[str, bytes]]:
        encode = self._encode
        event_id, ts, order_id = head.event_id, head.ts, _scalar(head.order_id)
        customer_id = self._pseudonym(head.customer_id)
        for index, line in lines:
            yield line.sku, encode(
                OrderLine(
                    f"{event_id}:{index}", ts, line.sku, line.quantity, line.unit_price,
                    order_id, customer_id,
                    head.location if line.location is None else line.location,
                    _scalar(head.currency if line.currency is None else line.currency),
                )
            )  # fmt: skip

    def _pseudonym(self, customer_id: Any) -> str | None:
        if customer_id is None or self._people is None:
            return None
        return self._people.text(str(customer_id))

    def _route_faulty(self, routed: Routed, value: bytes) -> None:
        """Route the good lines of a faulty document, and refuse each bad one with its index.

        Raises the error of the whole document if no single line is at fault.
        """
        document = self._decode_loose(value)
        routed.time_ms = timestamp_ms(document.ts)
        good: list[tuple[int, Line]] = []
        for index, raw in enumerate(document.lines or ()):
            try:
                good.append((index, msgspec.convert(raw, Line)))
            except msgspec.ValidationError as error:
                fault = unreadable(error)
                detail = f"lines[{index}]: {fault.detail}"
                routed.refused.append(Refused(routed.position, fault.reason, detail))
        if not routed.refused:  # the fault is not in a line
            self._decode(value)
        if not document.event_id:
            raise UnreadableEvent("missing_event_id", "event_id is empty")
        routed.lines += self._lines(document, good)


def _scalar(value: Any) -> Any:
    """Return a text or number; None for anything nested, which may describe a person.

    >>> _scalar(7), _scalar({"email": "a@b.c"})
    (7, None)
    """
    return value if isinstance(value, str | int | float) else None
