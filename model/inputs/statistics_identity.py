"""Identity of the carried statistics: models with the same one carry the same numbers.

The statistics of a series belong to the shop, not to a network's weights: a model inherits those
that another one has carried if the identities are equal. Static features and the columns that a
network derives from them (its prior) are no part of it.
"""

from hashlib import sha256
from typing import Final

from model.config import ModelConfig
from model.durations import DAY_MS
from model.inputs.carried_statistics import STATISTICS
from model.inputs.series_inputs import carried_width
from model.inputs.static_features import N_CARRIED
from model.time_zones import UTC_ZONE

#: To be raised with any change of the numbers that the same names, widths and spans stand for.
_FORMULAS: Final = 2
#: Settings of a model on which its statistics depend, besides their number.
_SETTINGS: Final = ("bucket_ms", "memory_days", "censored_share", "holidays_country")


def inherited_width(config: ModelConfig) -> int:
    """Carried numbers per series that another model may inherit: the first ones of a row.

    >>> with_prior = ModelConfig(horizon=24, bucket_ms=3_600_000, prior=True)
    >>> without = ModelConfig(horizon=24, bucket_ms=3_600_000)
    >>> inherited_width(with_prior) == inherited_width(without) == carried_width(without)
    True
    """
    return carried_width(config) - (N_CARRIED if config.uses_static else 0)


def statistics_identity(config: ModelConfig) -> str:
    """Sixteen hex digits that change with the names, number, spans or formulas of the statistics.

    The time zone is part of it if it shifts the calendar: below a day, other than UTC.

    >>> hourly = ModelConfig(horizon=24, bucket_ms=3_600_000)
    >>> wide = ModelConfig(horizon=48, bucket_ms=3_600_000, hidden=128, prior=True)
    >>> statistics_identity(hourly) == statistics_identity(wide)
    True
    >>> daily = ModelConfig(horizon=24, bucket_ms=86_400_000)
    >>> statistics_identity(hourly) == statistics_identity(daily)
    False
    """
    settings = [f"{name}={getattr(config, name)}" for name in _SETTINGS]
    if config.timezone != UTC_ZONE and config.bucket_ms < DAY_MS:
        settings.append(f"timezone={config.timezone}")
    parts = [str(_FORMULAS), str(inherited_width(config)), *STATISTICS, *settings]
    return sha256("\0".join(parts).encode()).hexdigest()[:16]
