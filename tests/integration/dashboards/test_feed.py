"""One feed serves all sessions, reads only watched series, and survives a lost store."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from dashboards.feed import REFRESH_S, Feed
from dashboards.snapshot import Snapshot
from stream.errors import ServiceUnavailable
from stream.readside.explanations import ExplanationReads
from tests.support.seeding import Shop, stocked


@pytest.fixture
def shop(redis_client: Redis) -> Shop:
    return stocked(redis_client, days=2, n_series=8, partitions=2)


@pytest.fixture
def feed(shop: Shop) -> Iterator[Feed]:
    feed = Feed(shop.redis)
    feed.start()
    yield feed
    feed.close()


def wait_for(feed: Feed, condition: Callable[[Snapshot], Any]) -> Snapshot:
    """Return the first snapshot that meets the condition; fail after 30 seconds."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        snapshot = feed.latest
        if condition(snapshot):
            return snapshot
        time.sleep(0.005)
    pytest.fail(f"condition never met; last snapshot {feed.latest}")


def test_a_watched_series_shows_and_grows(feed: Feed, shop: Shop) -> None:
    """A closed bucket extends the view; the forecast is the newest."""
    feed.subscribe(shop.names[3])
    before = wait_for(feed, lambda s: shop.names[3] in s.views).views[shop.names[3]]

    shop.close()
    end = shop.closed_through_ms
    snapshot = wait_for(feed, lambda s: s.views[shop.names[3]].closed_through_ms == end)

    after = snapshot.views[shop.names[3]]
    assert after.start_T.tolist() == [*before.start_T.tolist(), end - shop.bucket_ms]
    assert len(after.values_TF) == len(after.ahead_T3) == len(after.start_T)
    assert after.forecast is not None
    assert after.forecast.origin_ms == end


def test_an_unwatched_series_is_dropped(feed: Feed, shop: Shop) -> None:
    """Memory depends on the open sessions, not on past ones."""
    subscriptions = [feed.subscribe(name) for name in shop.names]
    wait_for(feed, lambda s: len(s.views) == len(shop.names))

    for subscription in subscriptions:
        subscription.close()
        subscription.close()

    wait_for(feed, lambda s: not s.views)
    assert feed.n_sessions == 0


def test_sessions_on_one_series_share_one_view(feed: Feed, shop: Shop) -> None:
    """A hundred sessions have one view and two threads."""
    for _ in range(100):
        feed.subscribe("total")
    wait_for(feed, lambda s: "total" in s.views)
    threads = {thread.name for thread in threading.enumerate() if "dashboard" in thread.name}

    assert list(feed.latest.views) == ["total"]
    assert threads == {"dashboard-feed", "dashboard-movers"}


def commands_per_refresh(shop: Shop, *, n_sessions: int) -> int:
    """Return the store commands of one refresh of both threads, with sessions on one series."""
    feed = Feed(shop.redis, now_ms=lambda: shop.closed_through_ms)  # not started
    for _ in range(n_sessions):
        feed.subscribe("total")
    feed.refresh()  # reads the history and the closed blocks once
    feed.refresh_movers()
    before = int(shop.redis.info("stats")["total_commands_processed"])
    feed.refresh()
    feed.refresh_movers()
    return int(shop.redis.info("stats")["total_commands_processed"]) - before


def test_a_refresh_costs_the_same_for_any_number_of_sessions(shop: Shop) -> None:
    """A hundred sessions on one series send the store no more commands than one."""
    commands = commands_per_refresh(shop, n_sessions=1)

    assert commands_per_refresh(shop, n_sessions=100) == commands
    assert commands < 60


def test_snapshots_are_published_at_most_four_times_a_second(feed: Feed) -> None:
    """By their own times; the first may follow the subscription at once."""
    feed.subscribe("total")
    published_ms = [wait_for(feed, lambda s: "total" in s.views).at_ms]
    for _ in range(8):
        published_ms.append(wait_for(feed, lambda s: s.at_ms > published_ms[-1]).at_ms)

    assert published_ms[-1] - published_ms[0] > 6 * REFRESH_S * 1_000


def test_a_lost_store_is_reported_and_retried(feed: Feed, shop: Shop) -> None:
    """Views stay, the snapshot has the reason, and reading resumes without help."""
    feed.subscribe("total")
    wait_for(feed, lambda s: "total" in s.views)
    reader = feed._reader
    refresh, reader.refresh = reader.refresh, _unavailable  # type: ignore[method-assign]  # fails for a while

    snapshot = wait_for(feed, lambda s: s.problem)
    assert "total" in snapshot.views

    reader.refresh = refresh  # type: ignore[method-assign]  # restores it
    wait_for(feed, lambda s: s.problem is None)


def _unavailable() -> None:
    from stream.errors import ServiceUnavailable

    raise ServiceUnavailable("the store does not answer: gone")


def test_a_query_need_not_match_an_id_exactly(feed: Feed, shop: Shop) -> None:
    """Case is ignored, and a category is found by its name."""
    wait_for(feed, lambda s: s.names)

    assert feed.resolve(shop.names[0].lower()) == shop.names[0]
    assert feed.resolve("garden") == "category:Garden"
    assert feed.resolve("no such thing") is None


def test_search_lists_roll_ups_then_best_sellers(feed: Feed, shop: Shop) -> None:
    """The list starts with the roll-ups and has every series of a small shop."""
    names = wait_for(feed, lambda s: s.names).names

    assert names[: len(shop.rollups)] == tuple(sorted(shop.rollups))
    assert set(names) == {*shop.rollups, *shop.names}


def test_a_store_that_only_lets_read_shows_all_but_explanations(
    shop: Shop, redis_client: Redis, valkey_url: str
) -> None:
    """The refused request is no reason to show nothing."""
    redis_client.acl_setuser(
        "reader", enabled=True, nopass=True, keys=["*"],
        categories=["+@read", "+@connection", "+@transaction"], commands=["+evalsha", "+script"],
    )  # fmt: skip
    try:
        with Redis.from_url(valkey_url.replace("redis://", "redis://reader:x@")) as reading:
            feed = Feed(reading)
            with pytest.raises(ServiceUnavailable):
                ExplanationReads(reading).ask([(0, 0)])
            feed.subscribe(shop.names[3])
            feed.refresh()

            view = feed.latest.views[shop.names[3]]
            assert feed.latest.problem is None
            assert view.forecast is not None
            assert view.explanation is None
    finally:
        redis_client.acl_deluser("reader")
