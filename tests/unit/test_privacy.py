"""People's ids never leave in the clear."""

import json

import pytest

from stream.decoding.refusals import Refused
from stream.privacy import Pseudonyms
from stream.sinks.topic_records import dead_letter

PEOPLE = Pseudonyms(b"key")


@pytest.mark.parametrize(
    "raw",
    [
        b'{"customer_id": "alice-7", "quantity": 0}',
        b'{"visitor_id":"alice-7","nested":{"customer_id":"alice-7"}}',
        b'{"lines":[{"customer_id":"alice-7"}]}',
        b'{"customer_id": "alice-7", "quantity": ',
        b'{"customer_id": "alice-7',
        b'{"customer\\u005fid": "alice-7"}',
        b'{"customer_id": "alice-7"} trailing',
    ],
)
def test_a_dead_letter_contains_no_id_of_a_person(raw: bytes) -> None:
    """Valid, nested, truncated and escaped JSON: the id is replaced, the rest is kept."""
    letter = dead_letter(
        Refused(0, "zero_quantity", "quantity is 0"),
        raw, topic="orders", partition=2, offset=7, received_ms=1, pseudonyms=PEOPLE,
    )  # fmt: skip

    document = json.loads(letter)
    assert "alice-7" not in letter.decode()
    assert (document["topic"], document["partition"], document["offset"]) == ("orders", 2, 7)
    assert document["reason"] == "zero_quantity"


def test_numbers_as_ids_are_hidden_too() -> None:
    """An id may be a JSON number."""
    assert "13085" not in PEOPLE.scrub('{"customer_id": 13085}')
    assert "13085" not in PEOPLE.scrub('{"customer_id": 13085, "quantity": ')


def test_equal_people_stay_equal() -> None:
    """The pseudonym is stable, so that an operator can follow one customer's faults."""
    first, second = (json.loads(PEOPLE.scrub('{"customer_id":"a"}')) for _ in range(2))
    assert first == second
    assert json.loads(PEOPLE.scrub('{"customer_id":"b"}')) != first


def test_text_that_is_not_utf8_survives() -> None:
    """A broken record is shown byte for byte."""
    letter = dead_letter(
        Refused(0, "malformed_json", "no JSON"),
        b"\xff{", topic="orders", partition=0, offset=0, received_ms=1, pseudonyms=PEOPLE,
    )  # fmt: skip

    assert json.loads(letter)["raw"] == "\\xff{"
