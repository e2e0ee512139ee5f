"""Movers equal a recount of the blocks, however the time in between was cut."""

from typing import Any

import numpy as np
import pytest
from redis import Redis

from model.durations import DAY_MS, HOUR_MS
from stream.features.definitions import UNITS
from stream.readside.movers import SlidingUnits
from stream.readside.reader import Reader
from stream.state import keys
from tests.support.seeding import Shop, stocked


def recount(shop: Shop) -> dict[str, float]:
    """Change of each SKU by reading its whole history."""
    reader = Reader(shop.redis)
    reader.refresh()
    day = shop.closed_through_ms - DAY_MS
    days = min(7, (day - shop.start_ms) / DAY_MS)
    changes = {}
    for name in shop.names:
        recent = reader.history(name, day, 2**62).values_TF[:, UNITS].sum()
        before = reader.history(name, day - 7 * DAY_MS, day).values_TF[:, UNITS].sum()
        changes[name] = float(recent - before / days)
    return changes


@pytest.mark.integration
@pytest.mark.parametrize("days", [3, 11])
def test_movers_equal_a_recount(redis_client: Redis, days: int) -> None:
    """Rises and falls are the extremes of the recounted changes, also while buckets close."""
    shop = stocked(redis_client, days=days, n_series=40, partitions=3)
    reader = Reader(redis_client)
    for _ in range(5):
        reader.refresh()
        movers = reader.movers(4)

        changes = recount(shop)
        rises = sorted((c for c in changes.values() if c > 1e-6), reverse=True)[:4]
        falls = sorted((c for c in changes.values() if c < -1e-6), reverse=True)[-4:]
        assert [m.change for m in movers] == pytest.approx(rises + falls, abs=1e-4)
        assert all(changes[m.series_id] == pytest.approx(m.change, abs=1e-4) for m in movers)
        assert all(m.daily[-1] == m.units for m in movers)
        shop.close()


@pytest.mark.integration
def test_a_closed_block_is_read_once(redis_client: Redis) -> None:
    """What was read is kept: blocks removed afterwards change nothing."""
    shop = stocked(redis_client, days=4, n_series=10, partitions=1)
    reader = Reader(redis_client)
    reader.refresh()
    before = reader.movers(3)
    for key in redis_client.scan_iter(match=keys.of(0, "closed", "*")):
        redis_client.delete(key)

    reader.refresh()

    assert reader.movers(3) == before
    assert shop.names


@pytest.mark.integration
def test_without_a_full_day_before_there_is_nothing_to_compare(redis_client: Redis) -> None:
    """A shop of one and a half days has no movers rather than wrong ones."""
    stocked(redis_client, days=1, n_series=10, partitions=1)
    reader = Reader(redis_client)
    reader.refresh()

    assert reader.movers(3) == []


def test_sliding_sums_equal_sums_over_the_window() -> None:
    """After any run of buckets, both windows hold exactly the buckets that start in them."""
    rng = np.random.default_rng(5)
    sold = SlidingUnits()
    blocks: list[tuple[int, Any]] = []
    for hour in range(24 * 12):
        block = rng.poisson(0.4, 6 + hour // 40).astype(np.float32)
        blocks.append((hour * HOUR_MS, block))
        sold.add(hour * HOUR_MS, block)
        end = (hour + 1) * HOUR_MS
        sold.slide(end_ms=end)
        if hour % 31 == 0:
            for window, low, high in ((sold.day_S, 1, 0), (sold.base_S, 8, 1)):
                expected = np.zeros(len(window))
                for start, units in blocks:
                    if end - low * DAY_MS <= start < end - high * DAY_MS:
                        expected[: len(units)] += units
                assert window.tolist() == expected.tolist()
