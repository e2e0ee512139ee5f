"""The fallback: the forecaster that serves while no champion can."""

from model.baselines.exponential_smoothing import SmoothingForecaster


def fallback_forecaster(
    *, horizon: int, bucket_ms: int, quantiles: tuple[float, ...]
) -> SmoothingForecaster:
    """The fallback of a deployment.

    >>> fallback_forecaster(horizon=2, bucket_ms=60_000, quantiles=(0.5,)).model_id
    'exponential-smoothing'
    """
    return SmoothingForecaster(horizon=horizon, bucket_ms=bucket_ms, quantiles=quantiles)
