"""Every setting of the product, read once at the entry point by `load_settings`."""

from stream.settings.durations import DurationMs, Section, duration_ms, duration_text
from stream.settings.endpoints import (
    NO_STORE,
    ApiSettings,
    DashboardSettings,
    KafkaSettings,
    RedisSettings,
    ServerSettings,
    WorkerSettings,
)
from stream.settings.environment import child_environment, kafka_home
from stream.settings.loading import load_settings
from stream.settings.tree import (
    AccuracySettings,
    CalibrationSettings,
    DriftSettings,
    ForecastSettings,
    IngestSettings,
    ModelSettings,
    PrivacySettings,
    RegistrySettings,
    RouterSettings,
    Settings,
    StateSettings,
    TrainerSettings,
    WindowSettings,
)

__all__ = [
    "NO_STORE",
    "AccuracySettings",
    "ApiSettings",
    "CalibrationSettings",
    "DashboardSettings",
    "DriftSettings",
    "DurationMs",
    "ForecastSettings",
    "IngestSettings",
    "KafkaSettings",
    "ModelSettings",
    "PrivacySettings",
    "RedisSettings",
    "RegistrySettings",
    "RouterSettings",
    "Section",
    "ServerSettings",
    "Settings",
    "StateSettings",
    "TrainerSettings",
    "WindowSettings",
    "WorkerSettings",
    "child_environment",
    "duration_ms",
    "duration_text",
    "kafka_home",
    "load_settings",
]
