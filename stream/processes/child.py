"""Child processes with a log file, which never outlive their parent.

Each child leads its own session, so Ctrl-C in the terminal reaches only the parent, which decides
the order of stopping. On Linux the kernel kills the child when the parent dies.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from stream.errors import EmbeddedServiceFailed, UsageError

_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 16_384
MIN_FREE_BYTES = 64 * 2**20


def writable_folder(path: Path) -> Path:
    """Create `path` and its parents, test that it is writable, and return it as absolute path.

    Raises UsageError if it is not writable or less than 64 MiB are free.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
        free = shutil.disk_usage(path).free
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(
            f"data directory {path} cannot be written ({reason}); "
            "name another one with --data-dir or SURGECAST_DATA_DIR"
        ) from None
    if free < MIN_FREE_BYTES:
        raise UsageError(
            f"no disk space: {free // 2**20} MiB free under {path}, "
            f"{MIN_FREE_BYTES // 2**20} MiB are needed; free some or set SURGECAST_DATA_DIR"
        )
    return path.resolve()


def _die_with_parent(parent_pid: int) -> Callable[[], None] | None:
    """Return a hook to run in the child before exec: SIGKILL when the parent dies. Linux only."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def hook() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # it died before the call above
            os._exit(1)

    return hook


@dataclass
class ServiceProcess:
    """One child process. Create it with `start`; use it as a context manager or call `stop`.

    The child dies with the thread that started it, so start children from the main thread.
    """

    name: str
    log_path: Path
    process: "subprocess.Popen[bytes]"
    grace_s: float = 10.0
    _log: IO[bytes] | None = field(default=None, repr=False)

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        log_path: Path,
        environment: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        pipe_stdout: bool = False,
        niceness: int = 0,
        grace_s: float = 10.0,
    ) -> "ServiceProcess":
        """Start `command`; its output goes to `log_path` (stdout to a pipe with `pipe_stdout`).

        `stdin` is written to the child and closed. Raises EmbeddedServiceFailed if the program
        does not start, UsageError if the log is not writable.
        """
        writable_folder(log_path.parent)
        if niceness and shutil.which("nice"):
            command = ["nice", "-n", str(niceness), *command]
        log = log_path.open("wb")
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE if pipe_stdout else log,
                stderr=log,
                env=None if environment is None else dict(environment),
                start_new_session=True,
                preexec_fn=_die_with_parent(os.getpid()),  # noqa: PLW1509 - no threads hold locks it takes
            )
        except OSError as error:
            log.close()
            raise EmbeddedServiceFailed(f"{name}: {command[0]}: {error.strerror}") from None
        log.close()
        if stdin is not None and process.stdin is not None:
            process.stdin.write(stdin)
            process.stdin.close()
        return cls(name, log_path, process, grace_s)

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def alive(self) -> bool:
        """True if the child is running."""
        return self.process.poll() is None

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of the log; empty if there are none."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - _TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def failure(self) -> EmbeddedServiceFailed:
        """Return an error with the exit status and the tail of the log."""
        status = self.process.poll()
        how = "does not answer" if status is None else f"ended with {_status_text(status)}"
        tail = self.log_tail()
        shown = (
            f"; its log {self.log_path} ends:\n{tail}" if tail else f"; {self.log_path} is empty"
        )
        return EmbeddedServiceFailed(f"{self.name} (pid {self.pid}) {how}{shown}")

    def require_alive(self) -> None:
        """Raise EmbeddedServiceFailed, with the tail of the log, if the child has ended."""
        if not self.alive():
            raise self.failure()

    def wait_ready(self, is_ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Poll `is_ready` until it is true.

        Raises EmbeddedServiceFailed if the child ends first or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            self.require_alive()
            if time.monotonic() > deadline:
                raise self.failure()
            time.sleep(0.02)

    def stop(self) -> int:
        """Send SIGTERM, wait `grace_s`, then kill the whole session. Return the exit status."""
        if self.alive():
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(self.grace_s)
        return self.kill()

    def kill(self) -> int:
        """Kill the whole session at once and reap the child. Return the exit status."""
        with suppress(ProcessLookupError, PermissionError):  # the session has already ended
            os.killpg(self.pid, signal.SIGKILL)
        status = self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status

    def __enter__(self) -> "ServiceProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _status_text(status: int) -> str:
    """Return an exit status as text.

    >>> _status_text(3), _status_text(-9)
    ('exit status 3', 'signal SIGKILL')
    """
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit status {status}"
