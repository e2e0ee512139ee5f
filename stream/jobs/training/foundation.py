"""The foundation model of the settings, as a challenger: `model.challenger`.

Axes: O = origins, S = series, H = horizon.
"""

from dataclasses import replace

import numpy as np
import structlog
from numpy.typing import NDArray

from model.errors import ModelError
from model.evaluation.backtest import Backtest, backtest
from model.evaluation.outsider import with_outsider
from model.evaluation.promotion import Verdict
from model.foundation.forecaster import FoundationForecaster
from model.foundation.weights import load_pretrained
from model.training.dataset import History
from stream.errors import UsageError
from stream.registry.model_registry import device_of
from stream.series_ids import rollups_of
from stream.settings import ModelSettings

log = structlog.get_logger(__name__)


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
            settings.challenger, settings.challenger_path, device=device_of(settings.device)
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


def beside_foundation(
    verdict: Verdict,
    result: Backtest,
    history: History,
    settings: ModelSettings,
    *,
    serving: str,
    known_OSH: NDArray[np.bool_] | None = None,
) -> Verdict:
    """Add to a verdict whether the challenger of the settings would be better than `serving`.

    `serving` is a name in `result`, on whose origins it is scored, where `known_OSH`; it reads all
    of `history`, not only the warm-up of the others. Without one that works the verdict stays.
    """
    try:
        foundation = foundation_forecaster(
            settings,
            horizon=result.horizon,
            bucket_ms=result.bucket_ms,
            quantiles=result.quantiles,
        )
        if foundation is None:
            return verdict
        made = backtest(history, {foundation.model_id: foundation}, result.origins_ms)
    except (MemoryError, ModelError, RuntimeError, UsageError) as error:
        log.warning("foundation_model_failed", reason=str(error))
        return verdict
    return with_outsider(
        verdict,
        replace(result, forecast=result.forecast | made.forecast),
        outsider=foundation.model_id,
        serving=serving,
        rollups=rollups_of(result.series),
        known_OSH=known_OSH,
    )
