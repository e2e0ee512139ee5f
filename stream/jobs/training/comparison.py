"""Compares a challenger with the champion on origins that neither has been trained on."""

from collections.abc import Mapping
from typing import Final

from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.durations import DAY_MS
from model.evaluation.backtest import Backtest, backtest, last_origins
from model.evaluation.promotion import Verdict, decide, decide_first
from model.inference.forecaster import Forecaster, NetworkForecaster
from model.training.dataset import History, last_buckets
from model.training.train import Trained
from stream.jobs.training.foundation import beside_foundation
from stream.series_ids import rollups_of
from stream.settings import ModelSettings

#: Days before the first origin over which both models warm up.
_WARM_UP_DAYS: Final = 28
#: Fewest origins for a decision.
_LEAST_ORIGINS: Final = 2
_NAIVE: Final = "seasonal naive"
_CHALLENGER: Final = "challenger"


def compare(
    history: History,
    trained: Trained,
    champion: NetworkForecaster | None,
    *,
    unseen_from_ms: int,
    origins: int,
    settings: ModelSettings,
) -> Verdict:
    """Decide on promotion by a backtest on up to `origins` origins from `unseen_from_ms` on.

    Without a champion, the challenger must beat the seasonal naive. The verdict also says whether
    a foundation model of the settings would be better than the model that serves from now on.
    """
    config = trained.config.model
    chosen_ms = [
        origin
        for origin in last_origins(history, horizon=config.horizon, count=origins)
        if origin >= unseen_from_ms
    ]
    if len(chosen_ms) < min(_LEAST_ORIGINS, origins):
        return Verdict(
            False,
            f"only {len(chosen_ms)} origins are later than the training data of challenger and "
            f"champion, {min(_LEAST_ORIGINS, origins)} are needed; wait for more buckets",
        )
    challenger = NetworkForecaster(trained.network, _CHALLENGER, threads=1)
    models: dict[str, Forecaster]
    if champion is None:
        naive = SeasonalNaiveForecaster(
            horizon=config.horizon, bucket_ms=config.bucket_ms, quantiles=config.quantiles
        )
        before, models = _NAIVE, {_CHALLENGER: challenger, _NAIVE: naive}
    else:
        before, models = champion.model_id, {_CHALLENGER: challenger, champion.model_id: champion}
    result = _backtest(history, models, chosen_ms)
    rollups = rollups_of(result.series)
    if champion is None:
        verdict = decide_first(result, yardstick=before, challenger=_CHALLENGER, rollups=rollups)
    else:
        verdict = decide(result, champion=before, challenger=_CHALLENGER, rollups=rollups)
    serving = _CHALLENGER if verdict.promoted else before
    return beside_foundation(verdict, result, history, settings, serving=serving)


def verdict_metrics(verdict: Verdict) -> dict[str, float]:
    """The verdict's figures as metrics of a manifest."""
    found = {
        "wql": verdict.challenger_wql,
        "wql_champion": verdict.champion_wql,
        "wql_foundation": verdict.outsider_wql,
        "change_low": verdict.low,
        "change_high": verdict.high,
    }
    return {name: value for name, value in found.items() if value is not None}


def _backtest(
    history: History, models: Mapping[str, Forecaster], origins_ms: list[int]
) -> Backtest:
    per_day = max(1, DAY_MS // history.bucket_ms)
    first = (origins_ms[0] - history.start_ms) // history.bucket_ms - _WARM_UP_DAYS * per_day
    return backtest(last_buckets(history, history.buckets - max(0, first)), models, origins_ms)
