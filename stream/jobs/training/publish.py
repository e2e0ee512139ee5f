"""One training of the command line: train, compare with the seasonal naive, store, promote.

Takes a history that is already built; `train.py` runs the training itself.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.evaluation.backtest import backtest, last_origins, score
from model.inference.forecaster import Forecaster, NetworkForecaster
from model.training.checkpoint import dump
from model.training.dataset import History, last_buckets
from model.training.ranks import Ranks
from model.training.train import Trained, TrainProgress
from stream.jobs.training.train import (
    DEMO_SECONDS,
    RunFolder,
    train_config,
    train_or_refuse,
    train_with_bar,
)
from stream.registry.model_registry import Registry
from stream.settings import ModelSettings

#: Origins of the comparison with the seasonal naive, and days of warm-up before them.
_COMPARED_ORIGINS = 7
_WARM_UP_DAYS = 28


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """A stored model; `promoted` is False if it did not beat the seasonal naive."""

    model_id: str
    promoted: bool
    metrics: dict[str, float]
    span_ms: tuple[int, int]

    @property
    def verdict(self) -> str:
        """One line on whether the model was promoted, and why."""
        wql, naive = self.metrics["wql"], self.metrics["wql_seasonal_naive"]
        word = "promoted" if self.promoted else "stored, not promoted"
        return f"{self.model_id} {word}: WQL {wql:.3f}, seasonal naive {naive:.3f}"


def train_and_publish(
    history: History,
    settings: ModelSettings,
    registry: Registry,
    *,
    max_seconds: float | None = DEMO_SECONDS,
    updates: int | None = None,
    seed: int = 7,
    promote: bool = True,
    console: Console | None = None,
    progress: Callable[[TrainProgress], None] | None = None,
    run_folder: RunFolder | None = None,
) -> TrainingOutcome:
    """Train on `history` and publish to `registry`, showing progress.

    The model is promoted only if its WQL over the last days of the history is below that of the
    seasonal naive, the fallback. `progress` replaces the bar on `console`. Raises UsageError if the
    history is too short or is not demand.
    """
    config = train_config(
        settings,
        bucket_ms=history.bucket_ms,
        seed=seed,
        max_seconds=max_seconds,
        updates=updates,
    )
    if progress is None:
        trained = train_with_bar(history, config, console=console, run_folder=run_folder)
    else:
        trained = train_or_refuse(history, config, progress, None)
    trained.metrics |= compare_with_naive(trained, history)
    better = trained.metrics["wql"] < trained.metrics["wql_seasonal_naive"]
    model_id = publish(trained, registry, promote=promote and better)
    return TrainingOutcome(model_id, promote and better, trained.metrics, trained.span_ms)


def publish(trained: Trained, registry: Registry, *, promote: bool) -> str:
    """Store a network in the registry; return its id. In a distributed run, only rank 0 stores."""
    if Ranks.current().first:
        return registry.publish(trained, promote=promote)
    return dump(trained)[1].model_id


def compare_with_naive(trained: Trained, history: History) -> dict[str, float]:
    """WQL of a network and of the seasonal naive over the last origins, one horizon apart.

    These buckets decided when the training stopped, so they flatter the network a little; it was
    never trained on them. Both models are warmed up on the buckets before, as in the worker.
    """
    config = trained.config.model
    per_day = config.buckets_per_day
    kept = min(history.buckets, _COMPARED_ORIGINS * config.horizon + _WARM_UP_DAYS * per_day)
    recent = last_buckets(history, kept)
    naive = SeasonalNaiveForecaster(
        horizon=config.horizon, bucket_ms=config.bucket_ms, quantiles=config.quantiles
    )
    models: dict[str, Forecaster] = {
        "wql": NetworkForecaster(trained.network, "trained"),
        "wql_seasonal_naive": naive,
    }
    origins = last_origins(recent, horizon=config.horizon, count=_COMPARED_ORIGINS)
    result = backtest(recent, models, origins)
    scores = {name: score(result, name).wql for name in models}
    return {name: math.inf if wql is None else wql for name, wql in scores.items()}
