"""`surgecast up`: broker, store, topics and every role on this machine, as children of one process.

Events before the start of the replay are history: they are stored as closed buckets, and a first
model is trained on them while the replay already runs and exponential smoothing serves. Afterwards
the trainer trains challengers from the stored history.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from stream.errors import EmbeddedServiceFailed, UsageError
from stream.kafka.admin import create_topics
from stream.ops.embedded import embedded_broker, embedded_store
from stream.ops.supervisor import Supervisor
from stream.ops.up_summary import Summary, Watcher
from stream.ops.up_view import View
from stream.processes.child import ServiceProcess, writable_folder
from stream.processes.ports import free_port, listens, reachable_host, require_free_port
from stream.processes.progress_lines import Follower, Step
from stream.processes.signals import stop_signals
from stream.settings import Settings

_TICK_S = 0.25
_SERVER_TIMEOUT_S = 90.0
_TRAINER_NICENESS = 10
_SESSION_MS = 4_000
_PUBLISH_EVERY_MS = 10_000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReplaySource:
    """Files to replay. Events before `start_ms` are history (None: there is no history).

    `speed` is event-time seconds per second, None for as fast as possible. The shipped orders come
    with a catalog and synthetic clicks if no such files are given.
    """

    orders: Path
    clicks: Path | None
    catalog: Path | None
    speed: float | None
    start_ms: int | None

    def arguments(self) -> list[str]:
        """Command-line arguments that all jobs on these files share."""
        clicks = ["--clicks", str(self.clicks)] if self.clicks else []
        catalog = ["--catalog", str(self.catalog)] if self.catalog else []
        return [str(self.orders), *clicks, *catalog, "--progress-lines"]


def up(settings: Settings, view: View, *, replay: ReplaySource | None, until_end: bool) -> None:
    """Run everything until Ctrl-C, SIGTERM or, with `until_end`, the end of the replay.

    Raises UsageError for a port in use or a folder that cannot be written, before anything starts,
    and EmbeddedServiceFailed, with the name and the log of the child, if a child ends by itself.
    No child is left when it returns or raises.
    """
    folder = writable_folder(settings.data_dir)
    settings = _with_ports(settings.model_copy(update={"data_dir": folder}))
    with stop_signals(), view:
        try:
            with ExitStack() as stack:
                _Run(stack, settings, view, replay).run(until_end=until_end)
                view.stopping()
        except KeyboardInterrupt:
            view.note("stopped")


class _Run:
    """One run with known ports."""

    def __init__(
        self, stack: ExitStack, settings: Settings, view: View, replay: ReplaySource | None
    ) -> None:
        self._stack = stack
        self._view = view
        self._replay = replay
        self._settings = settings
        self._supervisor = Supervisor(stack, settings)
        self._trainer: ServiceProcess | None = None
        self._followers: list[Follower] = []

    def run(self, *, until_end: bool) -> None:
        """Start everything in order; run until stopped or until the replay has been counted."""
        self._start_services()
        self._start("api", "api")
        self._start("dashboard", "dashboard")
        if self._replay is not None and self._replay.start_ms is not None:
            self._store_history(self._replay)
        self._start("worker", "worker")
        self._start_trainer()
        self._await_servers()
        self._view.ready(self._settings)
        watcher = Watcher(self._settings)
        if self._replay is None:
            self._run_until_stopped(watcher)
        else:
            self._run_replay(self._replay, watcher, until_end=until_end)

    def _start_services(self) -> None:
        settings = self._settings
        if settings.kafka.bootstrap_servers is None:
            self._view.note("starting the embedded broker")
            broker = self._stack.enter_context(embedded_broker(settings))
            kafka: dict[str, Any] = {"bootstrap_servers": broker.bootstrap_servers}
            if broker.kind == "tansu":  # joining a group takes half the session timeout
                kafka["session_timeout"] = min(settings.kafka.session_timeout, _SESSION_MS)
                # it keeps every record in memory, and most records are forecasts
                every_ms = max(settings.forecasts.publish_every, _PUBLISH_EVERY_MS)
                settings = _updated(settings, "forecasts", {"publish_every": every_ms})
            settings = _updated(settings, "kafka", kafka)
            self._supervisor.watch(broker.service)
        if settings.redis.url is None:
            self._view.note("starting the embedded store")
            store = self._stack.enter_context(embedded_store(settings))
            settings = _updated(settings, "redis", {"url": store.url})
            self._supervisor.watch(store.service)
        self._settings = self._supervisor.settings = settings
        create_topics(settings)

    def _start(self, name: str, *arguments: str) -> None:
        self._view.note(f"starting the {name}")
        self._supervisor.start(name, arguments)

    def _store_history(self, replay: ReplaySource) -> None:
        """Store the events before the replay as closed buckets, while API and dashboard start."""
        child, follower = self._supervisor.start(
            "backfill",
            [
                "backfill",
                *replay.arguments(),
                "--until",
                str(replay.start_ms),
                "--if-empty",
                "--no-statistics",
            ],  # they would take longer than all else before the first forecast
            essential=False,
            follow=True,
        )
        self._follow(follower)
        if self._supervisor.wait_for(child, self._tick):
            raise child.failure()

    def _start_trainer(self) -> None:
        """Train a first model if there is history (a no-op if there is a champion)."""
        replay = self._replay
        if replay is None or replay.start_ms is None:
            self._start_periodic_trainer()
            return
        self._trainer, follower = self._supervisor.start(
            "first-training",
            ["trainer", *replay.arguments(), "--until", str(replay.start_ms)],
            essential=False,
            niceness=_TRAINER_NICENESS,
            follow=True,
        )
        self._follow(follower)

    def _start_periodic_trainer(self) -> None:
        """Train challengers until we stop. It retries by itself, so it is not essential."""
        self._supervisor.start("trainer", ["trainer"], essential=False, niceness=_TRAINER_NICENESS)

    def _await_servers(self) -> None:
        deadline = time.monotonic() + _SERVER_TIMEOUT_S
        for server in (self._settings.api, self._settings.dashboard):
            while not listens(reachable_host(server.host), server.port):
                self._supervisor.check()
                if time.monotonic() > deadline:
                    raise EmbeddedServiceFailed(
                        f"no server on port {server.port} after {_SERVER_TIMEOUT_S:.0f} s; "
                        f"see the logs in {self._settings.data_dir}/logs"
                    )
                self._tick()

    def _run_replay(self, replay: ReplaySource, watcher: Watcher, *, until_end: bool) -> None:
        speed = "max" if replay.speed is None else str(replay.speed)
        start = ["--start", str(replay.start_ms)] if replay.start_ms is not None else []
        began_s = time.monotonic()
        child, follower = self._supervisor.start(
            "replay",
            ["replay", *replay.arguments(), "--speed", speed, *start],
            essential=False,
            follow=True,
        )
        self._follow(follower)
        if self._supervisor.wait_for(child, lambda: self._tick(watcher)):
            raise child.failure()
        replayed = follower.finish().get("replay", Step("replay")) if follower else Step("replay")
        self._view.update([replayed])
        if not until_end:
            self._run_until_stopped(watcher)
            return
        self._view.note("the replay has ended; the worker counts the remaining events")
        while not watcher.drained(replayed):
            self._supervisor.check()
            self._tick(watcher)
        summary: Summary = watcher.summary(seconds=time.monotonic() - began_s)
        self._view.summary(summary)

    def _run_until_stopped(self, watcher: Watcher) -> None:
        while True:
            self._supervisor.check()
            self._tick(watcher)

    def _follow(self, follower: Follower | None) -> None:
        if follower is not None:
            self._followers.append(follower)

    def _tick(self, watcher: Watcher | None = None) -> None:
        """Check the trainer, update the output and sleep for a moment."""
        trainer = self._trainer
        if trainer is not None and not trainer.alive():
            self._trainer = None
            if trainer.process.returncode:
                self._view.note(f"{trainer.failure()}\nexponential smoothing continues to serve")
            elif verdict := trainer.log_tail(1):
                self._view.note(verdict)
            self._start_periodic_trainer()
        self._view.update(
            [step for follower in self._followers for step in follower.newest().values()]
        )
        if watcher is not None:
            self._view.live(watcher.refresh())
        time.sleep(_TICK_S)


def _with_ports(settings: Settings) -> Settings:
    """Replace port 0 by free ports. Raises UsageError if a port is in use."""
    for section, what in (("api", "the HTTP API"), ("dashboard", "the dashboard")):
        server = getattr(settings, section)
        setting = f"SURGECAST_{section.upper()}__PORT"
        require_free_port(server.host, server.port, what=what, setting=setting)
        if server.port == 0:
            settings = _updated(settings, section, {"port": free_port()})
    if settings.api.port == settings.dashboard.port:
        raise UsageError(
            f"api.port and dashboard.port are both {settings.api.port}; change one of them"
        )
    return settings


def _updated(settings: Settings, section: str, values: dict[str, Any]) -> Settings:
    part = getattr(settings, section).model_copy(update=values)
    return settings.model_copy(update={section: part})
