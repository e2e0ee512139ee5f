"""The one feed of this process, shared by every session's `live/main.py`."""

import threading

from dashboards.feed import Feed
from stream.readside.reader import connect
from stream.settings import Settings, load_settings

_lock = threading.Lock()
_feeds: list[Feed] = []


def shared_feed(settings: Settings | None = None) -> Feed:
    """The running feed; the first call starts it, from these settings or the environment's.

    Raises UsageError for a setting that is wrong, ServiceUnavailable when no store is named.
    """
    with _lock:
        if not _feeds:
            feed = Feed(connect((settings or load_settings()).redis))
            feed.start()
            _feeds.append(feed)
        return _feeds[0]


def close_shared_feed() -> None:
    """Stop the feed, if there is one; the next call of `shared_feed` starts another."""
    with _lock:
        while _feeds:
            _feeds.pop().close()
