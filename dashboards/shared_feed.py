"""The feed that all sessions of this process share."""

import threading

from dashboards.feed import Feed
from stream.readside.reader import connect
from stream.settings import Settings, load_settings

_lock = threading.Lock()
_feeds: list[Feed] = []


def shared_feed(settings: Settings | None = None) -> Feed:
    """Return the running feed; the first call starts it with these settings or the environment's.

    Raises UsageError for an invalid setting, ServiceUnavailable if no store is configured.
    """
    with _lock:
        if not _feeds:
            feed = Feed(connect((settings or load_settings()).redis))
            feed.start()
            _feeds.append(feed)
        return _feeds[0]


def close_shared_feed() -> None:
    """Stop the feed if it runs; the next call of `shared_feed` starts a new one."""
    with _lock:
        while _feeds:
            _feeds.pop().close()
