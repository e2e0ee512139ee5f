"""Starts the roles of one machine as children, watches them, stops them in the reverse order."""

import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from stream.processes import ServiceProcess
from stream.progress import Follower
from stream.settings import Settings, child_environment

#: Runs our own command line in a child whatever folder we were started in.
COMMAND = (sys.executable, "-P", "-c", "from stream.cli import main; main()")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_signals() -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into KeyboardInterrupt; ignore those after it.

    Whoever presses Ctrl-C twice does not break the orderly stop.
    """
    seen = False

    def handler(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if not seen:
            seen = True
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class Supervisor:
    """Children of one run. `stack` owns them: closing it stops the last one started first."""

    def __init__(self, stack: ExitStack, settings: Settings) -> None:
        self._stack = stack
        self.settings = settings
        self._logs = settings.data_dir / "logs"
        self._watched: list[ServiceProcess] = []

    def watch(self, service: ServiceProcess) -> None:
        """Take a child that is owned elsewhere into the watch."""
        self._watched.append(service)

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        essential: bool = True,
        niceness: int = 0,
        follow: bool = False,
        grace_s: float = 15.0,
    ) -> tuple[ServiceProcess, Follower | None]:
        """Start `surgecast ARGUMENTS` with our settings; its log is `<data_dir>/logs/<name>.log`.

        The end of an `essential` child is a failure. With `follow`, its stdout is read as progress.
        """
        child = ServiceProcess.start(
            name,
            [*COMMAND, *arguments],
            log_path=self._logs / f"{name}.log",
            environment=child_environment(self.settings) | {"PYTHONUNBUFFERED": "1"},
            pipe_stdout=follow,
            niceness=niceness,
            grace_s=grace_s,
        )
        self._stack.enter_context(child)
        if essential:
            self._watched.append(child)
        pipe = child.process.stdout
        return child, Follower(pipe) if pipe is not None else None

    def check(self) -> None:
        """Raise EmbeddedServiceFailed, naming the child, if one that must run has ended."""
        for child in self._watched:
            child.require_alive()

    def wait_for(self, child: ServiceProcess, tick: Callable[[], None]) -> int:
        """Let a job run to its end, the others watched; return its exit status."""
        while child.alive():
            self.check()
            tick()
        return child.process.wait()


def listens(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=0.5).close()
    except OSError:
        return False
    return True


def reachable_host(host: str) -> str:
    """The address to visit a server that listens on `host`.

    >>> reachable_host("0.0.0.0"), reachable_host("10.0.0.7")
    ('127.0.0.1', '10.0.0.7')
    """
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - compared, not bound


def log_files(folder: Path) -> list[str]:
    """Names of the logs of a run, sorted."""
    return sorted(path.name for path in folder.glob("*.log"))
