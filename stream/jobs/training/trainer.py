"""The trainer: trains challengers on the stored history, at intervals and on request.

`role.py` runs it as `surgecast trainer`, connected to store and broker.

Runs as a separate process with low priority and few threads. Each training holds back the newest
buckets, starts from the champion's weights if they fit, and compares challenger and serving model
on them (`comparison.py`); `schedule.py` decides when. Every change goes to the registry atomically,
so the process may be killed at any moment.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import structlog

from model.config import TrainConfig
from model.errors import HistoryTooShort, ModelError
from model.evaluation.promotion import LEAST_ORIGINS, Verdict
from model.inference.forecaster import NetworkForecaster
from model.pretraining.finetune import finetune, for_history
from model.training.dataset import History
from model.training.train import Trained, TrainProgress, train
from stream.errors import ServiceUnavailable, SurgecastError, UsageError
from stream.jobs.training.comparison import (
    CHALLENGER,
    compare,
    first_buckets,
    look_of,
    origins_to_hold_back,
    verdict_metrics,
)
from stream.jobs.training.incumbent import Incumbent, incumbent
from stream.jobs.training.schedule import Outcome, Schedule
from stream.jobs.training.train import WARM_START_RATE, train_config
from stream.registry.announcements import ModelRecord
from stream.registry.model_registry import Registry
from stream.settings import Settings
from stream.telemetry import TRAINED, TRAINING, VERDICTS

log = structlog.get_logger(__name__)

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
        """Train until stopped; `requests` waits for the given ms and returns a retrain request."""
        settings = self._settings.trainer
        schedule = Schedule(settings.every, settings.cooldown, self._last_training_ms())
        while True:
            newest = requests(_TICK_MS)
            if newest is not None:
                schedule.ask(newest)
            due = schedule.due(self._now_ms())
            if due is not None:
                result = self.once(due.cause, drifted=due.drifted)
                schedule.ended(result.outcome, self._now_ms())

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

        If demand has `drifted`, fewer origins are held back, so that the challenger learns from the
        newest days.
        """
        began_s = time.monotonic()
        log.info("training_begins", cause=cause)
        try:
            result = self._train(cause, drifted=drifted)
        except HistoryTooShort as error:
            result = TrainingResult("skipped", str(error))
        except (ServiceUnavailable, ModelError, SurgecastError, OSError, MemoryError) as error:
            result = TrainingResult("failed", str(error) or type(error).__name__)
        self._report(result, cause, seconds=time.monotonic() - began_s)
        return result

    def _report(self, result: TrainingResult, cause: str, *, seconds: float) -> None:
        """Log how a training ended, in the metrics, and in the registry if it made no model."""
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
        if result.outcome in ("failed", "skipped"):
            try:
                self._registry.no_challenger(result.outcome, note=f"{result.reason} ({cause})")
            except OSError as error:
                log.warning("registry_unwritable", reason=str(error))

    def _train(self, cause: str, *, drifted: bool) -> TrainingResult:
        history = self._history()
        model = self._settings.model
        config = self._config(history)
        opponent = incumbent(
            self._registry, model,
            bucket_ms=history.bucket_ms, timezone=self._settings.window.timezone,
        )  # fmt: skip
        origins = self._origins(history, config, opponent, drifted=drifted)
        log.info(
            "training_history",
            series=len(history.series), buckets=history.buckets, origins_held_back=origins,
        )  # fmt: skip
        trained = self._challenger(history, config, opponent, origins=origins)
        log.info("challenger_trained", parent=trained.parent, **_rounded(trained.metrics))
        verdict = compare(
            history,
            NetworkForecaster(trained.network, CHALLENGER, quantiles=model.quantiles, threads=1),
            opponent.forecaster,
            origins=origins,
            looks=self._registry.looks(),
            settings=model,
        )
        trained.metrics |= verdict_metrics(verdict)
        note = f"{verdict.reason} ({cause}; it has not learned from these {origins} origins)"
        model_id = self._registry.publish(trained, note=note)
        self._conclude(model_id, trained, verdict, history, note=note)
        deleted = self._registry.prune(self._settings.registry.keep)
        if deleted:
            log.info("models_deleted", model_ids=list(deleted))
        outcome: Outcome = "promoted" if verdict.promoted else "refused"
        return TrainingResult(outcome, verdict.reason, model_id)

    def _conclude(
        self, model_id: str, trained: Trained, verdict: Verdict, history: History, *, note: str
    ) -> None:
        """Promote a stored challenger, with warm states, or refuse it."""
        look = look_of(verdict, history)
        if not verdict.promoted:
            self._registry.refuse(model_id, note=note, look=look)
            return
        threads = self._settings.trainer.threads
        self._hand_over_states(NetworkForecaster(trained.network, model_id, threads=threads))
        self._registry.promote(model_id, note=note, look=look)
        self._announce_promotion(model_id, verdict.reason)

    def _challenger(
        self,
        history: History,
        config: TrainConfig,
        opponent: Incumbent,
        *,
        origins: int,
    ) -> Trained:
        """Train on all but the last origins, from the serving network's weights if they fit."""
        part = first_buckets(history, history.buckets - origins * config.model.horizon)
        serving = opponent.network
        if serving is None or serving.config != config.model:
            return finetune(part, config, _ProgressLog())
        config = replace(config, learning_rate=WARM_START_RATE * config.learning_rate)
        trained = train(part, config, _ProgressLog(), start=serving.network)
        trained.parent = serving.model_id
        return trained

    def _origins(
        self, history: History, config: TrainConfig, opponent: Incumbent, *, drifted: bool
    ) -> int:
        """Origins to hold back: `trainer.origins`, fewer after a drift or a recent champion.

        Raises HistoryTooShort if too few are later than the champion's training data.
        """
        wanted = LEAST_ORIGINS if drifted else self._settings.trainer.origins
        horizon = config.model.horizon
        if opponent.learned_until_ms is not None:
            unseen_ms = history.end_ms - opponent.learned_until_ms
            unseen = max(0, unseen_ms // (horizon * history.bucket_ms))
            if unseen < LEAST_ORIGINS:
                raise HistoryTooShort(
                    f"only {unseen} origins are later than the training data of the champion "
                    f"{opponent.forecaster.model_id}, {LEAST_ORIGINS} are needed; "
                    "wait for more buckets"
                )
            wanted = min(wanted, unseen)
        return origins_to_hold_back(history.buckets, horizon=horizon, wanted=wanted)

    def _config(self, history: History) -> TrainConfig:
        settings = self._settings
        config = train_config(
            settings.model,
            bucket_ms=history.bucket_ms,
            timezone=settings.window.timezone,
            max_seconds=settings.trainer.max_time / 1000,
            updates=settings.trainer.updates,
        )
        # each training samples other series, so that the same data may give other weights
        seed = history.end_ms // history.bucket_ms % 2**31
        config = replace(config, threads=settings.trainer.threads, seed=seed)
        return for_history(config, history)

    def _announce_promotion(self, model_id: str, reason: str) -> None:
        try:
            self._announce(ModelRecord("promote", model_id, reason, self._now_ms()))
        except (ServiceUnavailable, UsageError) as error:
            log.warning("promotion_not_announced", reason=f"{error}; workers poll the registry")


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
