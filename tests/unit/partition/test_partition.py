"""The laws of a partition: counting, lateness, closing, and that it survives being stored."""

from typing import Any

import numpy as np
import pytest

from model.durations import HOUR_MS, MINUTE_MS
from stream.decoding.events import ClickDecoder, OrderDecoder
from stream.errors import LostRecords
from stream.features.packed_block import pack_block
from stream.ingest.owned_partition import OwnedPartition
from stream.ingest.restore import restore
from stream.partition.partition import Judged, Partition
from stream.privacy import Pseudonyms
from stream.settings import WindowSettings
from tests.support.batches import batch, click, order
from tests.support.memory_store import MemoryStore

WINDOW = WindowSettings(allowed_lateness=2 * MINUTE_MS, dedup=15 * MINUTE_MS)
PEOPLE = Pseudonyms(b"key")
NO_STOCK = frozenset({"inventory"})
ONLY_ORDERS = NO_STOCK | {"clicks"}
ORDERS = OrderDecoder()
CLICKS = ClickDecoder()


def partition() -> Partition:
    """An empty partition with hourly buckets."""
    return Partition(0, WINDOW, retention_ms=48 * HOUR_MS)


def sell(target: Partition, *lines: dict[str, Any]) -> Judged:
    """Count order lines."""
    return target.count_orders(ORDERS.columns(batch("orders", list(lines)), latest_ms=2**60))


def look(target: Partition, *clicks: dict[str, Any]) -> Judged:
    """Count clicks."""
    return target.count_clicks(
        CLICKS.columns(batch("clicks", list(clicks)), latest_ms=2**60), PEOPLE
    )


def close(target: Partition) -> list[Any]:
    """Close the buckets that the orders' watermark has passed."""
    watermark = target.watermark_ms(ONLY_ORDERS)
    return [] if watermark is None else target.close_through(watermark)


def test_a_closed_bucket_holds_what_the_contract_defines() -> None:
    """Units, returns, revenue, order lines, clicks by action and distinct visitors."""
    state = partition()
    sell(
        state,
        order("1", 10, quantity=3, price=2.5),
        order("2", 20, quantity=-1, price=2.5),
        order("3", 30, quantity=2, price=0.0),
    )
    look(
        state,
        click("c1", 10, visitor="ann"),
        click("c2", 11, visitor="ann", action="cart"),
        click("c3", 12, visitor="bob"),
        click("c4", 13, visitor="bob", action="remove"),
        click("c5", 14, visitor=None, action="purchase"),
    )
    sell(state, order("4", HOUR_MS + 5 * MINUTE_MS))

    [closed] = close(state)
    assert closed.start_ms == 0
    assert closed.values_SF.tolist() == [[5.0, 1.0, 5.0, 3.0, 2.0, 1.0, 1.0, 1.0, 2.0, 0.0, 0.0]]


@pytest.mark.parametrize("lateness_m", [1, 59, 600])
def test_an_event_repeated_at_the_limit_of_lateness_counts_once(lateness_m: int) -> None:
    """Whatever the lateness: an id is known for as long as its event would still count."""
    window = WindowSettings(allowed_lateness=lateness_m * MINUTE_MS)
    state = Partition(0, window, retention_ms=48 * HOUR_MS)
    start_ms = 48 * HOUR_MS
    sell(state, order("1", start_ms))
    for minute in range(1, lateness_m + 1):
        sell(state, order(f"n{minute}", start_ms + minute * MINUTE_MS))
        state.state.dedup["orders"].forget_before(start_ms + minute * MINUTE_MS)
    again = sell(state, order("1", start_ms))

    assert (again.counted, again.duplicates) == (0, 1)


def test_an_event_within_the_allowed_lateness_counts_and_a_later_one_does_not() -> None:
    """The boundary itself is on time; one ms more is late, and the detail names the distance."""
    state = partition()
    judged = sell(
        state,
        order("1", 10 * MINUTE_MS),
        order("2", 8 * MINUTE_MS),
        order("3", 8 * MINUTE_MS - 1),
    )

    assert judged.counted == 2
    assert [(refused.position, refused.reason) for refused in judged.refused] == [(2, "late")]
    assert str(2 * MINUTE_MS + 1) in judged.refused[0].detail


def test_a_resent_event_counts_once() -> None:
    """In the same batch, in a later one, and even when it comes back late."""
    state = partition()
    first = sell(state, order("1", 0), order("1", 0), order("2", 10))
    again = sell(state, order("2", 10), order("3", 12 * MINUTE_MS), order("1", 0))

    assert (first.counted, first.duplicates) == (2, 1)
    assert (again.counted, again.duplicates) == (1, 2)
    assert not again.refused


def test_an_order_and_a_click_may_share_an_id() -> None:
    """Deduplication is per topic."""
    state = partition()

    assert sell(state, order("1", 0)).counted == 1
    assert look(state, click("1", 0)).counted == 1


def test_the_slower_input_holds_the_watermark_back() -> None:
    """Orders of the next hour close no bucket while clicks are still in this one."""
    state = partition()
    look(state, click("c", 5))
    sell(state, order("1", 5), order("2", 2 * HOUR_MS))

    assert state.watermark_ms(NO_STOCK) == 5 - WINDOW.allowed_lateness
    assert state.watermark_ms(ONLY_ORDERS) == 2 * HOUR_MS - WINDOW.allowed_lateness


def test_silence_closes_with_zeros() -> None:
    """Between two sales a day apart there are closed buckets without any demand."""
    state = partition()
    sell(state, order("1", 0), order("2", 24 * HOUR_MS + 30 * MINUTE_MS))

    closed = close(state)
    assert [bucket.start_ms // HOUR_MS for bucket in closed] == list(range(24))
    assert [bool(bucket.values_SF.any()) for bucket in closed] == [True] + [False] * 23


def test_an_event_far_ahead_of_the_stream_does_not_drag_the_watermark() -> None:
    """An event ten years ahead of a replay is refused, as the first one or later."""
    far = 10 * 366 * 24 * HOUR_MS
    for lines in (
        [order("x", far), order("1", 0), order("2", 10)],
        [order("1", 0), order("x", far), order("2", 10)],
    ):
        judged = sell(state := partition(), *lines)

        assert judged.counted == 2
        assert [refused.reason for refused in judged.refused] == ["future_timestamp"]
        assert state.state.watermarks["orders"].newest_ms == 10


def test_a_first_event_of_1970_does_not_block_the_stream() -> None:
    """After a hundred refused events the stream is accepted, and the gap is not filled."""
    state = partition()
    now = 15_000 * 24 * HOUR_MS
    sell(state, order("old", 1_234))
    judged = sell(state, *(order(f"e{i}", now + i * MINUTE_MS) for i in range(300)))

    assert judged.counted == 200
    assert {refused.reason for refused in judged.refused} == {"future_timestamp"}
    closed = close(state)
    assert closed[0].start_ms == 0
    assert len(closed) == 1 + 48
    assert sum(bucket.values_SF[:, 3].sum() for bucket in closed) > 1


def test_rollups_are_the_sums_of_their_series() -> None:
    """`total` has everything, a category its SKUs, a location its series."""
    state = partition()
    state.categorise("A", "Bags")
    state.categorise("B", "Bags")
    sell(
        state,
        order("1", 0, sku="A", quantity=1, location="X"),
        order("2", 0, sku="B", quantity=2),
        order("3", 0, sku="C", quantity=4),
        order("4", 2 * HOUR_MS),
    )

    rollups = close(state)[0].rollups
    assert {name: row[0] for name, row in rollups.items()} == {
        "total": 7,
        "category:Bags": 3,
        "location:X": 1,
    }


def test_a_batch_that_skips_records_stops_the_worker() -> None:
    """Redelivery is harmless, a gap is not."""
    owned = OwnedPartition(partition(), token=1, stored={})
    owned.partition.state.moved_to("orders", 5)

    assert owned.fresh(batch("orders", [order("1", 0)] * 3, offset=2)) is None
    partly = owned.fresh(batch("orders", [order("1", 0)] * 3, offset=4))
    assert partly is not None
    assert [record.offset for record in partly.records] == [5, 6]
    with pytest.raises(LostRecords):
        owned.fresh(batch("orders", [order("1", 0)], offset=6))


async def test_a_restored_partition_continues_unchanged() -> None:
    """Flush, restore, continue: the same closed buckets, verdicts and counts as without."""
    rng = np.random.default_rng(7)
    lines = [
        order(
            f"e{rng.integers(400)}",
            int(t),
            sku=f"S{rng.integers(9)}",
            quantity=int(rng.integers(1, 9)),
        )
        for t in np.sort(rng.integers(0, 5 * HOUR_MS, 500))
        + rng.integers(-MINUTE_MS, MINUTE_MS, 500)
        + MINUTE_MS
    ]
    whole, store = partition(), MemoryStore()
    broken = partition()
    expected, got = [], []
    token = await store.acquire(0)
    for start in range(0, len(lines), 50):
        part = lines[start : start + 50]
        for state in (whole, broken):
            sell(state, *part)
            look(
                state,
                *(click(f"c{line['event_id']}", line["ts"], sku=line["sku"]) for line in part),
            )
        expected += close(whole)
        got += close(broken)
        plan, _ = broken.state.take_write()
        await store.apply(0, token, plan)
        broken = await restore(store, 0, WINDOW, retention_ms=48 * HOUR_MS)

    assert [bucket.start_ms for bucket in got] == [bucket.start_ms for bucket in expected]
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine.values_SF, theirs.values_SF)
        stored = (await store.blobs(0, [("closed", mine.start_ms)]))[0]
        assert stored == pack_block(mine.values_SF)
    assert broken.state.counts == whole.state.counts
    assert whole.state.counts["orders", "duplicate"] > 0
    assert broken.state.series.ids == whole.state.series.ids
