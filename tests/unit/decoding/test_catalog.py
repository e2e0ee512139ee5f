"""The catalog: refused entries, the listing of a SKU, and its stored form."""

import io
from typing import Any

import fastavro
import pytest

from model.durations import DAY_MS
from stream.decoding.avro import AvroFormat
from stream.decoding.catalog import MAX_AHEAD_MS, CatalogDecoder, Listing
from stream.ingest.restore import restore
from stream.partition.partition import Partition
from stream.settings import WindowSettings
from tests.support.batches import batch
from tests.support.memory_store import MemoryStore

NOW_MS = 1_700_000_000_000
WINDOW = WindowSettings()


def entry(**changes: Any) -> dict[str, Any]:
    """A valid entry with some fields changed; ``...`` removes a field."""
    plain = {"sku": "A", "category": "bags", "brand": "Acme", "price": 2.5, "launched_at": NOW_MS}
    return {name: value for name, value in (plain | changes).items() if value is not ...}


def read(*values: Any, keys: list[Any] | None = None) -> tuple[list[Any], list[str]]:
    """The accepted entries of a batch, and the reasons of the refused ones."""
    listed = CatalogDecoder().read(batch("catalog", list(values), keys=keys), now_ms=NOW_MS)
    return listed.accepted, [one.reason for one in listed.refused]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"category": "bags\x00"}, "invalid_category"),
        ({"brand": "Ac\u202eme"}, "invalid_brand"),
        ({"price": -0.01}, "negative_price"),
        ({"price": 1e11}, "out_of_range"),
        ({"price": "2.5"}, "wrong_type"),
        ({"launched_at": "yesterday"}, "invalid_timestamp"),
        ({"launched_at": "2023-11-01T00:00:00"}, "invalid_timestamp"),
        ({"launched_at": -1}, "future_timestamp"),
        ({"launched_at": NOW_MS + 10 * 366 * DAY_MS}, "future_timestamp"),
        ({"launched_at": NOW_MS + MAX_AHEAD_MS + 1}, "future_timestamp"),
        ({"brand": "x" * 201}, "invalid_brand"),
        ({"category": "x" * 201}, "invalid_category"),
        ({"brand": 7}, "wrong_type"),
        ({"sku": ""}, "invalid_sku"),
        ({"sku": "total"}, "invalid_sku"),
        ({"sku": ...}, "missing_field"),
    ],
)
def test_an_invalid_entry_is_refused_and_its_neighbours_are_accepted(
    bad: dict[str, Any], reason: str
) -> None:
    last = entry(sku="B", launched_at=NOW_MS + MAX_AHEAD_MS, brand=None, price=0)
    taken, reasons = read(entry(), entry(**bad), None, last)

    assert reasons == [reason]
    assert taken == [
        ("A", "bags", Listing("Acme", 2.5, NOW_MS)),
        ("B", "bags", Listing(None, 0.0, NOW_MS + MAX_AHEAD_MS)),
    ]


def test_a_key_that_is_not_the_sku_is_refused() -> None:
    """The entry is in a partition that does not own the SKU."""
    taken, reasons = read(entry(), entry(), entry(), keys=[b"B", None, b"A"])

    assert reasons == ["key_mismatch", "null_key"]
    assert len(taken) == 1


class _Registry:
    """Two writer schemas: times in ms or in µs, all but the SKU optional."""

    def __init__(self) -> None:
        def of(launched: str) -> dict[str, Any]:
            kinds = {
                "category": "string", "brand": "string", "price": "double",
                "launched_at": {"type": "long", "logicalType": launched},
            }  # fmt: skip
            optional = [{"name": name, "type": ["null", kind]} for name, kind in kinds.items()]
            fields = [{"name": "sku", "type": "string"}, *optional]
            return {"type": "record", "name": "Entry", "fields": fields}

        self.schemas = {1: of("timestamp-millis"), 2: of("timestamp-micros")}

    def fetch(self, schema_id: int) -> list[Any]:
        return [self.schemas[schema_id]]

    def write(self, schema_id: int, document: dict[str, Any]) -> bytes:
        payload = io.BytesIO()
        fastavro.schemaless_writer(payload, self.schemas[schema_id], document)
        return b"\0" + schema_id.to_bytes(4) + payload.getvalue()


@pytest.mark.parametrize(("schema_id", "scale"), [(1, 1), (2, 1_000)])
async def test_avro_entries_decode_as_json_does(schema_id: int, scale: int) -> None:
    registry = _Registry()
    source = AvroFormat(registry)
    entries = [
        entry(launched_at=scale * NOW_MS),
        entry(category=None, brand=None, price=None, launched_at=None),
        entry(price=float("nan"), launched_at=None),
        entry(price=float("inf"), launched_at=None),
    ]
    values = [registry.write(schema_id, document) for document in entries]
    records = batch("catalog", values, keys=[b"A"] * len(values))
    await source.prepare(records)
    listed = CatalogDecoder(source=source).read(records, now_ms=NOW_MS)

    assert listed.accepted == [
        ("A", "bags", Listing("Acme", 2.5, NOW_MS)), ("A", None, Listing())
    ]  # fmt: skip
    assert [one.reason for one in listed.refused] == ["out_of_range"] * 2


async def _flushed(store: MemoryStore, partition: Partition, token: int) -> None:
    plan, _ = partition.state.take_write()
    await store.apply(partition.state.number, token, plan)


async def test_a_later_entry_replaces_its_fields_and_a_restored_partition_has_them() -> None:
    store = MemoryStore()
    token = await store.acquire(0)
    partition = Partition(0, WINDOW, retention_ms=10**9)
    partition.list_product("A", "bags", Listing("Acme", 2.5))
    partition.list_product("B", "bags", Listing())
    partition.list_product("C", None, Listing(price=0.0))
    await _flushed(store, partition, token)
    partition.list_product("A", "toys", Listing(price=3.0, launched_ms=7))
    partition.list_product("A", None, Listing("Other"))
    partition.list_product("C", None, Listing(price=0.0))
    plan, _ = partition.state.take_write()
    await store.apply(0, token, plan)
    successor = await restore(store, 0, WINDOW, retention_ms=10**9)

    assert plan.fields[("listings",)] == {"A": '["Other",3.0,7]'}
    assert successor.state.listings == {"A": Listing("Other", 3.0, 7), "C": Listing(price=0.0)}
    assert successor.state.series.category_of == {"A": "toys", "B": "bags"}
    assert not successor.state.take_write()[0].fields


def test_a_category_alone_stores_no_listing() -> None:
    partition = Partition(0, WINDOW, retention_ms=10**9)
    partition.list_product("A", "bags", Listing())
    plan, _ = partition.state.take_write()

    assert plan.fields == {("categories",): {"A": "bags"}}


def test_a_partition_is_untouched_until_its_first_event() -> None:
    """Only an untouched one may adopt the newest watermark while all inputs are idle."""
    partition = Partition(0, WINDOW, retention_ms=10**9)
    assert partition.untouched
    partition.list_product("A", "bags", Listing(), begin=True)
    partition.list_product("A", "bags", Listing(price=1.0), begin=True)
    assert (partition.state.series.ids, partition.state.listed, partition.untouched) == (
        ["A"],
        1,
        True,
    )
    partition.state.watermarks["orders"].newest_ms = 5
    assert not partition.untouched


def test_a_product_with_a_series_at_a_location_gets_none_without_location() -> None:
    partition = Partition(0, WINDOW, retention_ms=10**9)
    partition.state.series.slots(["A@Berlin"])
    partition.list_product("A", "bags", Listing(), begin=True)

    assert (partition.state.series.ids, partition.state.listed, partition.untouched) == (
        ["A@Berlin"],
        0,
        False,
    )
    assert partition.state.listings == {}
