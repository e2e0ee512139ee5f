"""Decoder of the topic `plans`: announced promotions, prices, closures and events.

A plan is keyed by its id, so it may arrive at any partition; each partition stores its plans, and
every worker reads those of all partitions. The newest record of an id replaces earlier ones; a
tombstone withdraws the plan.
"""

import math
from dataclasses import dataclass, field
from typing import Final, Literal, cast

import msgspec

from stream.decoding.fields import MAX_NAME, require_name, series_id, timestamp_ms
from stream.decoding.input_decoder import InputDecoder, require_key, require_same
from stream.decoding.refusals import UNREADABLE, Refused, refusal
from stream.decoding.schemas import PlanRecord
from stream.errors import UnreadableEvent
from stream.kafka.reading.record_batch import RecordBatch

Kind = Literal["promotion", "price", "closure", "event"]

KINDS: Final = ("promotion", "price", "closure", "event")
#: Greatest price of a plan.
MAX_PRICE: Final = 10**7


class Plan(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A plan in ``[start_ms, end_ms)``; `value` is a discount share, a new price, or 0.

    It applies to a `sku`, a `category` or, without both, to all; with `location`, only there.
    """

    plan_id: str
    kind: Kind
    start_ms: int
    end_ms: int
    sku: str | None = None
    category: str | None = None
    location: str | None = None
    value: float = 0.0


@dataclass(slots=True)
class PlanBatch:
    """Plans of a batch in log order: `accepted` holds (plan id, plan or None if withdrawn)."""

    accepted: list[tuple[str, Plan | None]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


class PlanDecoder(InputDecoder[PlanRecord]):
    """Decoder of the `plans` topic."""

    shape = PlanRecord

    def read(self, batch: RecordBatch) -> PlanBatch:
        """Decode a batch."""
        decoded = PlanBatch()
        for position, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            try:
                plan_id = require_key(key, "plan_id")
                plan = None if value is None else self._plan(plan_id, value)
                decoded.accepted.append((plan_id.decode(), plan))
            except UNREADABLE as error:
                decoded.refused.append(refusal(position, error))
        return decoded

    def _plan(self, key: bytes, value: bytes) -> Plan:
        record = self._read_one(value)
        if not record.plan_id:
            raise UnreadableEvent("missing_plan_id", "plan_id is empty")
        require_name("plan_id", record.plan_id)
        require_same(key, record.plan_id, "plan_id")
        self._require_location(record.location)
        return validate_plan(record)


def validate_plan(record: PlanRecord) -> Plan:
    """Return the plan of a record. Raises UnreadableEvent for an invalid value.

    >>> validate_plan(PlanRecord("p", "promotion", 0, 3_600_000, sku="A", value=0.3)).value
    0.3
    >>> validate_plan(PlanRecord("p", "promotion", 5, 5, sku="A", value=0.3))
    Traceback (most recent call last):
        ...
    stream.errors.UnreadableEvent: invalid_span: end 5 is not after start 5
    """
    if record.kind not in KINDS:
        raise UnreadableEvent(
            "unknown_kind", f"kind {record.kind[:60]!r} is not one of {', '.join(KINDS)}"
        )
    start_ms, end_ms = timestamp_ms(record.start), timestamp_ms(record.end)
    if not 0 <= start_ms < 2**53 or end_ms >= 2**53:
        raise UnreadableEvent(
            "invalid_timestamp",
            f"start {start_ms} or end {end_ms} is not between 0 and {2**53 - 1}",
        )
    if end_ms <= start_ms:
        raise UnreadableEvent("invalid_span", f"end {record.end} is not after start {record.start}")
    _require_scope(record)
    return Plan(
        plan_id=record.plan_id,
        kind=cast("Kind", record.kind),
        start_ms=start_ms,
        end_ms=end_ms,
        sku=record.sku,
        category=record.category,
        location=record.location,
        value=_value(record),
    )


def _require_scope(record: PlanRecord) -> None:
    """Raise UnreadableEvent for an ambiguous scope or an invalid name."""
    if record.sku is not None and record.category is not None:
        raise UnreadableEvent(
            "ambiguous_scope",
            f"a plan has a sku or a category, not both: {record.sku[:60]!r} and "
            f"{record.category[:60]!r}",
        )
    if record.sku is not None or record.location is not None:
        series_id("any" if record.sku is None else record.sku, record.location)
    category = record.category
    if category is not None and not (0 < len(category) <= MAX_NAME):
        raise UnreadableEvent(
            "invalid_category",
            f"category {category[:60]!r} has {len(category)} characters, "
            f"not between 1 and {MAX_NAME}",
        )
    if category is not None:
        require_name("category", category)


def _value(record: PlanRecord) -> float:
    value = record.value
    if record.kind in ("closure", "event"):
        if value is not None:
            raise UnreadableEvent(
                "unexpected_value", f"a plan of kind {record.kind} takes no value, not {value}"
            )
        return 0.0
    if value is None:
        raise UnreadableEvent("missing_field", f"a plan of kind {record.kind} needs a value")
    limit = 1.0 if record.kind == "promotion" else MAX_PRICE
    if not (math.isfinite(value) and 0 < value <= limit):
        raise UnreadableEvent(
            "out_of_range", f"value {value} of a {record.kind} is not in (0, {limit:g}]"
        )
    return value
