"""The model that serves, as the opponent of a challenger: a network, or else the fallback."""

from dataclasses import dataclass

import structlog

from model.baselines.fallback import fallback_forecaster
from model.errors import ModelError
from model.inference.forecaster import Forecaster, NetworkForecaster
from model.time_zones import UTC_ZONE
from stream.registry.model_registry import Registry
from stream.registry.served_models import ServedModels
from stream.settings import ModelSettings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Incumbent:
    """A model to beat. `learned_until_ms` is None if it has seen none of the shop."""

    forecaster: Forecaster
    learned_until_ms: int | None = None

    @property
    def network(self) -> NetworkForecaster | None:
        """The network that serves; None if the fallback does."""
        return self.forecaster if isinstance(self.forecaster, NetworkForecaster) else None


def incumbent(
    registry: Registry, settings: ModelSettings, *, bucket_ms: int, timezone: str = UTC_ZONE
) -> Incumbent:
    """The champion, or before the first one the pretrained network.

    The fallback, with a warning, if these cannot be loaded or forecast other buckets.
    """
    horizon, quantiles = settings.horizon, settings.quantiles
    fallback = fallback_forecaster(horizon=horizon, bucket_ms=bucket_ms, quantiles=quantiles)
    served = ServedModels(registry, settings, bucket_ms=bucket_ms, timezone=timezone)
    try:
        model_id = registry.last_champion() or served.champion()
        if model_id is None:
            return Incumbent(fallback)
        network = served.load(model_id)
        learned_until_ms = served.trained_through_ms(model_id)
    except (ModelError, OSError) as error:
        log.warning("champion_unreadable", reason=str(error))
        return Incumbent(fallback)
    if (network.horizon, network.bucket_ms) != (horizon, bucket_ms):
        log.warning("champion_of_another_shape", model_id=model_id)
        return Incumbent(fallback)
    return Incumbent(network, learned_until_ms)
