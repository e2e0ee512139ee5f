"""All settings: command-line flags, environment ``SURGECAST_SECTION__NAME``, a TOML file.

Flags override the environment, which overrides the file. No other code reads the environment,
except for KAFKA_HOME. Durations are whole milliseconds.
"""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from model.config import NETWORK_QUANTILES, Precision, Target
from model.durations import DAY_MS, HOUR_MS, MINUTE_MS
from model.foundation.kinds import Kind
from model.time_zones import UTC_ZONE
from stream.settings.addresses import Listed, Named
from stream.settings.durations import (
    BucketMs,
    DurationMs,
    PositiveMs,
    Section,
    TimeZone,
    at_least,
    duration_ms,
    duration_text,
)
from stream.settings.endpoints import (
    ApiSettings,
    DashboardSettings,
    KafkaSettings,
    RedisSettings,
    WorkerSettings,
)
from stream.settings.environment import DELIMITER, PREFIX
from stream.settings.forecasting import Country, Quantiles


class WindowSettings(Section):
    """Event time: bucket width, time zone, lateness, idle inputs, deduplication.

    `timezone` is the shop's, an IANA name like Europe/Berlin: hour, weekday, date and holidays that
    models see are its wall clock's. Buckets begin on the UTC grid all the same, and days of
    `bucket=1d` are UTC days. In files, times without an offset are the shop's own. `dedup` is at
    least `allowed_lateness`, since an event that may still be counted may also be repeated; unless
    it is set, a longer lateness raises it.
    """

    bucket: BucketMs = HOUR_MS
    timezone: TimeZone = UTC_ZONE
    allowed_lateness: DurationMs = 2 * MINUTE_MS
    idle_timeout: DurationMs = 30_000
    dedup: PositiveMs = 15 * MINUTE_MS
    future_tolerance: DurationMs = HOUR_MS
    max_gap: Annotated[DurationMs, at_least(DAY_MS)] = 366 * DAY_MS

    @model_validator(mode="before")
    @classmethod
    def _raise_dedup(cls, given: Any) -> Any:
        if isinstance(given, dict) and "dedup" not in given and "allowed_lateness" in given:
            with suppress(ValueError):  # the field's own check reports it
                lateness_ms = duration_ms(given["allowed_lateness"])
                return given | {"dedup": max(15 * MINUTE_MS, lateness_ms)}
        return given

    @model_validator(mode="after")
    def _cover_lateness(self) -> Self:
        if self.dedup < self.allowed_lateness:
            lateness = duration_text(self.allowed_lateness)
            raise ValueError(
                f"window.dedup {duration_text(self.dedup)} is shorter than window.allowed_lateness "
                f"{lateness}: an event sent twice could count twice; set SURGECAST_WINDOW__DEDUP "
                f"to {lateness} or more"
            )
        return self


class StateSettings(Section):
    """Interval of flushes, and retention of closed buckets in the store."""

    flush_every: PositiveMs = 100
    retention: Annotated[DurationMs, at_least(DAY_MS)] = 28 * DAY_MS


class IngestSettings(Section):
    """Accepted records and their format. An empty list of locations accepts all.

    `schema_registry` is the URL of a Confluent-style registry, or a JSON file of schemas by id.
    With `catalog_series` a new SKU of the catalog is a series before its first event.
    """

    locations: Listed[str] = ()
    max_value_bytes: int = Field(262_144, ge=1_024)
    catalog_series: bool = False
    format: Literal["json", "avro"] = "json"
    schema_registry: Named = None
    schema_registry_username: str | None = None
    schema_registry_password: SecretStr | None = None
    schema_registry_cafile: Path | None = None


class RouterSettings(Section):
    """The topic that `surgecast router` re-keys: order documents, or lines by order or customer.

    None by default.
    """

    source: Named = None
    format: Literal["json", "avro"] = "json"


class ModelSettings(Section):
    """Forecasts and networks; folder of the models (default: `<data_dir>/registry`).

    With `pretrained` the network that ships serves until a model trained on the shop's own data is
    promoted, and is what a training starts from; without it exponential smoothing serves first.
    `country` is that of the public holidays, a code like GB or US; empty for none. Commands that
    read a file find it from the sales if it is not set.
    Exponential smoothing replaces a champion whose data ended `max_age` of event time ago, or that
    takes more than `max_step` for a step of a partition. `inputs_off` sets inputs of the network
    to zero. With `prior` a series without history starts from its category, price and first
    clicks. `static` is the width of learned embeddings of category, brand and location (8 is
    plenty, 0 = none). `precision` is that of the network's matrix products in serving and training:
    `bfloat16` is faster where the device has it, `auto` takes it for trainings on a GPU alone. With
    `plans` new networks use the past and future plans of the topic `plans`. `targets` are forecast
    in addition to units: `revenue`, `visitors`. `challenger` is a foundation model (extra
    `foundation`) with weights in the folder `challenger_path`: compared in `backtest` and by the
    trainer, it never serves live.
    """

    horizon: int = Field(24, ge=1, le=366)
    quantiles: Quantiles = NETWORK_QUANTILES
    architecture: Literal["lstm", "gru", "transformer"] = "lstm"
    inputs_off: Listed[str] = ()
    pretrained: bool = True
    country: Country = "GB"
    prior: bool = True
    static: int = Field(0, ge=0, le=64)
    plans: bool = False
    targets: Listed[Target] = ()
    challenger: Kind | None = None
    challenger_path: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "auto"
    registry: Named = None
    max_age: PositiveMs = 365 * DAY_MS
    max_step: PositiveMs = 30_000

    @property
    def rounded(self) -> bool:
        """True if the matrix products of served networks are in bfloat16."""
        return self.precision == "bfloat16"


class RegistrySettings(Section):
    """Number of models kept; the champion and its predecessor always are."""

    keep: int = Field(20, ge=2)


class ForecastSettings(Section):
    """Least interval between records of a series in the topic; the store always has the newest."""

    publish_every: DurationMs = 0


class CalibrationSettings(Section):
    """Correction of published quantiles by the actuals.

    `rate` is the step of a calibration level after a close at which every series missed it;
    `min_closes` closed buckets of every step make a forecast `calibrated`; `sample` series of each
    volume class and partition are scored.
    """

    enabled: bool = True
    rate: float = Field(0.004, gt=0, le=0.5)
    min_closes: int = Field(48, ge=1)
    sample: int = Field(256, ge=1, le=10_000)


class AccuracySettings(Section):
    """Folder or fsspec URL for the scores of published forecasts, in addition to the store."""

    path: Named = None


class DriftSettings(Section):
    """Drift alarm, and least time between two retrains.

    `threshold`: the cumulative sum, in standard deviations, that raises an alarm; deviations under
    0.5 per day are ignored.
    """

    enabled: bool = True
    threshold: float = Field(8.0, gt=0)
    warm_up_days: int = Field(14, ge=2)
    cooldown: DurationMs = 7 * DAY_MS


class TrainerSettings(Section):
    """Schedule, duration and history of the challengers that `surgecast trainer` trains.

    A training ends after `max_time`, after `updates` if set, or when the loss stops improving. Its
    history is the store's, preceded by that of `archive`, by default the one that `surgecast
    archive` fills, empty for none; the last `origins` are held out to compare with the champion. A
    requested retrain waits for `cooldown` after the last training.
    """

    every: Annotated[DurationMs, at_least(MINUTE_MS)] = DAY_MS
    cooldown: DurationMs = HOUR_MS
    max_time: Annotated[DurationMs, at_least(1_000)] = 10 * MINUTE_MS
    updates: int | None = Field(None, ge=1)
    threads: int = Field(1, ge=1)
    series: int = Field(400, ge=1)
    origins: int = Field(7, ge=1)
    max_span: Annotated[DurationMs, at_least(DAY_MS)] = 365 * DAY_MS
    archive: str | None = None
    metrics_port: int | None = Field(None, ge=0, le=65_535)


class PrivacySettings(Section):
    """Key of the pseudonyms; by default a random key that lives as long as the store."""

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
    privacy: PrivacySettings = PrivacySettings()
    dashboard: DashboardSettings = DashboardSettings()
    api: ApiSettings = ApiSettings()

    @property
    def registry_path(self) -> str:
        """Folder or fsspec URL of the model registry."""
        return self.model.registry or str(self.data_dir / "registry")

    @property
    def states_path(self) -> str:
        """Folder or fsspec URL of the partitions' state snapshots."""
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
        """Return the sources by priority: flags, environment, TOML file."""
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))
