"""Progress of a replay on stderr: a bar on a terminal, otherwise a line every few seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_LINE_EVERY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """Progress at one moment: `sent` and `acked` (by the broker) of `total` events (0: endless).

    `event_time_ms` is the replay's clock, `events_per_s` the rate over the last seconds.
    """

    sent: int
    acked: int
    total: int
    events_per_s: float
    event_time_ms: int
    seconds: float
    done: bool = False


Show = Callable[[ReplayProgress], None]


@contextmanager
def shown_progress(stream: TextIO | None = None) -> Iterator[Show]:
    """Show progress on `stream` (default stderr): a bar on a terminal, lines elsewhere."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield _Lines(stream)
        return
    columns = (
        TextColumn("sent"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]} events/s · event time {task.fields[clock]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream)) as bar:
        task = bar.add_task("sent", total=None, rate="0", clock="…")

        def show(progress: ReplayProgress) -> None:
            bar.update(
                task,
                completed=progress.acked,
                total=progress.total or None,
                rate=f"{progress.events_per_s:,.0f}",
                clock=clock_text(progress.event_time_ms),
            )

        yield show


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file atomically, so that readers never see a partial file."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_bytes(content)
    temporary.replace(path)


def clock_text(event_time_ms: int) -> str:
    """Format an event time to the minute, UTC.

    >>> clock_text(1_322_727_960_000)
    '2011-12-01 08:26'
    """
    return datetime.fromtimestamp(event_time_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M")


class _Lines:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next_s = 0.0

    def __call__(self, progress: ReplayProgress) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s and not progress.done:
            return
        self._next_s = now_s + _LINE_EVERY_S
        done = f"{progress.acked:,} events"
        if progress.total:
            share = progress.acked / progress.total
            done = f"{share:4.0%}  {progress.acked:,} of {progress.total:,} events"
        self._stream.write(
            f"sent {done}"
            f"  {progress.events_per_s:,.0f}/s  event time {clock_text(progress.event_time_ms)}\n"
        )
        self._stream.flush()


class Rate:
    """Events per second over the last few seconds.

    >>> rate = Rate()
    >>> rate.at(0, now_s=0.0), rate.at(500, now_s=1.0), rate.at(1_500, now_s=2.0)
    (0.0, 500.0, 750.0)
    """

    def __init__(self, over_s: float = 5.0) -> None:
        self._over_s = over_s
        self._samples: list[tuple[float, int]] = []

    def at(self, count: int, *, now_s: float) -> float:
        """Rate after `count` events in all at `now_s` (a monotonic clock, seconds)."""
        self._samples.append((now_s, count))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - self._over_s:
            self._samples.pop(0)
        then_s, before = self._samples[0]
        return (count - before) / (now_s - then_s) if now_s > then_s else 0.0
