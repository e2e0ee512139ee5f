"""Documents become lines with stable ids; a refusal names the line and the reason."""

import json
from decimal import Decimal
from typing import Any

import pytest

from stream.decoding.events import OrderDecoder
from stream.privacy import Pseudonyms
from stream.router.documents import DocumentReader, Routed
from tests.support.batches import batch, order

NOW_MS = 1_700_000_000_000
PEOPLE = Pseudonyms(b"key")


def line(sku: str = "A", quantity: Any = 1, price: Any = 2.0, **more: Any) -> dict[str, Any]:
    return {"sku": sku, "quantity": quantity, "unit_price": price} | more


def document(*lines: Any, **more: Any) -> bytes:
    head = {"event_id": "e", "ts": NOW_MS, "order_id": 7, "customer_id": "c", "lines": list(lines)}
    return json.dumps(head | more).encode()


def read(value: bytes | None) -> Routed:
    [routed] = DocumentReader(people=PEOPLE, max_bytes=100_000).read([value])
    return routed


def test_each_line_becomes_an_order_line_under_its_sku_with_its_own_id() -> None:
    """The ingest decodes the lines, with the values of the document."""
    routed = read(
        document(line("A", 3), line("B", -1, location="Bonn"), line("A"), location="Kiel")
    )
    columns = OrderDecoder().columns(
        batch("orders", [v for _, v in routed.lines], keys=[k.encode() for k, _ in routed.lines]),
        latest_ms=NOW_MS,
    )

    assert not columns.refused
    assert routed.time_ms == NOW_MS
    assert [json.loads(value)["event_id"] for _, value in routed.lines] == ["e:0", "e:1", "e:2"]
    assert list(columns.series_N) == ["A@Kiel", "B@Bonn", "A@Kiel"]
    assert columns.quantity_N.tolist() == [3, -1, 1]
    assert {json.loads(value)["customer_id"] for _, value in routed.lines} == {PEOPLE.text("c")}


def test_the_same_document_gives_the_same_bytes() -> None:
    """Sent again after a crash, its lines are duplicates."""
    value = document(line("A"), line("B"))

    assert read(value).lines == read(value).lines


def test_a_line_under_another_key_keeps_its_id_and_the_fields_of_the_contract() -> None:
    """A document's other fields may describe a person."""
    plain = order("x", "2023-11-14T22:13:20Z", order_id="o-7")
    personal = {"customer_id": 13085, "email": "alice@shop.example", "currency": {"of": "alice"}}
    routed = read(json.dumps(plain | personal).encode())

    [(key, value)] = routed.lines
    assert key == "A"
    assert json.loads(value) == plain | {"customer_id": PEOPLE.text("13085")}
    assert routed.time_ms == NOW_MS


def test_nothing_of_a_person_is_passed_on() -> None:
    """Ids as pseudonyms, whatever is nested in a field not at all."""
    value = document(
        line("A", email="alice-7", currency=["alice-7"]), line("B", 0.5, note="alice-7"),
        customer_id="alice-7", order_id={"by": "alice-7"}, buyer={"name": "alice-7"},
    )  # fmt: skip
    routed = read(value)

    assert len(routed.lines) == len(routed.refused) == 1
    assert b"alice" not in routed.lines[0][1]
    assert "alice" not in routed.refused[0].detail


def test_without_pseudonyms_customers_are_left_out() -> None:
    [routed] = DocumentReader().read([document(line("A"))])

    assert "customer_id" not in json.loads(routed.lines[0][1])


def test_a_bad_line_is_refused_with_its_index_and_the_others_are_routed() -> None:
    """Ids count bad lines too: in a corrected document the good lines are duplicates."""
    missing = {"sku": "C", "unit_price": 1}
    routed = read(document(line("A"), line("B", "two"), missing, 5, line("D")))

    assert [(refused.reason, refused.detail.partition(":")[0]) for refused in routed.refused] == [
        ("wrong_type", "lines[1]"), ("missing_field", "lines[2]"), ("wrong_type", "lines[3]"),
    ]  # fmt: skip
    assert [json.loads(value)["event_id"] for _, value in routed.lines] == ["e:0", "e:4"]


@pytest.mark.parametrize(
    ("reason", "value"),
    [
        ("null_value", None),
        ("malformed_json", b""),
        ("malformed_json", document(line())[:-5]),
        ("malformed_json", b"\xff"),
        ("wrong_type", b"[1]"),
        ("wrong_type", document(line(), event_id=5)),
        ("wrong_type", document(line(), lines="A")),
        ("missing_field", b'{"ts": 1, "lines": []}'),
        ("missing_field", b'{"ts": 1, "event_id": "e"}'),
        ("missing_event_id", document(line(), event_id="")),
        ("missing_event_id", document(line(), 5, event_id="")),
        ("no_lines", document()),
        ("invalid_timestamp", document(line(), ts="yesterday")),
        ("invalid_timestamp", document(line(), 5, ts="yesterday")),
        ("too_large", b'{"x": "' + b"y" * 100_000 + b'"}'),
    ],
)
def test_a_bad_document_is_refused_as_a_whole(reason: str, value: bytes | None) -> None:
    routed = read(value)

    assert routed.lines == []
    assert reason in [refused.reason for refused in routed.refused]
    assert all(refused.detail for refused in routed.refused)


def test_prices_keep_their_value() -> None:
    """A routed price is the same number, to the last bit."""
    for price in (0.1, 1e-7, 12_345.67, 0.0):
        [(_, value)] = read(document(line(price=price))).lines
        assert json.loads(value, parse_float=Decimal)["unit_price"] == Decimal(str(price))


@pytest.mark.parametrize(
    "value",
    [
        b'{"lines": ' + b"[" * 1_000,
        b'{"event_id": "e", "ts": 5, "order_id": ' + b"[" * 1_000 + b"]" * 1_000 + b"}",
        document(line(), order_id=json.loads("[" * 400 + "]" * 400)),
        b'{"event_id": "e", "ts": 5, "lines": [' + b'{"a":' * 2_000 + b"1" + b"}" * 2_000 + b"]}",
    ],
)
def test_a_deeply_nested_document_is_read_or_refused(value: bytes) -> None:
    """It used to stop the router for good."""
    routed = read(value)

    assert routed.lines or [one.reason for one in routed.refused] == ["malformed_json"]
