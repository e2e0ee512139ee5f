"""Connection options of kafka-python, aiokafka and Faust, from one reading of the settings.

Whoever takes them gets a client whose compressed batches are bounded (`inflation.py`).
"""

import ssl
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from stream.errors import UsageError
from stream.kafka.reading.inflation import bound_aiokafka, bound_kafka_python
from stream.settings import KafkaSettings, Settings

#: After so long a consumer finds a topic that was created, or has more partitions.
METADATA_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Sasl:
    """Credentials of a SASL login."""

    mechanism: str
    username: str | None
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """Address and security of the broker; `tls` and `sasl` are None where the protocol has none."""

    servers: tuple[str, ...]
    protocol: str
    tls: ssl.SSLContext | None
    sasl: Sasl | None


def require_broker(settings: Settings) -> str:
    """Return the bootstrap servers as they are set. Raises UsageError when there are none."""
    if not settings.kafka.bootstrap_servers:
        raise UsageError(
            "no broker named: set SURGECAST_KAFKA__BOOTSTRAP_SERVERS (for example 127.0.0.1:9092), "
            "or run everything with `surgecast up`"
        )
    return settings.kafka.bootstrap_servers


def connection(settings: Settings) -> Connection:
    """Return how to reach the broker.

    Raises UsageError when no broker is named or the CA file cannot be read.
    """
    require_broker(settings)
    return _connection(settings.kafka)


@lru_cache(maxsize=8)
def _connection(kafka: KafkaSettings) -> Connection:
    """Read the CA file once per process: later clients do not depend on the file."""
    servers = tuple(server.strip() for server in (kafka.bootstrap_servers or "").split(","))
    tls, sasl = None, None
    if kafka.security_protocol.endswith("SSL"):
        try:
            tls = ssl.create_default_context(cafile=kafka.ssl_cafile)
        except OSError as error:
            raise UsageError(
                f"kafka.ssl_cafile {kafka.ssl_cafile}: {error}; "
                "set SURGECAST_KAFKA__SSL_CAFILE to a PEM file"
            ) from None
    if kafka.security_protocol.startswith("SASL"):
        password = kafka.password.get_secret_value() if kafka.password else ""
        sasl = Sasl(kafka.sasl_mechanism, kafka.username, password)
    return Connection(servers, kafka.security_protocol, tls, sasl)


def kafka_python_config(settings: Settings) -> dict[str, Any]:
    """Return the connection arguments of a kafka-python client. Raises UsageError."""
    broker = connection(settings)
    bound_kafka_python()
    return {"bootstrap_servers": list(broker.servers), **_security(broker)}


def aiokafka_config(settings: Settings) -> dict[str, Any]:
    """Return the connection arguments of an aiokafka client. Raises UsageError."""
    broker = connection(settings)
    bound_aiokafka()
    return {"bootstrap_servers": ",".join(broker.servers), **_security(broker)}


def faust_config(settings: Settings) -> dict[str, Any]:
    """Return the connection arguments of a Faust app. Raises UsageError."""
    import faust  # here, since no other client needs it and it takes a second to load

    broker = connection(settings)
    bound_aiokafka()
    credentials: faust.SASLCredentials | faust.SSLCredentials | None = None
    if broker.sasl is not None:
        credentials = faust.SASLCredentials(
            username=broker.sasl.username,
            password=broker.sasl.password,
            mechanism=broker.sasl.mechanism,
            ssl_context=broker.tls,
        )
    elif broker.tls is not None:
        credentials = faust.SSLCredentials(context=broker.tls)
    return {
        "broker": [f"aiokafka://{server}" for server in broker.servers],
        "broker_credentials": credentials,
    }


def _security(broker: Connection) -> dict[str, Any]:
    """Arguments that kafka-python and aiokafka share."""
    config: dict[str, Any] = {"security_protocol": broker.protocol}
    if broker.tls is not None:
        config["ssl_context"] = broker.tls
    if broker.sasl is not None:
        config["sasl_mechanism"] = broker.sasl.mechanism
        config["sasl_plain_username"] = broker.sasl.username
        config["sasl_plain_password"] = broker.sasl.password
    return config
