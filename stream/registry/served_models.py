"""The models a deployment can serve: those of the registry, and before any the one that ships.

Until a model trained on the shop's own data is promoted, the pretrained network is the champion.
"""

from typing import Protocol

from model.inference.forecaster import NetworkForecaster
from model.pretraining.shipped import pretrained, shipped
from model.time_zones import UTC_ZONE
from stream.registry.model_registry import Registry, device_of
from stream.settings import ModelSettings


class ChampionSource(Protocol):
    """Names the champion and loads models."""

    def champion(self) -> str | None:
        """Id of the champion; None if there is none. Raises CorruptCheckpoint, OSError."""
        ...

    def trained_through_ms(self, model_id: str) -> int | None:
        """End of a model's training data; None for one that has seen none of the shop."""
        ...

    def load(self, model_id: str, device: str = "cpu") -> NetworkForecaster:
        """A model ready to serve; raises UnknownModel, Corrupt- or IncompatibleCheckpoint."""
        ...

    def refuse(self, model_id: str, *, note: str) -> None:
        """Log why a model is not served."""
        ...


class ServedModels:
    """The registry's champion; before the first one the pretrained network, if that is on."""

    def __init__(
        self,
        registry: Registry,
        settings: ModelSettings,
        *,
        bucket_ms: int,
        timezone: str = UTC_ZONE,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._bucket_ms = bucket_ms
        self._timezone = timezone

    def champion(self) -> str | None:
        """Id of the champion; None if there is none and the pretrained network is off."""
        return self._registry.champion() or self._pretrained_id

    def trained_through_ms(self, model_id: str) -> int | None:
        """End of a model's training data; None for the pretrained network."""
        if model_id == self._pretrained_id:
            return None
        return self._registry.manifest(model_id).span_ms[1]

    def load(self, model_id: str, device: str = "cpu") -> NetworkForecaster:
        """A model with the deployment's quantiles, precision and wall clock, on `device`."""
        model = self._settings
        if model_id != self._pretrained_id:
            return self._registry.load(
                model_id, device, quantiles=model.quantiles, timezone=self._timezone,
                rounded=model.rounded,
            )  # fmt: skip
        network = pretrained(
            bucket_ms=self._bucket_ms, horizon=model.horizon,
            country=model.country or None, timezone=self._timezone,
        )  # fmt: skip
        return NetworkForecaster(
            network, model_id, device_of(device), quantiles=model.quantiles, rounded=model.rounded
        )

    def refuse(self, model_id: str, *, note: str) -> None:
        """Log why a model is not served."""
        self._registry.refuse(model_id, note=note)

    @property
    def _pretrained_id(self) -> str | None:
        return shipped()[1].model_id if self._settings.pretrained else None
