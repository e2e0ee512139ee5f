"""Sends the events of an endless simulated shop to Kafka and writes its true demand to files.

The shop runs X event-time seconds per second (or as fast as possible) from its opening until it has
caught up with the wall clock, then in real time, so that no event is in the future. Events and
heartbeats are sent as in a replay. Each day is a Parquet file with demand, sales, lost sales and
rates.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

from model.durations import DAY_MS, HOUR_MS
from stream.clock import wall_clock_ms
from stream.errors import UsageError
from stream.jobs.replay.progress import Rate, ReplayProgress, Show
from stream.jobs.replay.sender import Sender, few_collections
from stream.jobs.replay.timeline import Encoder, Record, Timeline
from stream.jobs.simulate.shop import Hour, Shop
from stream.kafka.partitioner import partition_of
from stream.settings import Settings
from stream.topics import CATALOG, INVENTORY, PLANS

#: Labels of these inputs in `sc2:info`, shown wherever the inputs are.
SIMULATED_LABELS: Final = {
    "orders": "synthetic orders of a simulated shop",
    "clicks": "synthetic clicks of a simulated shop",
}

_TICK_S: Final = 0.05
_CHUNK: Final = 4_096
_SHOW_EVERY_S: Final = 0.25
_DEFAULT_PAST_MS: Final = 28 * DAY_MS


@dataclass(frozen=True, slots=True)
class SimulateReport:
    """What a simulation sent; `truth` is the folder with one Parquet file per day."""

    events: int
    hours: int
    seconds: float
    start_ms: int
    end_ms: int
    truth: Path


def simulate(
    settings: Settings,
    *,
    seed: int = 1,
    products: int = 300,
    orders_per_hour: float = 600.0,
    speed: float | None = None,
    start_ms: int | None = None,
    hours: int | None = None,
    truth: Path | None = None,
    progress: Show | None = None,
    stop: threading.Event | None = None,
    now_ms: Callable[[], int] = wall_clock_ms,
) -> SimulateReport:
    """Run a shop of `products` products with a demand of `orders_per_hour` order lines on average.

    `speed` is event-time seconds per second until it has caught up, None as fast as possible;
    `start_ms` is the opening (default: 28 days ago); it ends after `hours`, when `stop` is set, or
    on KeyboardInterrupt. True demand goes to `truth` (default `<data_dir>/simulation`).

    Raises UsageError for numbers out of range, ServiceUnavailable if the broker does not answer.
    """
    opening_ms = now_ms() - _DEFAULT_PAST_MS if start_ms is None else start_ms
    if products < 1 or not 0 < orders_per_hour < 1e7:
        raise UsageError(
            f"--products {products} --orders-per-hour {orders_per_hour}: "
            "give at least 1 product, and order lines above 0 and below 10,000,000"
        )
    if speed is not None and not 0 < speed < float("inf"):
        raise UsageError(f"--speed {speed}: give a number above 0, or max")
    if opening_ms > now_ms():
        raise UsageError(
            f"--start {opening_ms} is in the future, and workers reject future events; "
            "give a time in the past"
        )
    shop = Shop(seed=seed, products=products, orders_per_hour=orders_per_hour, start_ms=opening_ms)
    run = _Run(
        settings=settings,
        shop=shop,
        clock=_clock(shop.clock_ms, speed, now_ms),
        truth=truth or settings.data_dir / "simulation",
        show=progress,
        stop=stop or threading.Event(),
    )
    with few_collections(), Sender(settings, linger_ms=50 if speed is None else 5) as sender:
        return run.through(sender, hours)


def _clock(begin_ms: int, speed: float | None, now_ms: Callable[[], int]) -> Callable[[], int]:
    """Return the shop's clock: it runs at `speed` until it has caught up with `now_ms`."""
    if speed is None:
        return now_ms
    begin_s = time.monotonic()
    return lambda: min(begin_ms + int((time.monotonic() - begin_s) * 1_000 * speed), now_ms())


@dataclass(slots=True)
class _Run:
    """One simulation: the shop, its clock, the folder for the true demand."""

    settings: Settings
    shop: Shop
    clock: Callable[[], int]
    truth: Path
    show: Show | None
    stop: threading.Event
    sent: int = 0
    _started_s: float = field(default_factory=time.monotonic)
    _shown_s: float = 0.0
    _rate: Rate = field(default_factory=Rate)
    _day: list[pl.DataFrame] = field(default_factory=list)

    def through(self, sender: Sender, hours: int | None) -> SimulateReport:
        """Send hour by hour until stopped."""
        start_ms = self.shop.clock_ms
        done = 0
        encoder = Encoder(sender.partitions)
        try:
            while done != hours and not self.stop.is_set():
                hour = self.shop.next_hour()
                if not self._send(sender, encoder, hour):
                    break
                done += 1
                self._add_truth(hour)
            window = self.settings.window
            if done == hours:
                bucket_end_ms = -(-self.shop.clock_ms // window.bucket) * window.bucket
                sender.finish(bucket_end_ms + window.allowed_lateness + window.bucket)
            else:
                sender.drain()
        except KeyboardInterrupt:
            sender.collect_acknowledgements()
            raise
        finally:
            self._write_day()
        self._report(start_ms + done * HOUR_MS, done=True)
        return SimulateReport(
            events=self.sent,
            hours=done,
            seconds=time.monotonic() - self._started_s,
            start_ms=start_ms,
            end_ms=start_ms + done * HOUR_MS,
            truth=self.truth,
        )

    def _send(self, sender: Sender, encoder: Encoder, hour: Hour) -> bool:
        """Send one hour as the clock advances; False if stopped before its end."""
        count = sender.partitions
        sender.send(_keyed(CATALOG.name, "sku", hour.catalog, count))
        sender.send(_keyed(PLANS.name, "plan_id", hour.plans, count))
        timeline = Timeline(hour.orders, hour.clicks)
        times, at = timeline.event_time_N, 0
        end_ms = hour.start_ms + HOUR_MS
        while True:
            clock_ms = min(self.clock(), end_ms)
            due = int(np.searchsorted(times, clock_ms, side="right"))
            while at < due:
                reached = min(at + _CHUNK, due)
                sender.send(timeline.records(at, reached, encoder))
                self.sent += reached - at
                at = reached
                next_ms = int(times[at]) if at < len(times) else end_ms
                sender.mark(self.sent, min(next_ms, clock_ms))
            if clock_ms == end_ms:
                break
            sender.mark(self.sent, clock_ms)
            self._report(clock_ms)
            if self.stop.wait(_TICK_S):
                return False
        sender.send(_keyed(INVENTORY.name, "sku", hour.inventory, count))
        sender.mark(self.sent, end_ms)
        self._report(end_ms)
        return True

    def _add_truth(self, hour: Hour) -> None:
        self._day.append(hour.truth)
        if (hour.start_ms + HOUR_MS) % DAY_MS == 0:
            self._write_day()

    def _write_day(self) -> None:
        """Write the true demand since the last file; the name is the first hour."""
        if not self._day:
            return
        first = datetime.fromtimestamp(int(self._day[0]["start_ms"][0]) / 1_000, UTC)
        self.truth.mkdir(parents=True, exist_ok=True)
        path = self.truth / f"truth-{first:%Y-%m-%dT%H}.parquet"
        temporary = path.with_suffix(".new")
        pl.concat(self._day).write_parquet(temporary)
        temporary.replace(path)
        self._day = []

    def _report(self, clock_ms: int, *, done: bool = False) -> None:
        now_s = time.monotonic()
        if self.show is None or (now_s - self._shown_s < _SHOW_EVERY_S and not done):
            return
        self._shown_s = now_s
        self.show(
            ReplayProgress(
                sent=self.sent,
                acked=self.sent,
                total=0,
                events_per_s=self._rate.at(self.sent, now_s=now_s),
                event_time_ms=clock_ms,
                seconds=now_s - self._started_s,
                done=done,
            )
        )


def _keyed(
    topic: str, key_field: str, records: list[dict[str, Any]], partitions: int
) -> Iterator[Record]:
    """Encode records of a compacted topic with their keys."""
    for record in records:
        key = str(record[key_field]).encode()
        yield topic, key, msgspec.json.encode(record), partition_of(key, partitions)
