"""One feed serves all sessions, reads what is watched, and outlives its store."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from dashboards.feed import Feed
from dashboards.snapshot import Snapshot
from tests.support.seeding import Shop, stocked

pytestmark = pytest.mark.integration


@pytest.fixture
def shop(redis_client: Redis) -> Shop:
    return stocked(redis_client, days=2, n_series=8, partitions=2)


@pytest.fixture
def feed(shop: Shop) -> Iterator[Feed]:
    feed = Feed(shop.redis)
    feed.start()
    yield feed
    feed.close()


def until(feed: Feed, true: Callable[[Snapshot], Any]) -> Snapshot:
    """The first snapshot of which it is true; fails after five seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        snapshot = feed.latest
        if true(snapshot):
            return snapshot
        time.sleep(0.01)
    pytest.fail(f"never true; last {feed.latest}")


def test_a_watched_series_shows_and_grows(feed: Feed, shop: Shop) -> None:
    """A closed bucket is added to what is held; the forecast is the newest."""
    feed.subscribe(shop.names[3])
    before = until(feed, lambda s: shop.names[3] in s.views).views[shop.names[3]]

    shop.close()
    end = shop.closed_through_ms
    snapshot = until(feed, lambda s: s.views[shop.names[3]].closed_through_ms == end)

    after = snapshot.views[shop.names[3]]
    assert after.start_T.tolist() == [*before.start_T.tolist(), end - shop.bucket_ms]
    assert len(after.values_TF) == len(after.ahead_T3) == len(after.start_T)
    assert after.forecast is not None
    assert after.forecast.origin_ms == end


def test_what_nobody_watches_is_dropped(feed: Feed, shop: Shop) -> None:
    """Memory follows the sessions that are open, not all that ever were."""
    subscriptions = [feed.subscribe(name) for name in shop.names]
    until(feed, lambda s: len(s.views) == len(shop.names))

    for subscription in subscriptions:
        subscription.close()
        subscription.close()

    until(feed, lambda s: not s.views)
    assert feed.n_sessions == 0


def test_sessions_on_one_series_share_one_view(feed: Feed, shop: Shop) -> None:
    """A hundred sessions cost the store what one does."""
    for _ in range(100):
        feed.subscribe("total")
    until(feed, lambda s: "total" in s.views)
    names = {thread.name for thread in threading.enumerate() if "dashboard" in thread.name}
    before = shop.redis.info("stats")["total_commands_processed"]
    time.sleep(1.0)  # what is counted is what the store is asked in a second
    commands = shop.redis.info("stats")["total_commands_processed"] - before

    assert list(feed.latest.views) == ["total"]
    assert names == {"dashboard-feed", "dashboard-movers"}
    assert commands < 200


def test_snapshots_come_at_most_four_times_a_second(feed: Feed) -> None:
    """However fast buckets fill, sessions are handed a picture every quarter of a second."""
    feed.subscribe("total")
    until(feed, lambda s: "total" in s.views)
    seen = set()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        seen.add(id(feed.latest))
        time.sleep(0.002)

    assert 4 <= len(seen) <= 10


def test_a_store_that_goes_away_is_said_and_waited_for(feed: Feed, shop: Shop) -> None:
    """The page keeps what it had, says why it stands still, and goes on by itself."""
    feed.subscribe("total")
    until(feed, lambda s: "total" in s.views)
    reader = feed._reader
    refresh, reader.refresh = reader.refresh, _unavailable  # type: ignore[method-assign]  # a broken one for a while

    snapshot = until(feed, lambda s: s.problem)
    assert "total" in snapshot.views

    reader.refresh = refresh  # type: ignore[method-assign]  # a broken one for a while
    until(feed, lambda s: s.problem is None)


def _unavailable() -> None:
    from stream.errors import ServiceUnavailable

    raise ServiceUnavailable("the store does not answer: gone")


def test_people_need_not_type_ids_exactly(feed: Feed, shop: Shop) -> None:
    """Case does not matter, and a category goes by its name."""
    until(feed, lambda s: s.names)

    assert feed.resolve(shop.names[0].lower()) == shop.names[0]
    assert feed.resolve("garden") == "category:Garden"
    assert feed.resolve("no such thing") is None


def test_search_lists_roll_ups_then_best_sellers(feed: Feed, shop: Shop) -> None:
    """The names offered start with the roll-ups and hold every series of a small shop."""
    names = until(feed, lambda s: s.names).names

    assert names[: len(shop.rollups)] == tuple(sorted(shop.rollups))
    assert set(names) == {*shop.rollups, *shop.names}
