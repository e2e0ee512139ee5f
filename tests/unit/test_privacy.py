"""People's ids never leave in the clear."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.decoding.refusals import Refused, refusal
from stream.decoding.schemas import Click
from stream.privacy import Pseudonyms
from stream.sinks.redaction import redacted, redacted_detail
from stream.sinks.topic_records import MAX_RAW_CHARS, dead_letter

PEOPLE = Pseudonyms(b"key")
ALICE = PEOPLE.text("alice-7")


def letter_of(raw: bytes | None, detail: str = "quantity is 0") -> str:
    """The dead letter of a record."""
    letter = dead_letter(
        Refused(0, "zero_quantity", detail),
        raw, topic="orders", partition=2, offset=7, received_ms=1, pseudonyms=PEOPLE,
    )  # fmt: skip
    return letter.decode()


@pytest.mark.parametrize(
    "raw",
    [
        b'{"customer_id": "alice-7", "quantity": 0}',
        b'{"visitor_id":"alice-7","nested":{"customer_id":"alice-7"}}',
        b'{"lines":[{"customer_id":"alice-7"}]}',
        b'{"lines":[{"sku":"A","buyer":{"alice-7":1}}], "lines": "alice-7"}',
        b'{"customerId":"alice-7","Customer-ID":"alice-7","kunde":"alice-7"}',
        b'{"email":"alice-7@shop.example","sku":"alice-7@shop.example"}',
        b'{"alice": "alice-7", "buyer": ["alice-7", {"x": ["alice-7"]}]}',
        b'{"quantity": "alice-7", "ts": "alice-7", "action": "alice-7", "unit_price": ["alice-7"]}',
        b'{"customer_id": "alice-7", "quantity": ',
        b'{"customer_id": "alice-7',
        b'{"customerId": "alice-7',
        b"{'customer_id': 'alice-7'}",
        b'{"customer_id": alice-7}',
        b'{"customer\\u005fid": "alice-7"}',
        b'{"customer\\u005fid": "alice-7"',
        b'{"customer_id": "alice-7"} trailing',
        b'{"sku": "A", "": "alice-7"',
        b'{"sku": "A" "alice-7"}',
        b'{"sku": {"alice-7": "alice-7"',
        b'{"alice-7": 1',
        b"event_id,ts,customer_id\n1,2,alice-7",
        b'"alice-7"',
        b'["alice-7"]',
        b"alice-7",
        b'{"customer_id": "alice-7", "x": "\\ud800"}',
        b'{"customer_id": "alice-7", "x": NaN}',
        b'\xff{"customer_id": "alice-7"}',
        b'{"x":' + b"[" * 5_000 + b'"alice-7"' + b"]" * 5_000 + b"}",
    ],
)
def test_a_dead_letter_contains_no_id_of_a_person(raw: bytes) -> None:
    """Whatever the field is called, valid or not: the id is replaced."""
    letter = letter_of(raw)

    assert "alice" not in letter
    document = json.loads(letter)
    assert (document["topic"], document["partition"], document["offset"]) == ("orders", 2, 7)
    assert document["reason"] == "zero_quantity"


@pytest.mark.parametrize("closing", ["}", ""])
def test_what_the_contract_defines_is_kept(closing: str) -> None:
    """Of a record that is cut off as well: an operator must see what was wrong with it."""
    fields = {
        "event_id": "e-1", "ts": "2025-03-01T08:00:00Z", "sku": "85123A", "quantity": 0,
        "unit_price": 2.5, "order_id": 536365, "location": "Bonn", "currency": "EUR",
        "action": "view",
    }  # fmt: skip
    text = json.dumps(fields | {"customer_id": "alice-7"})
    redacted_text = redacted(text[:-1] + closing, PEOPLE)

    assert json.loads(redacted_text if closing else redacted_text + "}") == fields | {
        "customer_id": ALICE
    }


def test_lines_of_a_document_are_kept() -> None:
    value = {"event_id": "7", "lines": [{"sku": "A", "quantity": 0.5, "name": "alice-7"}]}

    assert json.loads(redacted(json.dumps(value), PEOPLE)) == {
        "event_id": "7", "lines": [{"sku": "A", "quantity": 0.5, PEOPLE.text("name"): ALICE}],
    }  # fmt: skip


def test_what_is_nested_is_counted() -> None:
    value = {"sku": {"name": "a", "mail": "b"}, "ts": [1], "price": True, "customer_id": None}

    assert json.loads(redacted(json.dumps(value), PEOPLE)) == {
        "sku": "{2 fields}", "ts": "[1 items]", "price": True, "customer_id": None,
    }  # fmt: skip


def test_numbers_as_ids_are_hidden_too() -> None:
    """An id may be a JSON number."""
    assert "13085" not in redacted('{"customer_id": 13085}', PEOPLE)
    assert "13085" not in redacted('{"customer_id": 13085, "quantity": ', PEOPLE)


def test_equal_people_stay_equal() -> None:
    """The pseudonym is stable, so that an operator can follow one customer's faults."""
    whole = json.loads(redacted('{"customer_id":"alice-7"}', PEOPLE))
    assert whole["customer_id"] == ALICE
    assert ALICE in redacted('{"customerId": "alice-7", ', PEOPLE)
    assert ALICE in redacted('{"customerId": "alice-7"}', PEOPLE)
    assert ALICE in redacted_detail("key b'alice-7' is not the SKU 'A'", PEOPLE)
    assert json.loads(redacted('{"customer_id":"b"}', PEOPLE)) != whole


@given(
    st.recursive(
        st.sampled_from(["alice-7", 1, None, True]),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["lines", "customer_id", "alice-7", "quantity", "ts", "action"]),
                inner,
            )
        ),
    ).map(json.dumps),
    st.integers(0, 400),
    st.sampled_from(["", '"', "}", ":", ",", "\\"]),
    st.integers(0, 400),
)
def test_no_cut_and_no_insertion_shows_an_id(
    text: str, place: int, inserted: str, end: int
) -> None:
    """However a record is broken."""
    assert "alice" not in redacted((text[:place] + inserted + text[place:])[:end], PEOPLE)
    assert "alice" not in redacted(text[:place] + inserted + text[place:], PEOPLE)


@pytest.mark.parametrize(
    "detail",
    [
        "key b'alice-7' is not the SKU 'A'",
        "key b\"alice-7's\" is not the SKU 'A'",
        "sku 'alice-7@shop.example' is reserved for series names",
        "ts 'alice-7' is not RFC 3339",
        "location 'it\\'s alice-7' is not in ingest.locations",
    ],
)
def test_a_detail_quotes_nothing_of_the_record(detail: str) -> None:
    assert "alice" not in letter_of(b"{}", detail)


def test_the_value_of_a_wrong_action_is_not_quoted() -> None:
    """msgspec quotes it without escapes."""
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.convert({"event_id": "1", "ts": 1, "sku": "A", "action": "it's alice-7"}, Click)

    refused = refusal(0, error.value)
    assert refused.reason == "unknown_action"
    assert refused.detail == "Invalid enum value - at `$.action`"


def test_a_detail_of_our_own_words_is_unchanged() -> None:
    for detail in (
        "'utf-8' codec can't decode byte 0xff in position 1: invalid start byte",
        "Object missing required field `sku`",
        "quantity 1000000000000 exceeds the limit of 1000000000",
    ):
        assert redacted_detail(detail, PEOPLE) == detail


@pytest.mark.parametrize("raw", [None, b"", b"{}"])
def test_a_record_without_fields_has_a_letter(raw: bytes | None) -> None:
    document: dict[str, Any] = json.loads(letter_of(raw))

    assert document["raw"] == (None if raw is None else raw.decode())


def test_a_long_record_is_cut_after_it_is_redacted() -> None:
    """A cut before would tear its structure apart."""
    value = {"lines": [{"customer_id": "alice-7"} | {"x" * i: i for i in range(39)}] * 300}
    document = json.loads(letter_of(json.dumps(value).encode()))

    assert len(document["raw"]) == MAX_RAW_CHARS
    assert document["raw"].startswith('{"lines":[{"customer_id":"p:')
    assert "raw cut to" in document["detail"]
