"""The trainer: trains challengers on the stored history, at intervals and on request.

`role.py` runs it as `surgecast trainer`, connected to store and broker.

Runs as a separate process with low priority and few threads. Each training holds out the newest
buckets, starts from the champion's weights if they fit, and compares challenger and champion on the
held-out buckets; `model/evaluation/promotion.py` decides. Every change goes to the registry
atomically, so the process may be killed at any moment.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

import structlog

from model.config import TrainConfig
from model.durations import MINUTE_MS
from model.errors import HistoryTooShort, ModelError
from model.evaluation.promotion import Verdict
from model.inference.forecaster import NetworkForecaster
from model.pretraining.finetune import finetune, for_history
from model.training.dataset import History, last_buckets
from model.training.train import Trained, TrainProgress, train
from stream.errors import ServiceUnavailable, SurgecastError, UsageError
from stream.jobs.training.comparison import compare, verdict_metrics
from stream.jobs.training.train import train_config
from stream.registry.announcements import ModelRecord
from stream.registry.model_registry import Registry
from stream.settings import Settings
from stream.telemetry import TRAINED, TRAINING, VERDICTS

log = structlog.get_logger(__name__)

Outcome = Literal["promoted", "refused", "failed", "skipped"]

#: Share of the usual learning rate for a training that starts from the champion's weights.
_WARM_START_RATE: Final = 0.3
#: Validation share after a drift: nearly all new buckets are needed for training.
_DRIFT_VALIDATION: Final = 0.02
#: Delay before the next attempt after a failed or skipped training.
_RETRY_MS: Final = 10 * MINUTE_MS
_TICK_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Outcome of a training and its reason; `model_id` is None if there was no challenger."""

    outcome: Outcome
    reason: str
    model_id: str | None = None


class Trainer:
    """Trains when due.

    `history` loads the history, `hand_over_states` stores warm states for a model about to become
    champion, `announce` notifies the workers, `now_ms` is the wall clock.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        *,
        history: Callable[[], History],
        hand_over_states: Callable[[NetworkForecaster], None],
        announce: Callable[[ModelRecord], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._history = history
        self._hand_over_states = hand_over_states
        self._announce = announce
        self._now_ms = now_ms

    # -- when ------------------------------------------------------------------------------------

    def run(self, requests: Callable[[int], ModelRecord | None]) -> None:
        """Train until stopped; `requests` waits for the given ms and returns a retrain request.

        A request older than the last training is ignored.
        """
        last_ms = self._last_training_ms()
        due_ms = 0 if last_ms is None else last_ms + self._settings.trainer.every
        pending: ModelRecord | None = None
        while True:
            newest = requests(_TICK_MS)
            if newest is not None and newest.at_ms > (last_ms or 0):
                pending = newest
            now_ms = self._now_ms()
            cool = last_ms is None or now_ms - last_ms >= self._settings.trainer.cooldown
            if now_ms < due_ms and not (pending is not None and cool):
                continue
            request = pending if cool else None
            cause = (
                "due" if request is None else f"requested: {request.reason or 'no reason given'}"
            )
            result = self.once(cause, drifted=request is not None)
            if result.outcome in ("failed", "skipped"):
                due_ms = self._now_ms() + min(_RETRY_MS, self._settings.trainer.every)
                continue
            pending, last_ms = None, self._now_ms()
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

    def once(self, cause: str, *, drifted: bool = False) -> TrainingResult:
        """Train one challenger, decide and publish. A failure is a result, never an exception.

        If demand has `drifted`, train the champion on the newest buckets only, at the full learning
        rate: in the whole history the few new days would hardly matter.
        """
        began_s = time.monotonic()
        log.info("training_begins", cause=cause)
        try:
            result = self._train(cause, drifted=drifted)
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

    def _train(self, cause: str, *, drifted: bool) -> TrainingResult:
        history = self._history()
        settings = self._settings.trainer
        config = self._config(history)
        held_out = settings.origins * config.model.horizon
        log.info("training_history", series=len(history.series), buckets=history.buckets)
        training_part = first_buckets(history, history.buckets - held_out)
        champion = self._champion(config)
        start = None
        if champion is not None and champion.config == config.model:
            start = champion.network
            if drifted:
                recent = max(1, settings.drift_span // history.bucket_ms)
                training_part = last_buckets(training_part, min(recent, training_part.buckets))
                config = replace(config, validation_share=_DRIFT_VALIDATION)
            else:
                config = replace(config, learning_rate=_WARM_START_RATE * config.learning_rate)
        if champion is not None and start is not None:
            trained = train(training_part, config, _ProgressLog(), start=start)
            trained.parent = champion.model_id
        else:
            trained = finetune(training_part, config, _ProgressLog())
        log.info("challenger_trained", parent=trained.parent, **_rounded(trained.metrics))
        verdict = self._compare(history, trained, champion)
        trained.metrics |= verdict_metrics(verdict)
        note = f"{verdict.reason} ({cause})"
        model_id = self._registry.publish(trained, note=note)
        if verdict.promoted:
            self._hand_over_states(
                NetworkForecaster(trained.network, model_id, threads=settings.threads)
            )
            self._registry.promote(model_id, note=note)
            self._announce_promotion(model_id, verdict.reason)
        else:
            self._registry.refuse(model_id, note=note)
        deleted = self._registry.prune(self._settings.registry.keep)
        if deleted:
            log.info("models_deleted", model_ids=list(deleted))
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
        # each training samples other series, so that the same data may give other weights
        seed = history.end_ms // history.bucket_ms % 2**31
        config = replace(config, threads=settings.trainer.threads, seed=seed)
        return for_history(config, history)

    def _champion(self, config: TrainConfig) -> NetworkForecaster | None:
        """Load the champion; None, with a warning, if it cannot be compared with a challenger."""
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
        required = config.model
        shape = (champion.horizon, champion.bucket_ms, champion.quantiles)
        if shape != (required.horizon, required.bucket_ms, required.quantiles):
            log.warning("champion_of_another_shape", model_id=model_id)
            return None
        return champion

    def _compare(
        self, history: History, trained: Trained, champion: NetworkForecaster | None
    ) -> Verdict:
        """Compare on the origins after the training data of both models."""
        unseen_from_ms = trained.span_ms[1]
        if champion is not None:
            manifest = self._registry.manifest(champion.model_id)
            unseen_from_ms = max(unseen_from_ms, manifest.span_ms[1])
        return compare(
            history,
            trained,
            champion,
            unseen_from_ms=unseen_from_ms,
            origins=self._settings.trainer.origins,
            settings=self._settings.model,
        )

    def _announce_promotion(self, model_id: str, reason: str) -> None:
        try:
            self._announce(ModelRecord("promote", model_id, reason, self._now_ms()))
        except (ServiceUnavailable, UsageError) as error:
            log.warning("promotion_not_announced", reason=f"{error}; workers poll the registry")


def first_buckets(history: History, count: int) -> History:
    """The first `count` buckets. Raises HistoryTooShort if `count` is below 1."""
    if count < 1:
        raise HistoryTooShort(
            f"{history.buckets} buckets are too few: "
            f"the comparison alone holds out {history.buckets - count}"
        )
    return replace(history, values_TSF=history.values_TSF[:count])


class _ProgressLog:
    """Logs the progress of a training at every quarter."""

    def __init__(self) -> None:
        self._next = 0.25

    def __call__(self, at: TrainProgress) -> None:
        if at.share >= self._next and at.share < 1:
            self._next += 0.25
            log.info("training", share=round(at.share, 2), loss=round(at.loss, 4))


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in metrics.items()}
