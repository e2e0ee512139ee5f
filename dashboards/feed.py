"""One reader of the store per process, for all sessions: at most four pictures a second.

Two threads read: one the series that sessions watch, one the movers (which need whole blocks). They
publish a new `Snapshot`; sessions pick it up from their own event loop. Nothing is sent from here.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import structlog

from dashboards.snapshot import SeriesView, Snapshot
from dashboards.watched_series import Views
from stream.clock import wall_clock_ms
from stream.errors import SurgecastError
from stream.readside.live_accuracy import LiveAccuracy
from stream.readside.movers import Mover
from stream.readside.reader import Reader
from stream.series_ids import TOTAL

EVERY_S: Final = 0.25
_MOVERS_EVERY_S: Final = 1.0
_NAMES_EVERY_S: Final = 15.0
_MOST_NAMES: Final = 5_000
_N_MOVERS: Final = 8
_ACCURACY_DAYS: Final = 7
_SPEED_OVER_S: Final = 10.0
_PAUSE_S: Final = 0.05

log = structlog.get_logger(__name__)


class Subscription:
    """One session's interest in one series at a time."""

    def __init__(self, feed: "Feed", series_id: str) -> None:
        self._feed = feed
        self.series_id = series_id

    def watch(self, series_id: str) -> None:
        """Watch another series; it is in the snapshots from the next one on."""
        self.series_id = series_id
        self._feed.wake()

    def close(self) -> None:
        """Watch nothing any more; may be called again."""
        self._feed.drop(self)


class Feed:
    """Reads for all sessions. `start` once, `close` at the end; `latest` is never None."""

    def __init__(self, redis: Any, *, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._now_ms = now_ms
        self._reader = Reader(redis, now_ms=now_ms)
        self._movers_reader = Reader(redis, now_ms=now_ms)
        self._lock = threading.Lock()
        self._subscriptions: set[Subscription] = set()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._views = Views()
        self._shown: dict[str, SeriesView] = {}
        self._named = 0
        self._named_s = -_NAMES_EVERY_S
        self._movers: tuple[Mover, ...] | None = None
        self._accuracy: LiveAccuracy | None = None
        self._names: tuple[str, ...] = ()
        self._pace: deque[tuple[float, int]] = deque()
        self.latest = Snapshot(problem="Connecting to the store")

    def start(self) -> None:
        """Start reading. A second call does nothing."""
        if self._threads:
            return
        for name, *args in (
            ("feed", self._turn, EVERY_S, self._wake),
            ("movers", self._turn_movers, _MOVERS_EVERY_S, self._stop),
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
        """Watch a series for a session, until the subscription is closed."""
        subscription = Subscription(self, series_id)
        with self._lock:
            self._subscriptions.add(subscription)
        self.wake()
        return subscription

    def drop(self, subscription: Subscription) -> None:
        """Forget a subscription."""
        with self._lock:
            self._subscriptions.discard(subscription)

    def wake(self) -> None:
        """Read soon rather than at the next turn."""
        self._wake.set()

    def resolve(self, wanted: str) -> str | None:
        """Series a person means: its id, in any case, or `Garden` for `category:Garden`."""
        find = self._reader.find
        for series_id in (wanted, wanted.upper(), wanted.lower(), f"category:{wanted}"):
            if find(series_id):
                return series_id
        folded = {wanted.casefold(), f"category:{wanted}".casefold()}
        return next((name for name in self.latest.names if name.casefold() in folded), None)

    @property
    def watched(self) -> set[str]:
        """Series that sessions watch now."""
        with self._lock:
            return {subscription.series_id for subscription in self._subscriptions}

    @property
    def n_sessions(self) -> int:
        """How many sessions watch."""
        with self._lock:
            return len(self._subscriptions)

    def _run(self, turn: Callable[[], None], every_s: float, waits_for: threading.Event) -> None:
        """Take turns until stopped. A store that is away is waited for."""
        problem = None
        while not self._stop.is_set():
            began_s = time.monotonic()
            try:
                turn()
                problem = None
            except SurgecastError as error:
                if problem != str(error):
                    log.warning("feed_failed", reason=str(error))
                problem = str(error)
                if turn == self._turn:
                    self._publish(problem=problem)
            waits_for.wait(max(_PAUSE_S, every_s - (time.monotonic() - began_s)))
            if not self._stop.is_set():
                waits_for.clear()

    def _turn(self) -> None:
        self._reader.refresh()
        self._shown = self._views.read(self._reader, self.watched)
        self._publish(problem=None)

    def _turn_movers(self) -> None:
        reader = self._movers_reader
        reader.refresh()
        self._movers = tuple(reader.movers(_N_MOVERS))
        self._accuracy = reader.accuracy(_ACCURACY_DAYS)
        now_s = time.monotonic()
        if reader.n_series != self._named and now_s - self._named_s >= _NAMES_EVERY_S:
            self._names = (*sorted(reader.rollups()), *reader.by_volume()[:_MOST_NAMES])
            self._named, self._named_s = reader.n_series, now_s

    def _publish(self, *, problem: str | None) -> None:
        reader = self._reader
        stats = reader.stats()
        self.latest = Snapshot(
            at_ms=self._now_ms(),
            info=reader.info(),
            stats=stats,
            views=self._shown,
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
        """Event-time seconds per second over the last ten; None while unknown."""
        if watermark_ms is None:
            return None
        now_s = time.monotonic()
        self._pace.append((now_s, watermark_ms))
        while now_s - self._pace[0][0] > _SPEED_OVER_S:
            self._pace.popleft()
        since_s, from_ms = self._pace[0]
        if now_s - since_s < 1:
            return None
        return max(0.0, (watermark_ms - from_ms) / 1_000 / (now_s - since_s))
