"""Sends the orders and clicks of files to Kafka in event-time order, at any speed.

The replay has its own clock: at speed X it advances X event-time seconds per second, without a
speed (max) it jumps from event to event. Heartbeats carry this clock to the workers, so that
buckets also close at night, in silent partitions and at the end of the files. A state file stores
the position that the broker has acknowledged. A resumed replay may send unacknowledged events
twice; workers drop the duplicates by their ids.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import polars as pl

from stream.errors import UsageError
from stream.jobs.replay.progress import Rate, ReplayProgress, Show, replace_file
from stream.jobs.replay.sender import Sender, few_collections
from stream.jobs.replay.timeline import Encoder, Timeline, cut
from stream.settings import Settings
from stream.topics import CATALOG, CLICKS, ORDERS

_CHUNK: Final = 4_096
_TICK_S: Final = 0.05
_SHOW_EVERY_S: Final = 0.25
_SAVE_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """Acknowledged events by topic; times of the first and last event.

    `heartbeat_ms` is the event time of the last heartbeat; `complete` is False if the replay was
    stopped before the end.
    """

    events: dict[str, int]
    seconds: float
    first_event_ms: int | None
    last_event_ms: int | None
    heartbeat_ms: int | None
    complete: bool
    resumed_at: int = 0

    @property
    def events_per_s(self) -> float:
        """Orders and clicks per second over the whole replay."""
        counted = self.events.get(ORDERS.name, 0) + self.events.get(CLICKS.name, 0)
        return counted / self.seconds if self.seconds else 0.0


class _State(msgspec.Struct):
    """The state file: which events, and the acknowledged position."""

    fingerprint: str
    position: int
    total: int
    event_time_ms: int
    version: int = 1


def state_path(settings: Settings) -> Path:
    """Path of the file that a replay resumes from."""
    return settings.data_dir / "replay-state.json"


def replay(
    settings: Settings,
    orders: pl.DataFrame,
    clicks: pl.DataFrame | None = None,
    catalog: pl.DataFrame | None = None,
    *,
    speed: float | None = None,
    start_ms: int | None = None,
    end_ms: int | None = None,
    limit: int | None = None,
    resume: bool = False,
    progress: Show | None = None,
    stop: threading.Event | None = None,
) -> ReplayReport:
    """Send the catalog, then the events of ``[start_ms, end_ms)`` in event-time order.

    `speed` is event-time seconds per second, None as fast as possible; `limit` is the number of
    order lines (clicks end at the same time). Frames are those of `stream.jobs.files.event_files`.
    With `resume`, continue at the position in the state file. `progress` is called four times a
    second. Ends early, and can be resumed, when `stop` is set or on KeyboardInterrupt, which is
    raised again.

    Raises ServiceUnavailable if the broker does not answer; UsageError for an unusable speed, span,
    state file or topic.
    """
    if speed is not None and not 0 < speed < float("inf"):
        raise UsageError(f"--speed {speed}: give a number above 0, or max")
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: give at least 1")
    lines = cut(orders, start_ms=start_ms, end_ms=end_ms, limit=limit)
    if not lines.height:
        raise UsageError("no order line is within --start and --end; choose another span")
    if limit is not None and lines.height == limit:
        end_ms = int(lines["ts"][-1]) + 1
    seen = None if clicks is None else cut(clicks, start_ms=start_ms, end_ms=end_ms)
    timeline = Timeline(lines, seen)
    run = _Run(settings, timeline, resume=resume, speed=speed, start_ms=start_ms, show=progress)
    with few_collections(), Sender(settings, linger_ms=50 if speed is None else 5) as sender:
        return run.through(sender, catalog, stop or threading.Event())


@dataclass(slots=True)
class _Run:
    """One replay of a timeline: the clock, the state file and the progress."""

    settings: Settings
    timeline: Timeline
    resume: bool
    speed: float | None
    start_ms: int | None
    show: Show | None
    position: int = 0
    _started_s: float = field(default_factory=time.monotonic)
    _shown_s: float = 0.0
    _saved_s: float = 0.0
    _rate: Rate = field(default_factory=Rate)

    def through(
        self, sender: Sender, catalog: pl.DataFrame | None, stop: threading.Event
    ) -> ReplayReport:
        """Send all events; see `replay`."""
        encoder = Encoder(sender.partitions)
        resumed_at = self.position = self._saved_position() if self.resume else 0
        begin_ms = self._begin_ms()
        if catalog is not None:
            sender.send(encoder.records(CATALOG.name, catalog))
        sender.mark(self.position, begin_ms)
        complete = False
        try:
            for upto, clock_ms in self._steps(begin_ms, stop):
                while self.position < upto:
                    reached = min(self.position + _CHUNK, upto)
                    sender.send(self.timeline.records(self.position, reached, encoder))
                    self.position = reached
                    sender.mark(reached, self._complete_through_ms(clock_ms))
                    self._report(sender)
                sender.mark(self.position, self._complete_through_ms(clock_ms))
                self._report(sender)
            complete = self.position == len(self.timeline)
            if complete:
                sender.finish(self._end_ms())
            else:
                sender.drain()
        except KeyboardInterrupt:
            sender.collect_acknowledgements()
            raise
        finally:
            self._save(sender)
        self._report(sender, done=True)
        counts = self.timeline.counts(resumed_at, self.position)
        if catalog is not None:
            counts[CATALOG.name] = catalog.height
        times = self.timeline.event_time_N[resumed_at : self.position]
        return ReplayReport(
            events=counts,
            seconds=time.monotonic() - self._started_s,
            first_event_ms=int(times[0]) if len(times) else None,
            last_event_ms=int(times[-1]) if len(times) else None,
            heartbeat_ms=sender.heartbeat_ms,
            complete=complete,
            resumed_at=resumed_at,
        )

    def _steps(self, begin_ms: int, stop: threading.Event) -> Iterator[tuple[int, int | None]]:
        """Yield the position up to which events are due, and the clock (None at max speed)."""
        times = self.timeline.event_time_N
        begin_s = time.monotonic()
        while self.position < len(times):
            if self.speed is None:
                if stop.is_set():
                    return
                yield min(self.position + _CHUNK, len(times)), None
            else:
                if stop.wait(_TICK_S):
                    return
                clock_ms = begin_ms + int((time.monotonic() - begin_s) * 1_000 * self.speed)
                yield int(np.searchsorted(times, clock_ms, side="right")), clock_ms

    def _begin_ms(self) -> int:
        """Start of the clock: `start_ms`, or the next event of a resumed replay."""
        times = self.timeline.event_time_N
        if self.start_ms is not None and not self.position:
            return self.start_ms
        return int(times[min(self.position, len(times) - 1)])

    def _complete_through_ms(self, clock_ms: int | None) -> int:
        """The time before which every event has been sent: the clock, or the next event's time."""
        times = self.timeline.event_time_N
        if self.position == len(times):
            return int(times[-1]) if clock_ms is None else clock_ms
        next_ms = int(times[self.position])
        return next_ms if clock_ms is None else min(clock_ms, next_ms)

    def _end_ms(self) -> int:
        """A time after which every bucket with an event has closed, and one more."""
        window = self.settings.window
        last_ms = int(self.timeline.event_time_N[-1])
        bucket_end_ms = (last_ms // window.bucket + 1) * window.bucket
        return bucket_end_ms + window.allowed_lateness + window.bucket

    def _report(self, sender: Sender, *, done: bool = False) -> None:
        """Show and save the progress when due."""
        now_s = time.monotonic()
        mark = sender.settled
        if mark is None:
            return
        if now_s - self._saved_s >= _SAVE_EVERY_S:
            self._saved_s = now_s
            self._save(sender)
        if self.show is not None and (done or now_s - self._shown_s >= _SHOW_EVERY_S):
            self._shown_s = now_s
            self.show(
                ReplayProgress(
                    sent=self.position,
                    acked=mark.position,
                    total=len(self.timeline),
                    events_per_s=self._rate.at(mark.position, now_s=now_s),
                    event_time_ms=mark.event_time_ms,
                    seconds=now_s - self._started_s,
                    done=done,
                )
            )

    def _save(self, sender: Sender) -> None:
        if sender.settled is None:
            return
        state = _State(
            fingerprint=self.timeline.fingerprint,
            position=sender.settled.position,
            total=len(self.timeline),
            event_time_ms=sender.settled.event_time_ms,
        )
        path = state_path(self.settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, msgspec.json.encode(state))

    def _saved_position(self) -> int:
        path = state_path(self.settings)
        if not path.is_file():
            return 0
        try:
            state = msgspec.json.decode(path.read_bytes(), type=_State)
        except msgspec.DecodeError:
            raise UsageError(f"{path} is not the state of a replay; run without --resume") from None
        if state.fingerprint != self.timeline.fingerprint:
            raise UsageError(
                f"{path} belongs to a replay of other events; run without --resume, "
                "or with the same files, --start, --end and --limit"
            )
        return min(state.position, len(self.timeline))
