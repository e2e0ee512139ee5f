"""Plans: what is known of the future, from the topic `plans` to one table a partition.

A plan is keyed by its id, so it may arrive at any partition; each partition keeps those it has
read, in the store, and every worker reads the tables of all (`stream/serving/stored_plans.py`). The
newest record of an id holds; a tombstone withdraws it. Which series a plan is for is said in
`stream/serving/plan_blocks.py`.
"""

import math
from dataclasses import dataclass, field
from typing import Final, Literal, cast

import msgspec

from stream.decoding.fields import MAX_NAME, series_id, timestamp_ms
from stream.decoding.input_decoder import InputDecoder, require_key, require_same
from stream.decoding.refusals import UNREADABLE, Refused, refusal
from stream.decoding.schemas import PlanRecord
from stream.errors import UnreadableEvent
from stream.kafka.record_batch import RecordBatch

Kind = Literal["promotion", "price", "closure", "event"]

KINDS: Final = ("promotion", "price", "closure", "event")
#: A price above this is a mistake.
MAX_PRICE: Final = 10**7


class Plan(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A plan in ``[start_ms, end_ms)``; `value` is a discount share, a new price, or 0.

    Without `sku` and `category` it is for everything; with `location`, there only.
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
class Announced:
    """What a batch says of plans, in log order: `taken` holds (plan id, plan or None).

    None is a withdrawal.
    """

    taken: list[tuple[str, Plan | None]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


class PlanDecoder(InputDecoder[PlanRecord]):
    """Decoder of the `plans` topic."""

    shape = PlanRecord

    def read(self, batch: RecordBatch) -> Announced:
        """Decode a batch."""
        announced = Announced()
        for position, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            try:
                named = require_key(key, "plan_id")
                plan = None if value is None else self._plan(named, value)
                announced.taken.append((named.decode(), plan))
            except UNREADABLE as error:
                announced.refused.append(refusal(position, error))
        return announced

    def _plan(self, key: bytes, value: bytes) -> Plan:
        record = self._read_one(value)
        if not record.plan_id:
            raise UnreadableEvent("missing_plan_id", "plan_id is empty")
        require_same(key, record.plan_id, "plan_id")
        self._require_location(record.location)
        return checked(record)


def checked(record: PlanRecord) -> Plan:
    """The plan a record announces. Raises UnreadableEvent for one that makes no sense.

    >>> checked(PlanRecord("p", "promotion", 0, 3_600_000, sku="A", value=0.3)).value
    0.3
    >>> checked(PlanRecord("p", "promotion", 5, 5, sku="A", value=0.3))
    Traceback (most recent call last):
        ...
    stream.errors.UnreadableEvent: invalid_span: end 5 is not after start 5
    """
    if record.kind not in KINDS:
        raise UnreadableEvent(
            "unknown_kind", f"kind {record.kind[:60]!r} is none of {', '.join(KINDS)}"
        )
    start_ms, end_ms = timestamp_ms(record.start), timestamp_ms(record.end)
    if not 0 <= start_ms < 2**53 or end_ms >= 2**53:
        raise UnreadableEvent("invalid_timestamp", f"{start_ms} to {end_ms} is beyond the calendar")
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
    """Raise UnreadableEvent for names that no series or category can have."""
    if record.sku is not None and record.category is not None:
        raise UnreadableEvent("ambiguous_scope", "a plan is for a sku or for a category, not both")
    if record.sku is not None or record.location is not None:
        series_id("any" if record.sku is None else record.sku, record.location)
    category = record.category
    if category is not None and not (0 < len(category) <= MAX_NAME):
        raise UnreadableEvent("invalid_category", f"category {category[:60]!r} cannot be used")


def _value(record: PlanRecord) -> float:
    value = record.value
    if record.kind in ("closure", "event"):
        if value is not None:
            raise UnreadableEvent("unexpected_value", f"a plan of kind {record.kind} has no value")
        return 0.0
    if value is None:
        raise UnreadableEvent("missing_field", f"a plan of kind {record.kind} needs a value")
    most = 1.0 if record.kind == "promotion" else MAX_PRICE
    if not (math.isfinite(value) and 0 < value <= most):
        raise UnreadableEvent(
            "out_of_range", f"value {value} of a {record.kind} must lie in (0, {most:g}]"
        )
    return value
