"""Connection options of the Kafka clients we use: aiokafka and kafka-python."""

from typing import Any

from stream.errors import UsageError
from stream.settings import Settings


def bootstrap_servers(settings: Settings) -> str:
    """Address of the broker. Raises UsageError when none is named."""
    if settings.kafka.bootstrap_servers is None:
        raise UsageError(
            "no broker named: set SURGECAST_KAFKA__BOOTSTRAP_SERVERS (for example 127.0.0.1:9092), "
            "or run everything with `surgecast up`"
        )
    return settings.kafka.bootstrap_servers


def client_config(settings: Settings) -> dict[str, Any]:
    """Connection options for any kafka-python client: address, TLS, SASL.

    Raises UsageError when no broker is named.
    """
    kafka = settings.kafka
    config: dict[str, Any] = {
        "bootstrap_servers": bootstrap_servers(settings).split(","),
        "security_protocol": kafka.security_protocol,
    }
    if kafka.security_protocol.endswith("SSL"):
        config["ssl_cafile"] = str(kafka.ssl_cafile) if kafka.ssl_cafile else None
    if kafka.security_protocol.startswith("SASL"):
        config["sasl_mechanism"] = kafka.sasl_mechanism
        config["sasl_plain_username"] = kafka.username
        config["sasl_plain_password"] = kafka.password.get_secret_value() if kafka.password else ""
    return config


def broker_address(settings: Settings) -> str:
    """Bootstrap servers. Raises UsageError when none are named."""
    servers = settings.kafka.bootstrap_servers
    if not servers:
        raise UsageError(
            "no broker: set SURGECAST_KAFKA__BOOTSTRAP_SERVERS, or run everything with surgecast up"
        )
    return servers


def kafka_client(settings: Settings) -> dict[str, Any]:
    """Connection arguments of an aiokafka client."""
    kafka = settings.kafka
    client: dict[str, Any] = {
        "bootstrap_servers": broker_address(settings),
        "security_protocol": kafka.security_protocol,
    }
    if kafka.security_protocol.startswith("SASL"):
        client["sasl_mechanism"] = kafka.sasl_mechanism
        client["sasl_plain_username"] = kafka.username
        client["sasl_plain_password"] = kafka.password.get_secret_value() if kafka.password else ""
    if kafka.security_protocol.endswith("SSL"):
        client["ssl_context"] = _ssl_context(settings)
    return client


def _ssl_context(settings: Settings) -> Any:
    from aiokafka.helpers import create_ssl_context

    cafile = settings.kafka.ssl_cafile
    return create_ssl_context(cafile=str(cafile) if cafile else None)
