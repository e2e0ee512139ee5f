"""One training of the command line: hold back, train, compare with what serves, store, promote.

Takes a history that is already built; `train.py` runs the training itself. A challenger that wins
then learns from the origins of its comparison as well.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from rich.console import Console

from model.config import TrainConfig
from model.errors import HistoryTooShort
from model.evaluation.backtest import last_origins, score
from model.evaluation.looks import Look
from model.evaluation.promotion import Verdict
from model.inference.forecaster import Forecaster, NetworkForecaster
from model.networks.quantile_network import QuantileNetwork
from model.time_zones import UTC_ZONE
from model.training.checkpoint import dump
from model.training.dataset import History
from model.training.ranks import Ranks
from model.training.train import Trained, TrainProgress
from stream.jobs.training.comparison import (
    CHALLENGER,
    compare,
    first_buckets,
    look_of,
    origins_to_hold_back,
    verdict_metrics,
    warmed_backtest,
)
from stream.jobs.training.incumbent import incumbent
from stream.jobs.training.train import (
    DEMO_SECONDS,
    WARM_START_RATE,
    RunFolder,
    train_config,
    train_or_refuse,
    train_with_bar,
)
from stream.registry.model_registry import Registry
from stream.settings import ModelSettings

#: Origins held back for the comparison.
_ORIGINS: Final = 7
#: Share of the updates, and of the time, in which a winner learns from them.
_FINISH_SHARE: Final = 0.2
#: A winner may lose this much of its WQL by that; otherwise it serves as it won.
_FINISH_TOLERANCE: Final = 0.01

#: Trains on a history, from the given weights or random ones.
_Train = Callable[[History, TrainConfig, QuantileNetwork | None], Trained]


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """A stored model; `reason` says why it was promoted or not, if anything was compared."""

    model_id: str
    promoted: bool
    metrics: Mapping[str, float]
    span_ms: tuple[int, int]
    reason: str = ""

    @property
    def verdict(self) -> str:
        """One line on whether the model was promoted, and why.

        >>> TrainingOutcome("lstm-1", False, {}, (0, 1), "no better beyond noise").verdict
        'lstm-1 stored, not promoted: no better beyond noise'
        """
        word = "promoted" if self.promoted else "stored, not promoted"
        return f"{self.model_id} {word}: {self.reason}"


def train_and_publish(
    history: History,
    settings: ModelSettings,
    registry: Registry,
    *,
    timezone: str = UTC_ZONE,
    max_seconds: float | None = DEMO_SECONDS,
    updates: int | None = None,
    seed: int = 7,
    promote: bool = True,
    console: Console | None = None,
    progress: Callable[[TrainProgress], None] | None = None,
    run_folder: RunFolder | None = None,
) -> TrainingOutcome:
    """Train on `history` and publish to `registry`, showing progress.

    The model is promoted only if it is better than what serves on origins it has not learned from.
    `progress` replaces the bar on `console`. Raises UsageError if the history is too short or is
    not demand.
    """
    config = train_config(
        settings,
        bucket_ms=history.bucket_ms,
        timezone=timezone,
        seed=seed,
        max_seconds=max_seconds,
        updates=updates,
    )

    def run(part: History, config: TrainConfig, start: QuantileNetwork | None) -> Trained:
        if progress is not None:
            return train_or_refuse(part, config, progress, None, start=start)
        # the finish is short: it begins again after an interruption
        folder = run_folder if start is None else None
        return train_with_bar(part, config, console=console, run_folder=folder, start=start)

    opponent = incumbent(registry, settings, bucket_ms=history.bucket_ms, timezone=timezone)
    trained, verdict = _train_and_judge(
        history, config, run, settings, opponent=opponent.forecaster, looks=registry.looks()
    )
    promoted = promote and verdict.promoted
    reason = verdict.reason
    if verdict.promoted and not promote:
        reason = f"--promote was not given; {reason}"
    model_id = publish(trained, registry, promote=False)
    if Ranks.current().first:
        decide = registry.promote if promoted else registry.refuse
        decide(model_id, note=reason, look=look_of(verdict, history))
    return TrainingOutcome(model_id, promoted, trained.metrics, trained.span_ms, reason)


def publish(trained: Trained, registry: Registry, *, promote: bool) -> str:
    """Store a network in the registry; return its id. In a distributed run, only rank 0 stores."""
    if Ranks.current().first:
        return registry.publish(trained, promote=promote)
    return dump(trained)[1].model_id


def _train_and_judge(
    history: History,
    config: TrainConfig,
    run: _Train,
    settings: ModelSettings,
    *,
    opponent: Forecaster,
    looks: list[Look],
) -> tuple[Trained, Verdict]:
    horizon = config.model.horizon
    try:
        origins = origins_to_hold_back(history.buckets, horizon=horizon, wanted=_ORIGINS)
    except HistoryTooShort as error:
        reason = f"not compared with what serves: {error}"
        return run(history, config, None), Verdict(False, reason)
    part = first_buckets(history, history.buckets - origins * horizon)
    trained = run(part, _share_of(config, 1 - _FINISH_SHARE), None)
    ranks, verdict = Ranks.current(), Verdict(False, "")
    if ranks.first:
        verdict = compare(
            history,
            NetworkForecaster(trained.network, CHALLENGER, quantiles=opponent.quantiles),
            opponent,
            origins=origins,
            looks=looks,
            settings=settings,
        )
    won = bool(ranks.broadcast(float(verdict.promoted), ranks.device(config.device)))
    if won:
        trained = _finished(history, config, trained, run, origins=origins)
    trained.metrics |= verdict_metrics(verdict)
    return trained, verdict


def _finished(
    history: History, config: TrainConfig, trained: Trained, run: _Train, *, origins: int
) -> Trained:
    """A winner after it has learned from the origins of its comparison too.

    It is not compared again: it only must not have become worse at those origins.
    """
    share = _FINISH_SHARE / (1 - _FINISH_SHARE)
    updates = max(1, round(share * trained.metrics["updates"]))
    config = replace(
        _share_of(config, _FINISH_SHARE),
        model=trained.network.config,
        updates=updates,
        learning_rate=WARM_START_RATE * config.learning_rate,
    )
    finished = run(history, config, trained.network)
    for name in ("updates", "seconds"):
        finished.metrics[name] += trained.metrics[name]
    ranks, better = Ranks.current(), True
    if ranks.first:
        chosen_ms = last_origins(history, horizon=config.model.horizon, count=origins)
        models = {
            name: NetworkForecaster(one.network, name)
            for name, one in {"judged": trained, "finished": finished}.items()
        }
        result = warmed_backtest(history, models, chosen_ms)
        judged, after = (score(result, name).wql or np.inf for name in models)
        better = after <= (1 + _FINISH_TOLERANCE) * judged
    return finished if ranks.broadcast(float(better), ranks.device(config.device)) else trained


def _share_of(config: TrainConfig, share: float) -> TrainConfig:
    """The configuration with a share of the updates and of the time."""
    seconds = None if config.max_seconds is None else share * config.max_seconds
    return replace(config, updates=max(1, round(share * config.updates)), max_seconds=seconds)
