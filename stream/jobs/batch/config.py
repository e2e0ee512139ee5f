"""Training configuration for a file."""

from dataclasses import replace
from typing import Final

from model.config import NETWORK_QUANTILES, ModelConfig, TrainConfig
from model.durations import DAY_MS
from model.history import History
from model.time_zones import UTC_ZONE
from stream.registry.model_registry import device_of
from stream.settings import ModelSettings

#: Below this number of series there are few.
_FEW: Final = 20


def batch_config(
    history: History,
    settings: ModelSettings,
    *,
    horizon: int,
    timezone: str = UTC_ZONE,
    seed: int = 7,
    max_seconds: float | None = None,
) -> TrainConfig:
    """Training configuration for a file: by bucket width and number of series.

    `timezone` is the zone by which the buckets are read.

    Days and longer buckets are few, so they get fewer updates and more dropout, and series are
    drawn more evenly; few series get fewer lanes and updates still. Without the pretrained network
    to start from few series get a small network as well.
    """
    few, wide = len(history.series) < _FEW, history.bucket_ms >= DAY_MS
    small = few and not settings.pretrained
    model = ModelConfig(
        horizon=horizon,
        bucket_ms=history.bucket_ms,
        quantiles=NETWORK_QUANTILES,
        architecture=settings.architecture,
        inputs_off=settings.inputs_off,
        static=settings.static,
        prior=settings.prior and not few,
        plans=history.plans is not None,
        targets=settings.targets,
        holidays_country=settings.country or None,
        timezone=timezone,
        hidden=32 if small else 64,
        layers=1 if small else 2,
        rank=16 if small else 48,
        dropout=0.15 if wide else 0.1,
    )
    config = TrainConfig(
        model=model,
        seed=seed,
        max_seconds=max_seconds,
        device=device_of(settings.device),
        pretrained=settings.pretrained,
    )
    if wide:
        config = replace(config, updates=600, chunk=64, volume_power=0.5)
    return replace(config, lanes=16, updates=400) if few else config
