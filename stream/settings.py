"""The one settings tree: environment ``SURGECAST_SECTION__NAME``, a TOML file, command-line flags.

Flags win over the environment, the environment over the file. Nothing else in the product reads the
environment; values are handed down by argument. Durations are written ``250ms``, ``30s``, ``15m``,
``1h``, ``28d`` and held as whole milliseconds.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from model.config import Target
from stream.errors import UsageError

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def duration_ms(text: str | int) -> int:
    """Milliseconds of a duration such as ``15m``; a plain integer is milliseconds already.

    Raises ValueError for anything else.

    >>> duration_ms("1h"), duration_ms("250ms"), duration_ms(40)
    (3600000, 250, 40)
    """
    if isinstance(text, int) or text.strip().isdecimal():
        return int(text)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*", str(text))
    if not match:
        raise ValueError(f"{text!r} is no duration; write for example 250ms, 30s, 15m, 1h or 28d")
    return round(float(match[1]) * _UNIT_MS[match[2]])


def duration_text(milliseconds: int) -> str:
    """Shortest exact way to write a duration.

    >>> duration_text(3_600_000), duration_text(90_000)
    ('1h', '90s')
    """
    for unit in ("d", "h", "m", "s"):
        if milliseconds and milliseconds % _UNIT_MS[unit] == 0:
            return f"{milliseconds // _UNIT_MS[unit]}{unit}"
    return f"{milliseconds}ms"


DurationMs = Annotated[int, BeforeValidator(duration_ms)]


def _bucket_ms(text: str | int) -> int:
    width = duration_ms(text)
    if not 60_000 <= width <= 86_400_000 or 86_400_000 % width:
        raise ValueError(f"{text!r} must be between 1m and 1d and divide a day evenly")
    return width


class Section(BaseModel):
    """A part of the tree: frozen, and a misspelt name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(Section):
    """Where the broker is, and how topics are laid out."""

    bootstrap_servers: str | None = None
    group: str = "surgecast"
    partitions: int = Field(4, ge=1, le=1024)
    replication: int = Field(1, ge=1)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str | None = None
    password: SecretStr | None = None
    ssl_cafile: Path | None = None
    session_timeout: DurationMs = 10_000


class RedisSettings(Section):
    """Where the store is. The password may stand in the URL or apart from it."""

    url: str | None = None
    password: SecretStr | None = None


class WindowSettings(Section):
    """Event time: bucket width, lateness, silence, deduplication."""

    bucket: Annotated[int, BeforeValidator(_bucket_ms)] = 3_600_000
    allowed_lateness: DurationMs = 120_000
    idle_timeout: DurationMs = 30_000
    dedup: DurationMs = 900_000
    future_tolerance: DurationMs = 3_600_000
    max_gap: DurationMs = 366 * 86_400_000


class WorkerSettings(Section):
    """Where a worker serves its Prometheus counters; nowhere when unset."""

    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(None, ge=0, le=65_535)


class StateSettings(Section):
    """How often state is written and how long closed buckets stay in the store."""

    flush_every: DurationMs = 100
    retention: DurationMs = 28 * 86_400_000


class IngestSettings(Section):
    """What is let in, and in which format. An empty list of locations admits every one.

    `schema_registry` is the URL of a Confluent-style registry, or a JSON file of schemas by id.
    """

    locations: tuple[str, ...] = ()
    max_value_bytes: int = Field(262_144, ge=1_024)
    format: Literal["json", "avro"] = "json"
    schema_registry: str | None = None
    schema_registry_username: str | None = None
    schema_registry_password: SecretStr | None = None
    schema_registry_cafile: Path | None = None


class RouterSettings(Section):
    """A topic keyed by order or customer, or of order documents, that `surgecast router` re-keys.

    There is none unless `source` names it.
    """

    source: str | None = None
    format: Literal["json", "avro"] = "json"


class ModelSettings(Section):
    """What the forecast looks like and where models are kept (default: `<data_dir>/registry`).

    Exponential smoothing serves in the place of a champion whose data ends `max_age` of event time
    ago, or that takes more than `max_step` for a step of a partition.
    `inputs_off` names inputs of the network that are held at zero. With `prior` a series without
    history begins at what its category, price and first clicks promise. `static` is the width of
    what the network learns of each category and location beside that (8 is plenty, 0 = nothing).
    With `plans` new networks read what the topic `plans` says of past and future. `targets` are
    what new networks forecast beside units: `revenue`, `visitors`.
    """

    horizon: int = Field(24, ge=1, le=366)
    quantiles: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    architecture: Literal["lstm", "gru", "transformer"] = "lstm"
    inputs_off: tuple[str, ...] = ()
    prior: bool = True
    static: int = Field(0, ge=0, le=64)
    plans: bool = False
    targets: tuple[Target, ...] = ()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    registry: str | None = None
    max_age: DurationMs = 365 * 86_400_000
    max_step: DurationMs = 30_000


class RegistrySettings(Section):
    """How many models are kept; the champion and the one before it always are."""

    keep: int = Field(20, ge=2)


class ForecastSettings(Section):
    """How often a series' forecast goes to the topic; the store always has the newest."""

    publish_every: DurationMs = 0


class CalibrationSettings(Section):
    """Whether published quantiles are corrected by what came, how fast, and from how many series.

    `rate` is what a level moves at a close that missed it altogether; `min_closes` closed buckets
    of every step make a forecast `calibrated`; `sample` series of each volume class and partition
    are scored.
    """

    enabled: bool = True
    rate: float = Field(0.01, gt=0, le=0.5)
    min_closes: int = Field(48, ge=1)
    sample: int = Field(256, ge=1, le=10_000)


class AccuracySettings(Section):
    """Where the scores of what was sent go besides the store: a folder or fsspec URL."""

    path: str | None = None


class DriftSettings(Section):
    """When a model counts as drifted, and how soon after a retrain another one is asked for.

    `threshold` is in standard deviations of a day's score, summed up beyond half a one a day.
    """

    enabled: bool = True
    threshold: float = Field(8.0, gt=0)
    warm_up_days: int = Field(14, ge=2)
    cooldown: DurationMs = 7 * 86_400_000


class TrainerSettings(Section):
    """When `surgecast trainer` trains a challenger, for how long, from how much of the past.

    A training ends after `max_time`, after `updates` where they are limited, or where it learns no
    more. It learns from what the store keeps, and from the archive before that where one is named;
    `origins` are held back from it, for the comparison with the champion. A retrain that is asked
    for waits until `cooldown` after the last training, and learns from the last `drift_span`.
    """

    every: DurationMs = 86_400_000
    cooldown: DurationMs = 3_600_000
    max_time: DurationMs = 600_000
    updates: int | None = Field(None, ge=1)
    threads: int = Field(1, ge=1)
    series: int = Field(400, ge=1)
    origins: int = Field(7, ge=1)
    max_span: DurationMs = 365 * 86_400_000
    drift_span: DurationMs = 14 * 86_400_000
    archive: str | None = None
    metrics_port: int | None = Field(None, ge=0, le=65_535)


class AlertSettings(Section):
    """The budget alerts may spend."""

    false_alarms_per_day: float = Field(5.0, gt=0)


class StockSettings(Section):
    """Stock policy."""

    service_level: float = Field(0.95, gt=0, lt=1)


class PrivacySettings(Section):
    """The key of the pseudonyms. Without one, a random key is made for the life of the store."""

    key: SecretStr | None = None


class ServerSettings(Section):
    """Where a server of ours listens; port 0 picks a free one."""

    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65_535)


class DashboardSettings(ServerSettings):
    """The live page. `origins` are further hosts, such as a proxy's, whose pages may connect."""

    port: int = Field(5006, ge=0, le=65_535)
    origins: tuple[str, ...] = ()


class ApiSettings(ServerSettings):
    """The HTTP API and its keys."""

    port: int = Field(8000, ge=0, le=65_535)
    keys: tuple[SecretStr, ...] = ()


class Settings(BaseSettings):
    """Every setting of the product; frozen, read once at the entry point."""

    model_config = SettingsConfigDict(
        env_prefix="SURGECAST_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    data_dir: Path = Path("var")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    window: WindowSettings = WindowSettings()
    worker: WorkerSettings = WorkerSettings()
    state: StateSettings = StateSettings()
    ingest: IngestSettings = IngestSettings()
    router: RouterSettings = RouterSettings()
    model: ModelSettings = ModelSettings()
    registry: RegistrySettings = RegistrySettings()
    forecasts: ForecastSettings = ForecastSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    accuracy: AccuracySettings = AccuracySettings()
    drift: DriftSettings = DriftSettings()
    trainer: TrainerSettings = TrainerSettings()
    alerts: AlertSettings = AlertSettings()
    stock: StockSettings = StockSettings()
    privacy: PrivacySettings = PrivacySettings()
    dashboard: DashboardSettings = DashboardSettings()
    api: ApiSettings = ApiSettings()

    @property
    def registry_path(self) -> str:
        """Folder or fsspec URL of the model registry."""
        return self.model.registry or str(self.data_dir / "registry")

    @property
    def states_path(self) -> str:
        """Folder or fsspec URL of the states that are kept of the partitions."""
        return f"{self.registry_path}/states"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then the TOML file."""
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Read the settings once. `flags` are nested dicts of what the command line gave.

    Raises UsageError that names the setting, its value and what was expected.
    """
    if config is not None and not config.is_file():
        raise UsageError(f"--config {config}: no such file")

    class Configured(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    try:
        return Configured(**flags)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        variable = "SURGECAST_" + "__".join(str(part).upper() for part in first["loc"])
        raise UsageError(f"setting {name} ({variable}): {first['msg']}") from None
    except ValueError as error:
        raise UsageError(f"--config {config}: {error}") from None


def kafka_home() -> Path | None:
    """Apache Kafka distribution named by KAFKA_HOME, to start in place of the in-memory broker.

    Raises UsageError when it is set and holds no `libs/` with jars.
    """
    text = os.environ.get("KAFKA_HOME")
    if not text:
        return None
    home = Path(text)
    if not any(home.glob("libs/kafka*.jar")):
        raise UsageError(f"KAFKA_HOME={text} is no Apache Kafka distribution: no libs/kafka*.jar")
    return home


def child_environment(settings: Settings) -> dict[str, str]:
    """Environment that makes a child process read these same settings."""
    environment = dict(os.environ)
    for section, value in settings.model_dump(mode="python").items():
        items = value.items() if isinstance(value, dict) else [(None, value)]
        for name, leaf in items:
            text = _as_text(leaf)
            if text is not None:
                suffix = f"__{name.upper()}" if name else ""
                environment[f"SURGECAST_{section.upper()}{suffix}"] = text
    return environment


def _as_text(leaf: Any) -> str | None:
    if leaf is None:
        return None
    if isinstance(leaf, SecretStr):
        return leaf.get_secret_value()
    if isinstance(leaf, tuple):
        parts = (
            f'"{_as_text(part)}"' if not isinstance(part, float) else str(part) for part in leaf
        )
        return "[" + ",".join(parts) + "]"
    return str(leaf)
