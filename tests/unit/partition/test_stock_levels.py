"""The laws of the stock: what readings say of a bucket, whatever order, cut or crash they meet."""

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from model.durations import HOUR_MS, MINUTE_MS
from stream.decoding.events import OrderDecoder
from stream.decoding.inventory import InventoryDecoder
from stream.features.definitions import N_FEATURES, N_SUMS, STOCK
from stream.features.packed_block import MAX_ON_HAND, pack_block, unpack_block
from stream.ingest.idleness import InputStatus
from stream.ingest.owned_partition import OwnedPartition
from stream.ingest.restore import restore
from stream.partition.closed import Closed
from stream.partition.partition import Judged, Partition
from stream.settings import WindowSettings
from tests.support.batches import batch, order
from tests.support.memory_store import MemoryStore
from tests.support.stock_recount import Reading, accepted, recount, stored_share

LATENESS = 20 * MINUTE_MS
WINDOW = WindowSettings(bucket=HOUR_MS, allowed_lateness=LATENESS)
ONLY_STOCK = frozenset({"orders", "clicks"})
DECODER = InventoryDecoder()


def empty_partition() -> Partition:
    """A partition whose first bucket begins at 0."""
    partition = Partition(0, WINDOW, retention_ms=10_000 * HOUR_MS)
    partition.close_through(0)
    return partition


def read(partition: Partition, *readings: Reading) -> Judged:
    """Take readings of the stock."""
    values: list[Any] = [{"sku": n, "ts": t, "on_hand": units} for n, t, units in readings]
    return partition.take_readings(DECODER.columns(batch("inventory", values), latest_ms=2**60))


def stock_by_bucket(
    partition: Partition, closed: list[Closed]
) -> dict[tuple[str, int], tuple[int, int]]:
    """Units on hand and share in 1/255 of each series and bucket whose stock is known."""
    found = {}
    for bucket in closed:
        for slot in np.flatnonzero(bucket.values_SF[:, STOCK]).tolist():
            stock, share = bucket.values_SF[slot, N_SUMS:].tolist()
            place = partition.state.series.ids[slot], bucket.start_ms
            found[place] = (int(stock) - 1, round(share * 255))
    return found


def test_a_bucket_knows_its_last_level_and_the_time_without_stock() -> None:
    """Half an hour without stock is half the bucket; before the first reading it is unknown."""
    partition = empty_partition()
    read(
        partition,
        ("A", HOUR_MS + 15 * MINUTE_MS, 0),
        ("A", HOUR_MS + 45 * MINUTE_MS, 7),
        ("A", 5 * HOUR_MS, 0),
    )

    closed = stock_by_bucket(partition, partition.close_through(6 * HOUR_MS))
    assert closed == {
        ("A", HOUR_MS): (7, 128),
        ("A", 2 * HOUR_MS): (7, 0),
        ("A", 3 * HOUR_MS): (7, 0),
        ("A", 4 * HOUR_MS): (7, 0),
        ("A", 5 * HOUR_MS): (0, 255),
    }


def test_readings_of_one_moment_count_in_the_order_of_the_log() -> None:
    """The last of them is the level."""
    partition = empty_partition()
    read(partition, ("A", 10, 0), ("A", 10, 4), ("B", 10, 4), ("B", 10, 0))

    assert stock_by_bucket(partition, partition.close_through(HOUR_MS)) == {
        ("A", 0): (4, 0),
        ("B", 0): (0, 255),
    }


def test_an_old_reading_applies_from_the_first_open_bucket_unless_a_newer_is_known() -> None:
    """A compacted topic begins with old readings; an outdated one is late."""
    partition = empty_partition()
    judged = read(
        partition,
        ("A", 8 * HOUR_MS, 3),
        ("B", HOUR_MS, 0),
        ("A", HOUR_MS, 9),
        ("B", HOUR_MS, 0),
        ("B", 5, 2),
    )

    assert judged.counted == 3
    assert [(one.position, one.reason) for one in judged.refused] == [(2, "late"), (4, "late")]
    closed = stock_by_bucket(partition, partition.close_through(9 * HOUR_MS))
    assert closed[("B", 7 * HOUR_MS)] == (0, 255)
    assert ("B", 6 * HOUR_MS) not in closed
    assert closed[("A", 8 * HOUR_MS)] == (3, 0)
    assert partition.state.counts["inventory", "late"] == 2


def test_a_reading_for_a_closed_bucket_changes_none_that_is_final() -> None:
    """If silent inputs let buckets close, the level applies from the first open one."""
    partition = empty_partition()
    read(partition, ("A", 10, 5))
    partition.close_through(4 * HOUR_MS)
    judged = read(partition, ("A", 20, 0), ("A", 15, 8))

    assert judged.counted == 1
    assert [one.reason for one in judged.refused] == ["late"]
    assert stock_by_bucket(partition, partition.close_through(5 * HOUR_MS)) == {
        ("A", 4 * HOUR_MS): (0, 255)
    }


async def test_a_restored_partition_refuses_outdated_and_keeps_no_closed_readings() -> None:
    """By the levels of closed buckets, and by the readings of open ones."""
    store, partition = MemoryStore(), empty_partition()
    token = await store.acquire(0)
    read(
        partition,
        ("A", 5 * HOUR_MS, 1),
        ("B", 9 * HOUR_MS + MINUTE_MS, 0),
        ("C", 9 * HOUR_MS + 50 * MINUTE_MS, 1),
    )
    await store.apply(0, token, partition.state.take_write()[0])
    closed = stock_by_bucket(partition, partition.close_through(9 * HOUR_MS))
    await store.apply(0, token, partition.state.take_write()[0])
    partition = await restore(store, 0, WINDOW, retention_ms=10_000 * HOUR_MS)
    judged = read(partition, ("A", 4 * HOUR_MS, 0), ("B", 8 * HOUR_MS, 2))

    assert [one.reason for one in judged.refused] == ["late", "late"]
    assert closed[("A", 8 * HOUR_MS)] == (1, 0)
    assert await store.blobs(0, [("readings", 5 * HOUR_MS)]) == [None]
    assert stock_by_bucket(partition, partition.close_through(10 * HOUR_MS)) == {
        ("A", 9 * HOUR_MS): (1, 0),
        ("B", 9 * HOUR_MS): (0, stored_share(Fraction(59, 60))),
        ("C", 9 * HOUR_MS): (1, 0),
    }


def test_a_reading_before_the_first_bucket_applies_in_it() -> None:
    """Readings open no bucket: a year of them before the first order closes none."""
    partition = Partition(0, WINDOW, retention_ms=10_000 * HOUR_MS)
    read(partition, ("A", HOUR_MS, 0), ("B", 2 * HOUR_MS, 3), ("A", 30 * HOUR_MS, 1))
    lines = [order("1", 20 * HOUR_MS, sku="C"), order("2", 30 * HOUR_MS, sku="C")]
    partition.count_orders(OrderDecoder().columns(batch("orders", lines), latest_ms=2**60))

    closed = partition.close_through(22 * HOUR_MS)
    assert [bucket.start_ms for bucket in closed] == [20 * HOUR_MS, 21 * HOUR_MS]
    assert stock_by_bucket(partition, closed[:1]) == {
        ("A", 20 * HOUR_MS): (0, 255),
        ("B", 20 * HOUR_MS): (3, 0),
    }


def test_the_stock_holds_the_watermark_back_like_any_input() -> None:
    """No bucket closes before a reading that is on time."""
    partition = empty_partition()
    partition.state.watermarks["orders"].newest_ms = partition.state.watermarks[
        "clicks"
    ].newest_ms = 9 * HOUR_MS
    assert partition.watermark_ms() is None
    read(partition, ("A", 3 * HOUR_MS, 1))

    assert partition.watermark_ms() == 3 * HOUR_MS - LATENESS
    assert partition.watermark_ms(frozenset({"inventory"})) == 9 * HOUR_MS - LATENESS


def test_only_an_inventory_that_never_had_a_reading_is_idle_from_the_start() -> None:
    """A shop without stock data does not wait; one with some waits until it is read."""
    unread = 0

    def lag(tp: TP) -> int | None:
        return unread if tp.topic == "inventory" else 0

    inputs = InputStatus(lag, lambda _: None, HOUR_MS)
    owned = OwnedPartition(empty_partition(), 1, {})
    assert owned.idle(inputs) == {"inventory"}
    unread = 3
    assert owned.idle(inputs) == frozenset()
    unread = 0
    read(owned.partition, ("A", 10, 1))
    assert owned.idle(inputs) == frozenset()


def test_a_shop_without_readings_stores_what_it_did_before() -> None:
    """Silent buckets have no block, and the meta no field of the stock."""
    partition = empty_partition()
    partition.close_through(3 * HOUR_MS)
    plan, closed = partition.state.take_write()

    assert len(closed) == 3
    assert not plan.puts
    assert "readings" not in plan.meta


def test_a_far_future_reading_is_refused_and_a_tombstone_changes_nothing() -> None:
    """Neither moves a level; both have a verdict."""
    partition = empty_partition()
    values = [{"sku": "A", "ts": 10, "on_hand": 2}, None]
    values.append({"sku": "A", "ts": 800 * 24 * HOUR_MS, "on_hand": 0})
    columns = DECODER.columns(batch("inventory", values), latest_ms=2**60)
    judged = partition.take_readings(columns)

    assert (judged.counted, [one.reason for one in judged.refused]) == (2, ["future_timestamp"])
    assert stock_by_bucket(partition, partition.close_through(HOUR_MS)) == {("A", 0): (2, 0)}
    assert dict(partition.state.counts) == {
        ("inventory", "counted"): 2, ("inventory", "duplicate"): 0,
        ("inventory", "late"): 0, ("inventory", "rejected"): 1,
    }  # fmt: skip


log_of_readings = st.lists(
    st.tuples(
        st.sampled_from("ABC"),
        st.integers(0, 9 * HOUR_MS // MINUTE_MS),  # minute it is of
        st.sampled_from((0, 0, 15, 70, 400)),  # minutes it comes late
        st.sampled_from((0, 0, 1, 900)),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(log_of_readings, st.lists(st.integers(0, 40), max_size=5), st.data())
async def test_whatever_the_cuts_and_crashes_the_stock_equals_a_recount(
    steps: list[tuple[str, int, int, int]], cuts: list[int], data: st.DataObject
) -> None:
    """Random disorder, batches and restarts: closed buckets and verdicts are those of the log."""
    steps = sorted(steps, key=lambda step: step[1] + step[2])
    log = [(name, minute * MINUTE_MS, units) for name, minute, _, units in steps]
    store, partition = MemoryStore(), empty_partition()
    found: dict[tuple[str, int], tuple[int, int]] = {}
    token = await store.acquire(0)
    borders = sorted({0, len(log), *(cut for cut in cuts if cut < len(log))})
    for low, high in pairwise(borders):
        read(partition, *log[low:high])
        partition.state.moved_to("inventory", high)
        closed = partition.close_through(partition.watermark_ms(ONLY_STOCK) or 0)
        found |= stock_by_bucket(partition, closed)
        await store.apply(0, token, partition.state.take_write()[0])
        if data.draw(st.booleans()):
            partition = await restore(store, 0, WINDOW, retention_ms=10_000 * HOUR_MS)
    found |= stock_by_bucket(partition, partition.close_through(12 * HOUR_MS))

    window = {"width_ms": HOUR_MS, "lateness_ms": LATENESS}
    expected = recount(log, **window, start_ms=0, end_ms=12 * HOUR_MS)
    assert found == {
        place: (on_hand, stored_share(share)) for place, (on_hand, share) in expected.items()
    }
    assert partition.state.counts["inventory", "late"] == accepted(log, **window)[1]


@given(st.integers(0, 10**9), st.integers(0, HOUR_MS - 1))
def test_a_stored_row_comes_back_bit_for_bit(on_hand: int, without_ms: int) -> None:
    """A worker publishes what every reader of the store sees; a row has 40 bytes."""
    partition = empty_partition()
    read(partition, ("A", without_ms, on_hand))
    values_SF = partition.close_through(HOUR_MS)[0].values_SF
    raw = pack_block(values_SF)

    assert len(raw) == 40
    assert unpack_block(raw).tobytes() == values_SF.tobytes()
    assert values_SF[0, STOCK] == min(on_hand, MAX_ON_HAND) + 1


def test_a_row_of_zero_bytes_is_a_silent_bucket_of_unknown_stock() -> None:
    """A block missing in the store means the same everywhere."""
    values_SF = unpack_block(bytes(80))

    assert values_SF.shape == (2, N_FEATURES)
    assert not values_SF.any()


@pytest.mark.parametrize(
    ("change", "key", "reason"),
    [
        ({"on_hand": -1}, b"A", "negative_stock"),
        ({"on_order": -2}, b"A", "negative_stock"),
        ({"on_hand": 10**9 + 1}, b"A", "out_of_range"),
        ({"on_hand": "3"}, b"A", "wrong_type"),
        ({"on_hand": 1.5}, b"A", "wrong_type"),
        ({"lead_time_days": -1}, b"A", "out_of_range"),
        ({"ts": 2**50}, b"A", "future_timestamp"),
        ({"ts": -1}, b"A", "future_timestamp"),
        ({"ts": "yesterday"}, b"A", "invalid_timestamp"),
        ({}, b"B", "key_mismatch"),
        ({}, None, "null_key"),
        ({"sku": "total"}, b"total", "invalid_sku"),
        ({"location": "Mars"}, b"A", "unknown_location"),
        ({"location": "x" * 2_000}, b"A", "too_large"),
    ],
)
def test_an_invalid_reading_is_refused_with_its_reason(
    change: dict[str, Any], key: bytes | None, reason: str
) -> None:
    """The records around it are read."""
    decoder = InventoryDecoder(locations=("Berlin",), max_value_bytes=1_000)
    good = {"sku": "A", "ts": "2011-11-01T00:00:00Z", "on_hand": 2, "location": "Berlin"}
    values = [good, good | change, good]
    columns = decoder.columns(batch("inventory", values, keys=[b"A", key, b"A"]), latest_ms=2**41)

    assert [(one.position, one.reason) for one in columns.refused] == [(1, reason)]
    assert columns.series_N == ["A@Berlin", "A@Berlin"]
    assert columns.event_time_N.tolist() == [1_320_105_600_000] * 2
    assert columns.position_N.tolist() == [0, 2]
