"""Movers equal a recount of the closed blocks, after any number of updates."""

import pytest
from redis import Redis

from model.durations import DAY_MS
from stream.features.definitions import UNITS
from stream.readside.reader import Reader
from stream.state import keys
from tests.support.seeding import Shop, stocked


def recount(shop: Shop) -> dict[str, float]:
    """Return the change of each SKU from its whole history."""
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


@pytest.mark.parametrize("days", [3, 11])
def test_movers_equal_a_recount(redis_client: Redis, days: int) -> None:
    """Rises and falls are the extremes of the recounted changes, also after further closes."""
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


def test_a_closed_block_is_read_once(redis_client: Redis) -> None:
    """Blocks that are deleted after the first read change nothing."""
    shop = stocked(redis_client, days=4, n_series=10, partitions=1)
    reader = Reader(redis_client)
    reader.refresh()
    before = reader.movers(3)
    for key in redis_client.scan_iter(match=keys.of(0, "closed", "*")):
        redis_client.delete(key)

    reader.refresh()

    assert reader.movers(3) == before
    assert shop.names


def test_movers_need_a_full_day_to_compare_with(redis_client: Redis) -> None:
    """A shop of one and a half days has no movers."""
    stocked(redis_client, days=1, n_series=10, partitions=1)
    reader = Reader(redis_client)
    reader.refresh()

    assert reader.movers(3) == []
