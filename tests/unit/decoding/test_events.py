"""Orders and clicks: readable events, refusals and reasons; a bad record keeps its neighbours."""

from typing import Any

import pytest
from xxhash import xxh3_64_intdigest

from model.durations import DAY_MS
from stream.decoding.events import ClickDecoder, OrderDecoder
from tests.support.batches import batch, click, order

NOW_MS = 1_700_000_000_000
TEN_YEARS_MS = 10 * 366 * DAY_MS


def bad_orders() -> list[tuple[str, Any, Any]]:
    """Reason, value and key of every kind of bad record."""
    fine = order("x", NOW_MS)
    missing = {name: value for name, value in fine.items() if name != "sku"}
    return [
        ("malformed_json", b'{"event_id": "x", ', b"A"),
        ("malformed_json", b"\xff\xfe\x00", b"A"),
        ("malformed_json", b"", b"A"),
        (
            "malformed_json",
            b'{"event_id":"x","ts":1,"sku":"A","quantity":1,"unit_price":NaN}',
            b"A",
        ),
        (
            "malformed_json",
            b'{"event_id":"\xc3\x28","ts":1,"sku":"A","quantity":1,"unit_price":1}',
            b"A",
        ),
        ("missing_field", missing, b"A"),
        ("wrong_type", order("x", NOW_MS, quantity="two"), b"A"),
        ("wrong_type", order("x", NOW_MS, quantity=1.5), b"A"),
        ("wrong_type", order("x", NOW_MS, quantity=True), b"A"),
        ("wrong_type", order("x", NOW_MS, price=None), b"A"),
        ("wrong_type", b"[1, 2]", b"A"),
        ("wrong_type", order("x", 1.5), b"A"),
        ("zero_quantity", order("x", NOW_MS, quantity=0), b"A"),
        ("negative_price", order("x", NOW_MS, price=-0.01), b"A"),
        ("out_of_range", order("x", NOW_MS, quantity=10**18), b"A"),
        ("out_of_range", order("x", NOW_MS, price=1e300), b"A"),
        (
            "out_of_range",
            b'{"event_id":"x","ts":1,"sku":"A","quantity":1,"unit_price":1e999}',
            b"A",
        ),
        ("future_timestamp", order("x", NOW_MS + TEN_YEARS_MS), b"A"),
        ("future_timestamp", order("x", -5), b"A"),
        ("future_timestamp", order("x", 2**63), b"A"),
        ("invalid_timestamp", order("x", "yesterday"), b"A"),
        ("invalid_timestamp", order("x", "2023-11-14T22:13:20"), b"A"),
        ("too_large", b'{"event_id": "' + b"x" * 1_000_000 + b'"}', b"A"),
        ("null_value", None, b"A"),
        ("null_key", fine, None),
        ("key_mismatch", fine, b"B"),
        ("invalid_sku", order("x", NOW_MS, sku=""), b""),
        ("invalid_sku", order("x", NOW_MS, sku="total"), b"total"),
        ("invalid_sku", order("x", NOW_MS, sku="a@b"), b"a@b"),
        ("invalid_location", order("x", NOW_MS, location=""), b"A"),
        ("unknown_location", order("x", NOW_MS, location="Atlantis"), b"A"),
        ("missing_event_id", order("", NOW_MS), b"A"),
    ]


@pytest.mark.parametrize(("reason", "value", "key"), bad_orders())
def test_a_bad_order_is_refused_with_its_reason_and_its_neighbours_are_kept(
    reason: str, value: Any, key: bytes | None
) -> None:
    """One bad record between two good ones: two events, one refusal at the right place."""
    decoder = OrderDecoder(locations=("Berlin",))
    good = order("1", NOW_MS, location="Berlin")
    columns = decoder.columns(
        batch("orders", [good, value, order("2", NOW_MS)], keys=[b"A", key, b"A"]), latest_ms=NOW_MS
    )

    assert columns.id_hash_N.tolist() == [xxh3_64_intdigest(b"1"), xxh3_64_intdigest(b"2")]
    assert columns.series_N == ["A@Berlin", "A"]
    assert columns.position_N.tolist() == [0, 2]
    assert [(refused.position, refused.reason) for refused in columns.refused] == [(1, reason)]
    assert columns.refused[0].detail


def test_all_bad_records_of_one_batch_are_refused_in_order() -> None:
    """Every kind of fault at once: each keeps its own reason."""
    cases = bad_orders()
    decoder = OrderDecoder(locations=("Berlin",))
    columns = decoder.columns(
        batch("orders", [value for _, value, _ in cases], keys=[key for *_, key in cases]),
        latest_ms=NOW_MS,
    )

    assert not len(columns)
    assert [refused.reason for refused in columns.refused] == [reason for reason, *_ in cases]
    assert [refused.position for refused in columns.refused] == list(range(len(cases)))


def test_times_are_accepted_as_ms_and_as_rfc_3339() -> None:
    """Both notations of one moment give the same event time; extra fields are ignored."""
    decoder = OrderDecoder()
    columns = decoder.columns(
        batch(
            "orders",
            [order("1", 1_320_105_600_000, colour="red"), order("2", "2011-11-01T01:00:00+01:00")],
        ),
        latest_ms=NOW_MS,
    )

    assert columns.event_time_N.tolist() == [1_320_105_600_000] * 2
    assert not columns.refused


def test_a_click_of_an_unknown_action_is_refused() -> None:
    """Actions are a closed set."""
    decoder = ClickDecoder()
    columns = decoder.columns(
        batch("clicks", [click("1", NOW_MS), click("2", NOW_MS, action="stare")]), latest_ms=NOW_MS
    )

    assert columns.id_hash_N.tolist() == [xxh3_64_intdigest(b"1")]
    assert [refused.reason for refused in columns.refused] == ["unknown_action"]


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"quantity": 10**12}, "quantity 1000000000000 exceeds the limit of 1000000000"),
        ({"quantity": -(10**12)}, "quantity -1000000000000 exceeds the limit of -1000000000"),
        (
            {"quantity": 10**9, "price": 20.5},
            "line value 20500000000.0 exceeds the limit of 10000000000",
        ),
        (
            {"sku": "x" * 201},
            f"sku '{'x' * 60}' is empty, padded, not printable or longer than 200",
        ),
    ],
)
def test_a_refusal_names_the_value_and_the_limit(changes: dict[str, Any], detail: str) -> None:
    value = order("1", NOW_MS, **changes)
    columns = OrderDecoder().columns(
        batch("orders", [value], keys=[value["sku"].encode()]), latest_ms=NOW_MS
    )

    assert [refused.detail for refused in columns.refused] == [detail]


def test_an_event_time_in_the_future_names_the_setting() -> None:
    columns = OrderDecoder().columns(batch("orders", [order("1", NOW_MS + 7)]), latest_ms=NOW_MS)

    assert columns.refused[0].detail == (
        f"ts {NOW_MS + 7} exceeds the limit of window.future_tolerance by 7 ms"
    )


def test_hashes_of_event_ids_depend_on_the_deployment() -> None:
    """Ids made to collide in one deployment do not in another, whose seed nobody knows."""
    lines = batch("orders", [order(str(i), NOW_MS) for i in range(50)])
    mine = OrderDecoder(id_seed=7).columns(lines, latest_ms=NOW_MS).id_hash_N
    theirs = OrderDecoder(id_seed=8).columns(lines, latest_ms=NOW_MS).id_hash_N

    assert not set(mine.tolist()) & set(theirs.tolist())
    assert mine.tolist() == [xxh3_64_intdigest(str(i).encode(), 7) for i in range(50)]
