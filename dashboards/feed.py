"""Reads the store for all sessions of a process and publishes snapshots, at most four a second.

One thread reads the series that sessions watch, the other the movers, which need whole blocks.
Sessions poll `latest` from their own event loops.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import structlog

from dashboards.snapshot import SeriesView, Snapshot
from dashboards.watched_explanations import WatchedExplanations
from dashboards.watched_series import WatchedSeries
from stream.clock import wall_clock_ms
from stream.errors import SurgecastError
from stream.readside.live_accuracy import LiveAccuracy
from stream.readside.reader import Reader
from stream.readside.rolling.movers import Mover
from stream.series_ids import TOTAL

REFRESH_S: Final = 0.25
_MOVERS_REFRESH_S: Final = 1.0
_NAMES_REFRESH_S: Final = 15.0
_MAX_NAMES: Final = 5_000
_N_MOVERS: Final = 8
_ACCURACY_DAYS: Final = 7
_SPEED_WINDOW_S: Final = 10.0
_MIN_PAUSE_S: Final = 0.05

log = structlog.get_logger(__name__)


class Subscription:
    """A session's subscription to one series at a time."""

    def __init__(self, feed: "Feed", series_id: str) -> None:
        self._feed = feed
        self.series_id = series_id

    def watch(self, series_id: str) -> None:
        """Watch another series, from the next snapshot on."""
        self.series_id = series_id
        self._feed.wake()

    def close(self) -> None:
        """End the subscription; a second call does nothing."""
        self._feed.drop(self)


class Feed:
    """Reads for all sessions between `start` and `close`; `latest` is the newest snapshot."""

    def __init__(self, redis: Any, *, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._now_ms = now_ms
        self._reader = Reader(redis, now_ms=now_ms)
        self._movers_reader = Reader(redis, now_ms=now_ms)
        self._lock = threading.Lock()
        self._subscriptions: set[Subscription] = set()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._watched_series = WatchedSeries()
        self._explanations = WatchedExplanations(redis)
        self._views: dict[str, SeriesView] = {}
        self._n_named = 0
        self._named_s = -_NAMES_REFRESH_S
        self._movers: tuple[Mover, ...] | None = None
        self._accuracy: LiveAccuracy | None = None
        self._names: tuple[str, ...] = ()
        self._watermarks: deque[tuple[float, int]] = deque()
        self.latest = Snapshot(problem="Connecting to the store")

    def start(self) -> None:
        """Start both threads; a second call does nothing."""
        if self._threads:
            return
        for name, *args in (
            ("feed", self.refresh, REFRESH_S, self._wake),
            ("movers", self.refresh_movers, _MOVERS_REFRESH_S, self._stop),
        ):
            thread = threading.Thread(
                target=self._run, args=args, name=f"dashboard-{name}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop both threads and wait for them."""
        self._stop.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(timeout=10)

    def subscribe(self, series_id: str) -> Subscription:
        """Watch a series until the subscription is closed."""
        subscription = Subscription(self, series_id)
        with self._lock:
            self._subscriptions.add(subscription)
        self.wake()
        return subscription

    def drop(self, subscription: Subscription) -> None:
        """Remove a subscription."""
        with self._lock:
            self._subscriptions.discard(subscription)

    def wake(self) -> None:
        """Refresh without waiting for the interval to end."""
        self._wake.set()

    def resolve(self, query: str) -> str | None:
        """Find the series of a query: its id in any case, or `Garden` for `category:Garden`."""
        find = self._reader.find
        for series_id in (query, query.upper(), query.lower(), f"category:{query}"):
            if find(series_id):
                return series_id
        folded = {query.casefold(), f"category:{query}".casefold()}
        return next((name for name in self.latest.names if name.casefold() in folded), None)

    @property
    def watched(self) -> set[str]:
        """Series that sessions watch."""
        with self._lock:
            return {subscription.series_id for subscription in self._subscriptions}

    @property
    def n_sessions(self) -> int:
        """Number of open sessions."""
        with self._lock:
            return len(self._subscriptions)

    def _run(self, refresh: Callable[[], None], every_s: float, wake: threading.Event) -> None:
        """Refresh until stopped; an unreachable store is retried."""
        problem = None
        while not self._stop.is_set():
            started_s = time.monotonic()
            try:
                refresh()
                problem = None
            except SurgecastError as error:
                if problem != str(error):
                    log.warning("feed_failed", reason=str(error))
                problem = str(error)
                if refresh == self.refresh:
                    self._publish(problem=problem)
            wake.wait(max(_MIN_PAUSE_S, every_s - (time.monotonic() - started_s)))
            if not self._stop.is_set():
                wake.clear()

    def refresh(self) -> None:
        """Read the watched series and publish a snapshot. Raises ServiceUnavailable."""
        self._reader.refresh()
        views = self._watched_series.read(self._reader, self.watched)
        self._views = self._explanations.read(self._reader, views)
        self._publish(problem=None)

    def refresh_movers(self) -> None:
        """Read movers, accuracy and names for the next snapshot. Raises ServiceUnavailable."""
        reader = self._movers_reader
        reader.refresh()
        self._movers = tuple(reader.movers(_N_MOVERS))
        self._accuracy = reader.accuracy(_ACCURACY_DAYS)
        now_s = time.monotonic()
        if reader.n_series != self._n_named and now_s - self._named_s >= _NAMES_REFRESH_S:
            self._names = (*sorted(reader.rollups()), *reader.by_volume()[:_MAX_NAMES])
            self._n_named, self._named_s = reader.n_series, now_s

    def _publish(self, *, problem: str | None) -> None:
        reader = self._reader
        stats = reader.stats()
        self.latest = Snapshot(
            at_ms=self._now_ms(),
            info=reader.info(),
            stats=stats,
            fault=reader.fault(),
            views=self._views,
            movers=self._movers,
            names=self._names,
            rollups=tuple(sorted(reader.rollups(), key=lambda name: (name != TOTAL, name))),
            categories=reader.categories(),
            n_series=reader.n_series,
            speed=self._speed(stats.watermark_ms),
            accuracy=self._accuracy,
            problem=problem,
        )

    def _speed(self, watermark_ms: int | None) -> float | None:
        """Event-time seconds per second over the last ten seconds; None while unknown."""
        if watermark_ms is None:
            return None
        now_s = time.monotonic()
        self._watermarks.append((now_s, watermark_ms))
        while now_s - self._watermarks[0][0] > _SPEED_WINDOW_S:
            self._watermarks.popleft()
        since_s, from_ms = self._watermarks[0]
        if now_s - since_s < 1:
            return None
        return max(0.0, (watermark_ms - from_ms) / 1_000 / (now_s - since_s))
