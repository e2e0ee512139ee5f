"""The one settings tree: environment ``SURGECAST_SECTION__NAME``, a TOML file, command-line flags.

Flags win over the environment, the environment over the file; but for where Kafka lies
(`stream/settings/environment.py`), nothing else in the product reads the environment. Values are
handed down by argument. Durations are held as whole milliseconds.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from model.config import Target
from model.durations import DAY_MS, HOUR_MS
from stream.errors import UsageError
from stream.settings.durations import BucketMs, DurationMs, Section, duration_ms, duration_text
from stream.settings.endpoints import (
    ApiSettings,
    DashboardSettings,
    KafkaSettings,
    RedisSettings,
    ServerSettings,
    WorkerSettings,
)
from stream.settings.environment import DELIMITER, PREFIX, child_environment, kafka_home, variable

__all__ = [
    "AccuracySettings", "AlertSettings", "ApiSettings", "CalibrationSettings", "DashboardSettings",
    "DriftSettings", "DurationMs", "ForecastSettings", "IngestSettings", "KafkaSettings",
    "ModelSettings", "PrivacySettings", "RedisSettings", "RegistrySettings", "RouterSettings",
    "Section", "ServerSettings", "Settings", "StateSettings", "StockSettings", "TrainerSettings",
    "WindowSettings", "WorkerSettings", "child_environment", "duration_ms", "duration_text",
    "kafka_home", "load_settings",
]  # fmt: skip


class WindowSettings(Section):
    """Event time: bucket width, lateness, silence, deduplication."""

    bucket: BucketMs = HOUR_MS
    allowed_lateness: DurationMs = 120_000
    idle_timeout: DurationMs = 30_000
    dedup: DurationMs = 900_000
    future_tolerance: DurationMs = HOUR_MS
    max_gap: DurationMs = 366 * DAY_MS


class StateSettings(Section):
    """How often state is written and how long closed buckets stay in the store."""

    flush_every: DurationMs = 100
    retention: DurationMs = 28 * DAY_MS


class IngestSettings(Section):
    """What is let in, and in which format. An empty list of locations admits every one.

    `schema_registry` is the URL of a Confluent-style registry, or a JSON file of schemas by id.
    With `catalog_series` a SKU that comes into the catalog is a series before its first event.
    """

    locations: tuple[str, ...] = ()
    max_value_bytes: int = Field(262_144, ge=1_024)
    catalog_series: bool = False
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
    what the network learns of each category, brand and location beside that (8 is plenty, 0 =
    nothing). With `plans` new networks read what the topic `plans` says of past and future.
    `targets` are what new networks forecast beside units: `revenue`, `visitors`.
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
    max_age: DurationMs = 365 * DAY_MS
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
    cooldown: DurationMs = 7 * DAY_MS


class TrainerSettings(Section):
    """When `surgecast trainer` trains a challenger, for how long, from how much of the past.

    A training ends after `max_time`, after `updates` where they are limited, or where it learns no
    more. It learns from what the store keeps, and from the archive before that where one is named;
    `origins` are held back from it, for the comparison with the champion. A retrain that is asked
    for waits until `cooldown` after the last training, and learns from the last `drift_span`.
    """

    every: DurationMs = DAY_MS
    cooldown: DurationMs = HOUR_MS
    max_time: DurationMs = 600_000
    updates: int | None = Field(None, ge=1)
    threads: int = Field(1, ge=1)
    series: int = Field(400, ge=1)
    origins: int = Field(7, ge=1)
    max_span: DurationMs = 365 * DAY_MS
    drift_span: DurationMs = 14 * DAY_MS
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


class Settings(BaseSettings):
    """Every setting of the product; frozen, read once at the entry point."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter=DELIMITER, frozen=True, extra="forbid"
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
        raise UsageError(f"setting {name} ({variable(*first['loc'])}): {first['msg']}") from None
    except ValueError as error:
        raise UsageError(f"--config {config}: {error}") from None
