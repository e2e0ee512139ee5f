"""Services and workers broken on a seeded schedule, and a supervisor that restarts workers."""

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import polars as pl
from kafka import KafkaProducer
from kafka.errors import KafkaError
from redis import Redis
from redis.exceptions import RedisError

from model.durations import DAY_MS
from stream.ops.embedded import _valkey_binary
from stream.processes.ports import free_port
from stream.settings import Settings
from tests.support.deployments import WorkerProcess, merged
from tests.support.services import Kind, running_broker
from tests.support.stack import order_records, wait_until

#: Longer than the session timeout of the workers.
PAUSE_S = 8.0
LATENESS_MS = DAY_MS


class DurableStore:
    """A Redis that loses nothing: it logs every write before it answers."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._binary = shutil.which("redis-server") or _valkey_binary()
        self.port = free_port()
        self.client = Redis(port=self.port, socket_timeout=10)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address for workers."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it on its folder and wait for an answer."""
        command = [
            self._binary, "--port", str(self.port), "--bind", "127.0.0.1",
            "--dir", str(self._folder),
            "--appendonly", "yes", "--appendfsync", "always", "--save", "",
        ]  # fmt: skip
        with (self._folder / "store.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._answers, "an answer of the store")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except RedisError:
            return False

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)


class Chaos:
    """A deployment under a seeded schedule; `log` names the steps taken."""

    def __init__(self, kind: Kind, folder: Path, seed: int, *, partitions: int) -> None:
        self._kind, self._folder = kind, folder
        self._rng = np.random.default_rng(seed)
        self._stack = ExitStack()
        self._broker_port = free_port()
        self.store = DurableStore(folder / "store")
        self.settings = self._start_broker(partitions)
        self.store.start()
        self.workers: list[WorkerProcess] = []
        self.wanted = 1
        self._lives = 0
        self.log: list[str] = []

    def _start_broker(self, partitions: int) -> Settings:
        values = merged({
            "kafka": {"partitions": partitions},
            "redis": {"url": self.store.url},
            "window": {"allowed_lateness": LATENESS_MS},
        })  # fmt: skip
        broker = running_broker(self._kind, self._folder, values, port=self._broker_port)
        return self._stack.enter_context(broker).settings

    @property
    def servers(self) -> str:
        """Address of the broker."""
        assert self.settings.kafka.bootstrap_servers is not None
        return self.settings.kafka.bootstrap_servers

    def close(self) -> None:
        """End everything."""
        self.wanted = 0
        for worker in self.workers:
            worker.kill()
        self.store.kill()
        self._stack.close()

    # -- a cluster's supervisor ---------------------------------------------------------

    def supervise(self) -> None:
        """Replace dead workers; start or stop workers until as many run as wanted."""
        for worker in [one for one in self.workers if one.process.poll() is not None]:
            worker.kill()
            self.workers.remove(worker)
        while len(self.workers) < self.wanted:
            self._lives += 1
            log = self._folder / f"worker-{self._lives}.log"
            self.workers.append(WorkerProcess(self.settings, log))
        while len(self.workers) > self.wanted:
            self.workers.pop().stop()

    def wait(self, seconds: float) -> None:
        """Let time pass under supervision."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.supervise()
            time.sleep(0.25)

    # -- faults --------------------------------------------------------------------------

    def _any_worker(self) -> WorkerProcess:
        return self.workers[int(self._rng.integers(len(self.workers)))]

    def kill_worker(self) -> None:
        """`kill -9` one of the workers."""
        self._any_worker().process.kill()
        self.wait(2)

    def pause_worker(self) -> None:
        """SIGSTOP past the session timeout, then SIGCONT: others own its partitions by then."""
        sleeper = self._any_worker()
        sleeper.signal(signal.SIGSTOP)
        try:
            self.wait(PAUSE_S)
        finally:
            with suppress(ProcessLookupError):  # it had ended without broker or store
                sleeper.signal(signal.SIGCONT)

    def restart_broker(self) -> None:
        """Restart a broker that keeps its log; leave one that keeps nothing alone."""
        if self._kind == "kafka":
            self._stack.close()
            self._start_broker(self.settings.kafka.partitions)

    def restart_store(self) -> None:
        """`kill -9` the store and restart it on its log."""
        self.store.kill()
        self.store.start()

    def lose_store(self, seconds: float = 10) -> None:
        """Take the store away for a while."""
        self.store.kill()
        self.wait(seconds)
        self.store.start()

    def hang_store(self) -> None:
        """Let the store accept requests without an answer for three seconds."""
        self.store.signal(signal.SIGSTOP)
        try:
            self.wait(3)
        finally:
            self.store.signal(signal.SIGCONT)

    def scale(self, n: int) -> None:
        """Run `n` workers."""
        self.wanted = n
        self.wait(4)

    def schedule(self) -> list[tuple[str, Callable[[], None]]]:
        """Every kind of fault once, in a seeded order, while 1 → 3 → 2 workers run."""
        faults: list[tuple[str, Callable[[], None]]] = [
            ("kill -9 a worker", self.kill_worker),
            ("pause a worker", self.pause_worker),
            ("restart the broker", self.restart_broker),
            ("restart the store", self.restart_store),
            ("no store", self.lose_store),
            ("the store hangs", self.hang_store),
        ]
        order = self._rng.permutation(len(faults)).tolist()
        shuffled = [faults[i] for i in order]
        up, down = sorted(self._rng.choice(len(faults) + 1, 2, replace=False).tolist())
        shuffled.insert(down, ("2 workers", lambda: self.scale(2)))
        shuffled.insert(up, ("3 workers", lambda: self.scale(3)))
        return shuffled

    def run(self, steps: list[tuple[str, Callable[[], None]]]) -> None:
        """Carry out a schedule."""
        for name, act in steps:
            self.log.append(name)
            act()
            self.wait(float(self._rng.uniform(0.5, 2.0)))


def disordered(lines: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Lines delayed by up to half the allowed lateness; one in seven is repeated later."""
    repeated = lines.filter(pl.Series(rng.random(len(lines)) < 1 / 7))
    sent = pl.concat([lines, repeated])
    moved = sent["ts"].to_numpy() + rng.integers(0, LATENESS_MS // 2, len(sent))
    return sent.with_columns(at=pl.Series(moved)).sort("at", maintain_order=True)


@contextmanager
def producing(servers: str, lines: pl.DataFrame, *, seconds: float) -> Iterator[threading.Thread]:
    """A thread that sends lines in order over `seconds`, through every fault of the broker."""
    stopping = threading.Event()

    def send() -> None:
        producer = KafkaProducer(
            bootstrap_servers=servers, acks="all", linger_ms=20, retries=10**6,
            max_in_flight_requests_per_connection=1, enable_idempotence=False,
            delivery_timeout_ms=600_000, request_timeout_ms=5_000, max_block_ms=600_000,
        )  # fmt: skip
        records = order_records(lines)
        portion = max(1, int(len(records) * 0.1 / seconds))
        try:
            for at in range(0, len(records), portion):
                if stopping.is_set():
                    return
                for key, value in records[at : at + portion]:
                    producer.send("orders", key=key, value=value)
                time.sleep(0.1)  # one portion per tenth of a second
            producer.flush()
        finally:
            with suppress(KafkaError):  # the broker may be gone already
                producer.close(timeout=0 if stopping.is_set() else None)

    thread = threading.Thread(target=send, name="producer")
    thread.start()
    try:
        yield thread
    finally:
        stopping.set()
        thread.join()
