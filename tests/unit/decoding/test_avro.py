"""Avro records decode to the same events as JSON; unreadable ones are refused with a reason."""

import io
import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import fastavro
import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from stream.decoding.avro import RETRY_UNKNOWN_S, AvroFormat
from stream.decoding.columns import OrderColumns
from stream.decoding.events import OrderDecoder
from stream.errors import ServiceUnavailable, UnreadableEvent
from tests.support.batches import batch, order

NOW_MS = 1_700_000_000_000


def record(*fields: tuple[str, Any]) -> dict[str, Any]:
    """A record schema of these fields."""
    return {"type": "record", "name": "Line", "fields": [{"name": n, "type": t} for n, t in fields]}


MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
LOCAL = {"type": "long", "logicalType": "local-timestamp-millis"}
PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
CORE = (("event_id", "string"), ("ts", MILLIS), ("sku", "string"), ("quantity", "int"))
SCHEMAS: dict[int, Any] = {
    1: record(*CORE, ("unit_price", "double")),
    2: record(
        ("customer_id", ["null", "string"]), ("unit_price", "double"), *reversed(CORE),
        ("colour", {"type": "enum", "name": "Colour", "symbols": ["red", "blue"]}),
        ("location", ["null", "string"]),
    ),
    3: record(*CORE),
    4: record(*CORE[:3], ("quantity", "string"), ("unit_price", "double")),
    5: record(("event_id", "string"), ("ts", MICROS), *CORE[2:], ("unit_price", PRICE)),
    6: record(("event_id", "string"), ("ts", LOCAL), *CORE[2:], ("unit_price", "double")),
    7: record(*CORE[:2], ("sku", ["null", "string"]), CORE[3], ("unit_price", "double")),
    8: record(("event_id", "string"), ("ts", "string"), *CORE[2:], ("unit_price", "float")),
    9: "string",
}  # fmt: skip


class Schemas:
    """A registry of the schemas above; counts requests, the first of which may fail."""

    def __init__(self, *, failures: int = 0) -> None:
        self.requests: Counter[int] = Counter()
        self.failures = failures

    def fetch(self, schema_id: int) -> list[Any]:
        self.requests[schema_id] += 1
        if self.requests.total() <= self.failures:
            raise ServiceUnavailable("no answer")
        if schema_id not in SCHEMAS:
            raise UnreadableEvent("unknown_schema", f"schema {schema_id} does not exist")
        return [SCHEMAS[schema_id]]


def avro(schema_id: int, document: Any) -> bytes:
    """A document in the wire format."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(SCHEMAS[schema_id]), document)
    return b"\0" + schema_id.to_bytes(4) + body.getvalue()


FINE = avro(1, order("x", NOW_MS))


async def read(values: list[bytes | None], registry: Schemas | None = None) -> OrderColumns:
    """The columns of records under the key A."""
    source = AvroFormat(registry or Schemas())
    fetched = batch("orders", values, keys=[b"A"] * len(values))
    await source.prepare(fetched.records)
    return OrderDecoder(source=source).columns(fetched, latest_ms=NOW_MS)


async def test_avro_decodes_to_the_columns_of_json() -> None:
    """The same lines in both formats give the same columns, for any writer schema."""
    lines = [order(str(i), NOW_MS - i, quantity=i + 1, price=i / 4) for i in range(20)]
    expected = OrderDecoder().columns(batch("orders", lines), latest_ms=NOW_MS)
    more = {"customer_id": "c", "colour": "red", "location": None}
    got = await read(
        [avro(1, line) if i % 2 else avro(2, line | more) for i, line in enumerate(lines)]
    )

    assert not got.refused
    for name in ("position_N", "event_time_N", "quantity_N", "price_N"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    assert list(got.series_N) == list(expected.series_N)
    assert got.id_hash_N.tolist() == expected.id_hash_N.tolist()


async def test_a_nullable_union_is_an_optional_field() -> None:
    more = {"customer_id": None, "colour": "blue"}
    got = await read(
        [
            avro(2, order("1", NOW_MS) | more | {"location": "Berlin"}),
            avro(2, order("2", NOW_MS) | more | {"location": None}),
        ]
    )

    assert list(got.series_N) == ["A@Berlin", "A"]


async def test_every_notation_of_a_time_gives_the_same_event_time() -> None:
    """Logical milliseconds, microseconds, and RFC 3339 text; a price may be a decimal."""
    moment = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    got = await read(
        [
            avro(1, order("1", moment)),
            avro(5, order("2", moment) | {"unit_price": Decimal("2.50")}),
            avro(8, order("3", moment.isoformat())),
        ]
    )

    assert got.event_time_N.tolist() == [NOW_MS] * 3
    assert got.price_N.tolist() == [2.0, 2.5, 2.0]


BAD: list[tuple[str, bytes | None]] = [
    ("unknown_schema", b"\0" + (99).to_bytes(4) + FINE[5:]),
    ("malformed_avro", FINE[:-3]),
    ("malformed_avro", FINE[:5]),
    ("malformed_avro", FINE[:4]),
    ("malformed_avro", b""),
    ("malformed_avro", FINE + b"\0"),
    ("malformed_avro", b"\1" + FINE[1:]),
    ("malformed_avro", FINE[:5] + b"\x04\xff\xfe" + FINE[7:]),
    ("not_avro", json.dumps(order("x", NOW_MS)).encode()),
    ("missing_field", avro(3, order("x", NOW_MS))),
    ("wrong_type", avro(4, order("x", NOW_MS, quantity="two"))),
    ("wrong_type", avro(7, order("x", NOW_MS) | {"sku": None})),
    ("wrong_type", avro(9, "a line")),
    ("invalid_timestamp", avro(6, order("x", NOW_MS))),
    ("zero_quantity", avro(1, order("x", NOW_MS, quantity=0))),
    ("negative_price", avro(1, order("x", NOW_MS, price=-1.0))),
    ("out_of_range", avro(1, order("x", NOW_MS, price=float("nan")))),
    ("null_value", None),
]


@pytest.mark.parametrize(("reason", "value"), BAD)
async def test_a_bad_record_is_refused_with_its_reason_and_its_neighbours_are_kept(
    reason: str, value: bytes | None
) -> None:
    """One bad record between two good ones."""
    got = await read([avro(1, order("1", NOW_MS)), value, avro(1, order("2", NOW_MS))])

    assert got.id_hash_N.tolist() == [xxh3_64_intdigest(b"1"), xxh3_64_intdigest(b"2")]
    assert [(refused.position, refused.reason) for refused in got.refused] == [(1, reason)]
    assert got.refused[0].detail


async def test_ten_thousand_damaged_records_are_each_counted_or_refused() -> None:
    """Random bytes changed or cut: no other error is raised."""
    rng = np.random.default_rng(5)
    values: list[bytes | None] = []
    for _ in range(10_000):
        value = bytearray(FINE)
        for position in rng.integers(5, len(value), rng.integers(1, 4)):
            value[position] = rng.integers(256)
        values.append(bytes(value[: rng.integers(5, len(value) + 1)]))
    got = await read(values)

    assert len(got) + len(got.refused) == len(values)
    assert min(len(got), len(got.refused)) > 0


async def test_a_schema_is_fetched_once_and_an_unknown_one_again_after_a_while() -> None:
    now = [0.0]
    registry = Schemas()
    source = AvroFormat(registry, clock_s=lambda: now[0])
    records = batch("orders", [FINE, b"\0\0\0\0\x63x"], keys=[b"A", b"A"]).records
    for _ in range(3):
        await source.prepare(records)
    assert registry.requests == {1: 1, 0x63: 1}
    now[0] = RETRY_UNKNOWN_S + 1
    await source.prepare(records)

    assert registry.requests == {1: 1, 0x63: 2}


async def test_no_record_is_refused_while_the_registry_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The input waits until it answers."""
    monkeypatch.setattr("stream.decoding.avro.RETRY_S", 0.01)
    got = await read([FINE], Schemas(failures=3))

    assert (len(got), got.refused) == (1, [])


async def test_a_dead_letter_shows_readable_records_only() -> None:
    """A readable record becomes JSON, where people's ids are replaced; others are withheld."""
    source = AvroFormat(Schemas())
    line = order("x", NOW_MS, quantity=0) | {"customer_id": "alice-7", "colour": "red"}
    value = avro(2, line | {"location": None})
    await source.prepare(batch("orders", [value], keys=[b"A"]).records)
    whole, cut = source.readable(value), source.readable(value[:-2])

    assert json.loads(whole or b"")["customer_id"] == "alice-7"
    assert b"alice-7" not in (cut or b"")
    assert b"sha256" in (cut or b"")
    assert source.readable(None) is None


NULLS = {"type": "array", "items": "null"}
NODE = {"type": "record", "name": "Node", "fields": [{"name": "n", "type": ["null", "Node"]}]}
EMPTY = {"type": "record", "name": "Empty", "fields": []}


def _doubling(depth: int) -> dict[str, Any]:
    """A record of records of records: a value of 2^depth values that takes no bytes."""
    schema: Any = EMPTY
    for level in range(depth):
        fields = [{"name": "a", "type": schema}, {"name": "b", "type": schema["name"]}]
        schema = {"type": "record", "name": f"Level{level}", "fields": fields}
    return cast("dict[str, Any]", schema)


@pytest.mark.parametrize(
    "more", [NULLS, {"type": "array", "items": EMPTY}, NODE, {"type": "map", "values": NULLS},
             _doubling(30)],
    ids=["nulls", "empty records", "recursive", "in a map", "doubling"],
)  # fmt: skip
async def test_a_schema_without_bounds_is_not_used(more: Any) -> None:
    """A few bytes of it took gigabytes, or the process; the record is refused, unread."""

    class Unbounded(Schemas):
        def fetch(self, schema_id: int) -> list[Any]:
            return [record(*CORE, ("unit_price", "double"), ("more", more))]

    got = await read([b"\0\0\0\0\x09" + FINE[5:] + b"\xfe\xff\xff\xff\x0f\0"], Unbounded())

    assert [one.reason for one in got.refused] == ["unknown_schema"]
    assert "bounds" in got.refused[0].detail or "exceeds the limit" in got.refused[0].detail
