"""Settings of network addresses: broker, store, and the product's own servers."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from stream.settings.addresses import Listed, PageHost, Servers, StoreUrl
from stream.settings.durations import PositiveMs, Section

#: Error text of every role that needs a store and has no URL for one.
NO_STORE: Final = (
    "no store named: set SURGECAST_REDIS__URL (for example redis://127.0.0.1:6379/0), "
    "or run everything with `surgecast up`"
)


#: Least length of a key of the API.
MIN_KEY: Final = 12


class KafkaSettings(Section):
    """Address and security of the broker; partitions and replication of the topics."""

    bootstrap_servers: Servers = None
    group: str = Field("surgecast", min_length=1)
    partitions: int = Field(4, ge=1, le=1024)
    replication: int = Field(1, ge=1)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str | None = None
    password: SecretStr | None = None
    ssl_cafile: Path | None = None
    session_timeout: PositiveMs = 10_000

    @model_validator(mode="after")
    def _name_the_user(self) -> Self:
        if self.security_protocol.startswith("SASL") and not self.username:
            raise ValueError(
                f"kafka.security_protocol is {self.security_protocol}, which needs a user: set "
                "SURGECAST_KAFKA__USERNAME and SURGECAST_KAFKA__PASSWORD"
            )
        return self


class RedisSettings(Section):
    """Address of the store. The password may be part of the URL or set on its own."""

    url: StoreUrl = None
    password: SecretStr | None = None


class WorkerSettings(Section):
    """Address of a worker's Prometheus metrics; none are served without a port."""

    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(None, ge=0, le=65_535)


class ServerSettings(Section):
    """Address of an HTTP server; port 0 picks a free one."""

    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65_535)


class DashboardSettings(ServerSettings):
    """Address of the live page. `origins`: more hosts, such as a proxy, whose pages may connect."""

    port: int = Field(5006, ge=0, le=65_535)
    origins: Listed[PageHost] = ()


def _long_key(key: SecretStr) -> SecretStr:
    """Return a key of the API. Raises ValueError, without the key, if it is easily guessed."""
    text = key.get_secret_value()
    if len(text) < MIN_KEY:
        raise ValueError(
            f"a key of {len(text)} characters is too short; give at least {MIN_KEY}, "
            "for example those of: openssl rand -hex 24"
        )
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("a key has printable ASCII characters only, and no spaces")
    return key


class ApiSettings(ServerSettings):
    """Address of the HTTP API, and its keys, each of at least 12 characters.

    `requests_per_second` limits each key, or each address where there are no keys.
    """

    port: int = Field(8000, ge=0, le=65_535)
    keys: Listed[Annotated[SecretStr, AfterValidator(_long_key)]] = ()
    requests_per_second: int = Field(500, ge=1)
