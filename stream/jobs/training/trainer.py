"""`surgecast trainer`: challengers from the stored history, now and then and when drift asks.

A process of its own beside the workers, of low priority and few threads. A training holds the
newest buckets back, starts from the champion's weights where they fit, and lets challenger and
champion forecast the buckets held back; `model/evaluation/promotion.py` decides. Everything it
changes is in the registry, whole or not at all, so it may be killed at any moment.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import structlog

from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.config import TrainConfig
from model.durations import DAY_MS
from model.errors import HistoryTooShort, ModelError
from model.evaluation.backtest import Backtest, backtest, last_origins
from model.evaluation.promotion import Verdict, decide, decide_first
from model.inference.forecaster import Forecaster, NetworkForecaster
from model.training.dataset import History, last_buckets
from model.training.train import Trained, TrainProgress, train
from stream.errors import ServiceUnavailable, SurgecastError
from stream.jobs.training.offline import train_config
from stream.registry.announcements import ModelRecord
from stream.registry.model_registry import Registry
from stream.series_ids import rollups_of
from stream.settings import Settings
from stream.telemetry import TRAINED, TRAINING, VERDICTS

log = structlog.get_logger(__name__)

Outcome = Literal["promoted", "refused", "failed", "skipped"]

#: Days before the first origin over which both models warm up for the comparison.
_WARM_DAYS: Final = 28
#: What a training from the champion's weights learns with: a share of the usual rate.
_WARM_RATE: Final = 0.3
#: After a drift nearly all of what is new is needed for learning.
_DRIFT_VALIDATION: Final = 0.02
#: Origins that neither model has seen, at the least.
_LEAST_ORIGINS: Final = 2
#: After a training that could not be done, the next look is so much later.
_RETRY_MS: Final = 600_000
_TICK_MS: Final = 1_000
_NAIVE: Final = "seasonal naive"
_CHALLENGER: Final = "challenger"


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What became of a training, and why; `model_id` is None where there was no challenger."""

    outcome: Outcome
    reason: str
    model_id: str | None = None


class Trainer:
    """Trains when due.

    `history` reads it, `hand_over` warms the states of a model that is to be champion, `announce`
    tells the workers, `now_ms` is wall time.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        *,
        history: Callable[[], History],
        hand_over: Callable[[NetworkForecaster], None],
        announce: Callable[[ModelRecord], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._history = history
        self._hand_over = hand_over
        self._announce = announce
        self._now_ms = now_ms

    # -- when ------------------------------------------------------------------------------------

    def run(self, requests: Callable[[int], ModelRecord | None]) -> None:
        """Train until stopped; `requests` waits for so many ms and returns a retrain request.

        A request older than the last training has been answered by it.
        """
        last_ms = self._last_training_ms()
        due_ms = 0 if last_ms is None else last_ms + self._settings.trainer.every
        asked: ModelRecord | None = None
        while True:
            newest = requests(_TICK_MS)
            if newest is not None and newest.at_ms > (last_ms or 0):
                asked = newest
            now_ms = self._now_ms()
            cool = last_ms is None or now_ms - last_ms >= self._settings.trainer.cooldown
            if now_ms < due_ms and not (asked is not None and cool):
                continue
            wanted = asked if cool else None
            why = "due" if wanted is None else f"asked for: {wanted.reason or 'no reason given'}"
            result = self.once(why, drifted=wanted is not None)
            if result.outcome in ("failed", "skipped"):
                due_ms = self._now_ms() + min(_RETRY_MS, self._settings.trainer.every)
                continue
            asked, last_ms = None, self._now_ms()
            due_ms = last_ms + self._settings.trainer.every

    def _last_training_ms(self) -> int | None:
        try:
            audit = self._registry.audit()
        except (ModelError, OSError) as error:
            log.warning("registry_unreadable", reason=str(error))
            return None
        times = [int(line["at_ms"]) for line in audit if line.get("action") == "publish"]
        return max(times, default=None)

    # -- one training ----------------------------------------------------------------------------

    def once(self, why: str, *, drifted: bool = False) -> TrainingResult:
        """Train one challenger, decide, publish. Never raises for what time or room may mend.

        Where demand has `drifted`, a champion goes on learning from the newest buckets alone, at
        the full rate: in all of the history the few new days would hardly count.
        """
        began_s = time.monotonic()
        log.info("training_begins", why=why)
        try:
            result = self._train(why, drifted=drifted)
        except HistoryTooShort as error:
            result = TrainingResult("skipped", str(error))
        except (ServiceUnavailable, ModelError, SurgecastError, OSError, MemoryError) as error:
            result = TrainingResult("failed", str(error) or type(error).__name__)
        seconds = time.monotonic() - began_s
        TRAINED.set(self._now_ms() / 1000)
        TRAINING.set(seconds)
        for outcome in ("promoted", "refused", "failed", "skipped"):
            VERDICTS.labels(outcome).set(outcome == result.outcome)
        level = log.warning if result.outcome == "failed" else log.info
        level(
            "training_ended",
            outcome=result.outcome,
            model_id=result.model_id,
            reason=result.reason,
            seconds=round(seconds, 1),
        )
        return result

    def _train(self, why: str, *, drifted: bool) -> TrainingResult:
        history = self._history()
        settings = self._settings.trainer
        config = self._config(history)
        horizon = config.model.horizon
        held_back = settings.origins * horizon
        log.info("training_history", series=len(history.series), buckets=history.buckets)
        learnt = first_buckets(history, history.buckets - held_back)
        champion = self._champion(config)
        start = None
        if champion is not None and champion.config == config.model:
            start = champion.network
            if drifted:
                recent = max(1, settings.drift_span // history.bucket_ms)
                learnt = last_buckets(learnt, min(recent, learnt.buckets))
                config = replace(config, validation_share=_DRIFT_VALIDATION)
            else:
                config = replace(config, learning_rate=_WARM_RATE * config.learning_rate)
        trained = train(learnt, config, _Lines(), start=start)
        trained.parent = champion.model_id if champion is not None and start is not None else None
        log.info("challenger_trained", parent=trained.parent, **_rounded(trained.metrics))
        verdict = self._compare(history, trained, champion)
        trained.metrics |= _metrics(verdict)
        note = f"{verdict.reason} ({why})"
        model_id = self._registry.publish(trained, note=note)
        if verdict.promoted:
            self._hand_over(NetworkForecaster(trained.network, model_id, threads=settings.threads))
            self._registry.promote(model_id, note=note)
            self._tell(ModelRecord("promote", model_id, verdict.reason, self._now_ms()))
        else:
            self._registry.refuse(model_id, note=note)
        gone = self._registry.prune(self._settings.registry.keep)
        if gone:
            log.info("models_deleted", model_ids=list(gone))
        outcome: Outcome = "promoted" if verdict.promoted else "refused"
        return TrainingResult(outcome, verdict.reason, model_id)

    def _config(self, history: History) -> TrainConfig:
        settings = self._settings
        config = train_config(
            settings.model,
            bucket_ms=history.bucket_ms,
            max_seconds=settings.trainer.max_time / 1000,
            updates=settings.trainer.updates,
        )
        # each training draws other series, so that the same data need not give the same weights
        seed = history.end_ms // history.bucket_ms % 2**31
        return replace(config, threads=settings.trainer.threads, seed=seed)

    def _champion(self, config: TrainConfig) -> NetworkForecaster | None:
        """The champion where it can be held against a challenger; None (and why) where not."""
        try:
            model_id = self._registry.last_champion()
            if model_id is None:
                return None
            champion = NetworkForecaster(
                self._registry.network(model_id), model_id, threads=self._settings.trainer.threads
            )
        except ModelError as error:
            log.warning("champion_unreadable", reason=str(error))
            return None
        wanted = config.model
        same = (champion.horizon, champion.bucket_ms, champion.quantiles)
        if same != (wanted.horizon, wanted.bucket_ms, wanted.quantiles):
            log.warning("champion_of_another_shape", model_id=model_id)
            return None
        return champion

    def _compare(
        self, history: History, trained: Trained, champion: NetworkForecaster | None
    ) -> Verdict:
        """Let challenger and champion (or the yardstick) forecast what neither has learnt from."""
        config = trained.config.model
        seen_ms = trained.span_ms[1]
        if champion is not None:
            seen_ms = max(seen_ms, self._registry.manifest(champion.model_id).span_ms[1])
        count = self._settings.trainer.origins
        origins = [
            origin
            for origin in last_origins(history, horizon=config.horizon, count=count)
            if origin >= seen_ms
        ]
        if len(origins) < min(_LEAST_ORIGINS, count):
            return Verdict(
                False,
                f"only {len(origins)} origins lie behind all that {_CHALLENGER} or champion has "
                f"learnt from; wait for more buckets",
            )
        challenger = NetworkForecaster(trained.network, _CHALLENGER, threads=1)
        if champion is None:
            naive = SeasonalNaiveForecaster(
                horizon=config.horizon, bucket_ms=config.bucket_ms, quantiles=config.quantiles
            )
            result = self._backtest(history, {_CHALLENGER: challenger, _NAIVE: naive}, origins)
            rollups = rollups_of(result.series)
            return decide_first(result, yardstick=_NAIVE, challenger=_CHALLENGER, rollups=rollups)
        models = {_CHALLENGER: challenger, champion.model_id: champion}
        result = self._backtest(history, models, origins)
        return decide(
            result,
            champion=champion.model_id,
            challenger=_CHALLENGER,
            rollups=rollups_of(result.series),
        )

    def _backtest(
        self, history: History, models: Mapping[str, Forecaster], origins: list[int]
    ) -> Backtest:
        per_day = max(1, DAY_MS // history.bucket_ms)
        first = (origins[0] - history.start_ms) // history.bucket_ms - _WARM_DAYS * per_day
        return backtest(last_buckets(history, history.buckets - max(0, first)), models, origins)

    def _tell(self, record: ModelRecord) -> None:
        try:
            self._announce(record)
        except ServiceUnavailable as error:
            log.warning("promotion_not_announced", reason=f"{error}; workers look by themselves")


def first_buckets(history: History, count: int) -> History:
    """The first `count` buckets. Raises HistoryTooShort where that is none."""
    if count < 1:
        raise HistoryTooShort(
            f"{history.buckets} buckets are too few to hold any back for a comparison"
        )
    return replace(history, values_TSF=history.values_TSF[:count])


class _Lines:
    """A line of log now and then, while it trains."""

    def __init__(self) -> None:
        self._next = 0.25

    def __call__(self, at: TrainProgress) -> None:
        if at.share >= self._next and at.share < 1:
            self._next += 0.25
            log.info("training", share=round(at.share, 2), loss=round(at.loss, 4))


def _metrics(verdict: Verdict) -> dict[str, float]:
    found = {
        "wql": verdict.challenger_wql,
        "wql_champion": verdict.champion_wql,
        "change_low": verdict.low,
        "change_high": verdict.high,
    }
    return {name: value for name, value in found.items() if value is not None}


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in metrics.items()}
