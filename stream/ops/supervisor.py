"""Starts the roles of a deployment as child processes, watches them and stops them in reverse."""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from stream.processes.child import ServiceProcess
from stream.processes.progress_lines import Follower
from stream.processes.signals import held_signals
from stream.settings import Settings, child_environment

#: Runs our own command line in a child, whatever the working directory.
COMMAND = (sys.executable, "-P", "-c", "from stream.cli import main; main()")


class Supervisor:
    """Child processes of one run. `stack` owns them: closing it stops the newest child first."""

    def __init__(self, stack: ExitStack, settings: Settings) -> None:
        self._stack = stack
        self.settings = settings
        self._logs = settings.data_dir / "logs"
        self._watched: list[ServiceProcess] = []

    def watch(self, service: ServiceProcess) -> None:
        """Also watch a child that has another owner."""
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
        """Start `surgecast ARGUMENTS` with our settings, logging to `<data_dir>/logs/<name>.log`.

        If an `essential` child ends, the run fails. With `follow`, its stdout is read as progress.
        """
        with held_signals():  # a child that runs must be in the stack
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
        """Raise EmbeddedServiceFailed, naming the child, if an essential child has ended."""
        for child in self._watched:
            child.require_alive()

    def wait_for(self, child: ServiceProcess, tick: Callable[[], None]) -> int:
        """Wait for a job while watching the other children; return its exit status."""
        while child.alive():
            self.check()
            tick()
        return child.process.wait()
