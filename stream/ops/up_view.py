"""Terminal output of `surgecast up`: addresses, progress of history, training and replay, result.

Everything but the final summary goes to stderr. If stderr is not a terminal, progress is one line
at most every ten seconds.
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from stream.ops.up_summary import Summary
from stream.processes.output import print_json
from stream.processes.ports import reachable_host
from stream.processes.progress_lines import Step
from stream.readside.worker_stats import DeploymentStats
from stream.settings import Settings

_LINE_EVERY_S = 10.0
_NAMES = {"history": "history", "train": "training", "replay": "replay", "clicks": "clicks"}


class View:
    """Terminal output of one run; a context manager."""

    def __init__(self, *, as_json: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._as_json = as_json
        self._bars = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}", style="dim"),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._steps: dict[str, Step] = {}
        self._stats: DeploymentStats | None = None
        self._status = Text()
        self._live: Live | None = None
        self._line_s = 0.0

    def __enter__(self) -> "View":
        if self._console.is_terminal:
            self._live = Live(
                Group(self._bars, self._status), console=self._console, refresh_per_second=4
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def note(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)

    def ready(self, settings: Settings) -> None:
        """Print the addresses of all services."""
        table = Table.grid(padding=(0, 2))
        dashboard, api = settings.dashboard, settings.api
        table.add_row("Dashboard", _link(dashboard.host, dashboard.port, ""))
        table.add_row("HTTP API", _link(api.host, api.port, "/docs"))
        table.add_row("Kafka", settings.kafka.bootstrap_servers or "")
        table.add_row("Store", _without_password(settings.redis.url or ""))
        table.add_row("Logs", str(settings.data_dir / "logs"))
        self._console.print(
            Panel(
                table,
                title="[bold]Surgecast[/bold]",
                subtitle="Ctrl-C stops everything",
                expand=False,
                padding=(1, 2),
            ),
            highlight=False,
        )

    def update(self, steps: Iterable[Step]) -> None:
        """Show the progress of the jobs."""
        for step in steps:
            new = self._steps.get(step.stage)
            if new == step:
                continue
            self._steps[step.stage] = step
            if step.stage not in self._tasks:
                name = _NAMES.get(step.stage, step.stage)
                self._tasks[step.stage] = self._bars.add_task(name, total=None, note="")
            self._bars.update(
                self._tasks[step.stage],
                completed=step.done,
                total=step.total or None,
                note=facts_text(step.facts),
            )
        self._line()

    def live(self, stats: DeploymentStats) -> None:
        """Show the workers' counters."""
        self._stats = stats
        self._status.plain = stats_text(stats)

    def stopping(self) -> None:
        """Announce that the children are being stopped."""
        self.note("stopping")

    def summary(self, summary: Summary) -> None:
        """Print the result: one JSON object on stdout, or a table."""
        if self._as_json:
            print_json(summary.as_dict())
            return
        table = Table(title="Replay", show_header=False)
        for name, value in summary.as_dict().items():
            table.add_row(name.replace("_", " "), _plain(name, value))
        Console().print(table)

    def _line(self) -> None:
        now_s = time.monotonic()
        if self._live is not None or now_s - self._line_s < _LINE_EVERY_S:
            return
        self._line_s = now_s
        parts = [
            f"{_NAMES.get(step.stage, step.stage)} {step.done / step.total:.0%}"
            for step in self._steps.values()
            if step.total
        ]
        if self._stats is not None and self._stats.workers:
            parts.append(stats_text(self._stats))
        if parts:
            self.note(", ".join(parts))


def stats_text(stats: DeploymentStats) -> str:
    """One line with the workers' counters.

    >>> stats_text(DeploymentStats())
    'no worker has reported yet'
    """
    if not stats.workers:
        return "no worker has reported yet"
    latency = "-" if stats.latency_p50_ms is None else f"{stats.latency_p50_ms:.0f} ms"
    models = ", ".join(stats.model_ids) or "exponential smoothing"
    lag = "unknown" if stats.lag is None else f"{stats.lag:,}"
    return (
        f"{stats.total('counted'):,} events counted, {stats.events_per_s:,.0f}/s, "
        f"lag {lag}, watermark {time_text(stats.watermark_ms)}, "
        f"event to forecast {latency}, model {models}"
    )


def facts_text(facts: Any) -> str:
    """Format the facts of a step: rates with /s, event times in UTC.

    >>> facts_text({"events_per_s": 12345.6, "event_time_ms": 0, "loss": 0.25})
    '12,346 events/s, 1970-01-01 00:00, loss 0.25'
    """
    parts = []
    for name, value in facts.items():
        if value is None:
            continue
        if name == "events_per_s":
            parts.append(f"{value:,.0f} events/s")
        elif name.endswith("_ms"):
            parts.append(time_text(value))
        elif isinstance(value, float):
            parts.append(f"{name} {value:.4g}")
        else:
            parts.append(f"{name} {value}")
    return ", ".join(parts)


def time_text(time_ms: int | None) -> str:
    """Format an event time to the minute, UTC.

    >>> time_text(1_315_180_800_000), time_text(None)
    ('2011-09-05 00:00', '-')
    """
    if time_ms is None:
        return "-"
    return f"{datetime.fromtimestamp(time_ms / 1_000, UTC):%Y-%m-%d %H:%M}"


def _link(host: str, port: int, path: str) -> str:
    return f"http://{reachable_host(host)}:{port}{path}"


def _without_password(url: str) -> str:
    scheme, _, rest = url.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest.rpartition("@")[2]


def _plain(name: str, value: Any) -> str:
    if name.endswith("watermark_ms"):
        return time_text(value)
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
