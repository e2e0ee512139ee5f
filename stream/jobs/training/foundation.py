"""The foundation model of the settings, as a challenger: `model.challenger`."""

from model.errors import ModelError
from model.foundation.forecaster import FoundationForecaster
from model.foundation.weights import load_pretrained
from stream.errors import UsageError
from stream.jobs.training.train import device_name
from stream.settings import ModelSettings


def foundation_forecaster(
    settings: ModelSettings,
    *,
    horizon: int,
    bucket_ms: int,
    quantiles: tuple[float, ...] | None = None,
    seed: int = 7,
) -> FoundationForecaster | None:
    """Load the challenger of the settings; None without one. `quantiles` default to the settings'.

    Raises UsageError if its library is not installed or its weights cannot be used.
    """
    if settings.challenger is None:
        return None
    if settings.challenger_path is None:
        raise UsageError(
            f"model.challenger {settings.challenger} needs model.challenger_path, "
            "the folder of its weights"
        )
    try:
        pretrained = load_pretrained(
            settings.challenger, settings.challenger_path, device=device_name(settings)
        )
    except ModelError as error:
        raise UsageError(f"model.challenger: {error}") from error
    return FoundationForecaster(
        pretrained,
        settings.challenger,
        horizon=horizon,
        bucket_ms=bucket_ms,
        quantiles=quantiles or settings.quantiles,
        seed=seed,
    )
