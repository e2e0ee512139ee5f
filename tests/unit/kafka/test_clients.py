"""Connection options of the three Kafka libraries, for every security protocol."""

import shutil
import ssl
from pathlib import Path
from typing import Any

import certifi
import faust
import pytest

from stream.errors import UsageError
from stream.kafka.clients import (
    aiokafka_config,
    connection,
    faust_config,
    kafka_python_config,
    require_broker,
)
from stream.settings import Settings

SERVERS = "one:9092, two:9093"
SASL = {
    "sasl_mechanism": "SCRAM-SHA-256",
    "sasl_plain_username": "shop",
    "sasl_plain_password": "secret",
}


def settings(protocol: str, **kafka: Any) -> Settings:
    """Settings of two brokers behind a protocol, with credentials."""
    credentials = {"username": "shop", "password": "secret", "sasl_mechanism": "SCRAM-SHA-256"}
    addressed = {"bootstrap_servers": SERVERS, "security_protocol": protocol}
    return Settings(kafka=addressed | credentials | kafka)


def without_tls(config: dict[str, Any]) -> dict[str, Any]:
    """Options without the TLS context, which must verify the broker's name and certificate."""
    context = config.pop("ssl_context", None)
    if context is not None:
        assert isinstance(context, ssl.SSLContext)
        assert context.check_hostname
        assert context.verify_mode == ssl.CERT_REQUIRED
        config["ssl_context"] = True
    return config


@pytest.mark.parametrize(
    ("protocol", "security"),
    [
        ("PLAINTEXT", {}),
        ("SSL", {"ssl_context": True}),
        ("SASL_PLAINTEXT", SASL),
        ("SASL_SSL", SASL | {"ssl_context": True}),
    ],
)
def test_both_client_libraries_get_the_same_security(
    protocol: str, security: dict[str, Any]
) -> None:
    expected = {"security_protocol": protocol} | security

    assert without_tls(kafka_python_config(settings(protocol))) == expected | {
        "bootstrap_servers": ["one:9092", "two:9093"]
    }
    assert without_tls(aiokafka_config(settings(protocol))) == expected | {
        "bootstrap_servers": "one:9092,two:9093"
    }


@pytest.mark.parametrize(("protocol", "tls"), [("SASL_PLAINTEXT", False), ("SASL_SSL", True)])
def test_faust_logs_in_by_sasl(protocol: str, tls: bool) -> None:
    config = faust_config(settings(protocol))
    credentials = config["broker_credentials"]

    assert config["broker"] == ["aiokafka://one:9092", "aiokafka://two:9093"]
    assert isinstance(credentials, faust.SASLCredentials)
    assert credentials.protocol.value == protocol
    assert (credentials.username, credentials.password) == ("shop", "secret")
    assert credentials.mechanism is not None
    assert credentials.mechanism.value == "SCRAM-SHA-256"
    assert isinstance(credentials.ssl_context, ssl.SSLContext) == tls


def test_faust_encrypts_without_a_login() -> None:
    credentials = faust_config(settings("SSL"))["broker_credentials"]

    assert isinstance(credentials, faust.SSLCredentials)
    assert credentials.context.verify_mode == ssl.CERT_REQUIRED
    assert faust_config(settings("PLAINTEXT"))["broker_credentials"] is None


def test_a_password_may_be_missing_and_is_never_printed() -> None:
    sasl = connection(settings("SASL_PLAINTEXT", password=None)).sasl

    assert sasl is not None
    assert sasl.password == ""
    assert "secret" not in repr(connection(settings("SASL_PLAINTEXT")))


@pytest.mark.parametrize(
    "build", [require_broker, connection, kafka_python_config, aiokafka_config, faust_config]
)
@pytest.mark.parametrize("servers", [None, ""])
def test_a_missing_broker_is_a_usage_error(build: Any, servers: str | None) -> None:
    with pytest.raises(UsageError, match="SURGECAST_KAFKA__BOOTSTRAP_SERVERS"):
        build(settings("PLAINTEXT", bootstrap_servers=servers))


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_an_unusable_ca_file_is_a_usage_error(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=r"kafka\.ssl_cafile .*ca\.pem"):
        connection(settings("SSL", ssl_cafile=path))


def test_the_ca_file_is_read_once(tmp_path: Path) -> None:
    """A file that is gone for a moment, in a rotation, does not stop a running process."""
    path = Path(shutil.copy(certifi.where(), tmp_path / "ca.pem"))
    first = connection(settings("SSL", ssl_cafile=path))
    path.unlink()

    assert connection(settings("SSL", ssl_cafile=path)) is first
