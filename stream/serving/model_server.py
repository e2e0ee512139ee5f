"""Closed buckets in, forecasts out: the states of all series, carried by one forecaster.

Runs in the worker's serving thread, never on the event loop. Each partition (and the roll-ups) has
its own states; a bucket costs one step. A better model is prepared aside by
`stream/serving/champion_watch.py`, in another thread, and takes over between two closes; the one
before it is kept, for a rollback. Where the champion fails, is too slow or too old, the fallback
serves until it is fit again. It does no output; `stream/serving/output_loop.py` does.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final

import structlog

from model.contract import QuantileForecast
from model.inference.forecaster import Forecaster
from stream.serving.carried_states import HistoryReader, ServedModel
from stream.serving.plan_blocks import PlanReader, no_plans
from stream.serving.state_snapshots import Snapshots
from stream.serving.static_features import StaticReader
from stream.state.keys import Tag
from stream.telemetry import SWAPS

log = structlog.get_logger(__name__)

#: Slow steps in a row after which the fallback serves: one may be the machine's hiccup.
_SLOW_STEPS: Final = 3


@dataclass(slots=True)
class Candidate:
    """A model prepared aside: its states, and the forecasts it made beside the one that serves.

    `moves` is how often each partition had moved away when its preparation began.
    """

    model: ServedModel
    moves: Counter[Tag]
    forecasts: dict[Tag, QuantileForecast] = field(default_factory=dict)


class ModelServer:
    """The model that serves and its states; `advance` and `swap_in` belong to one thread.

    `max_step_ms` is how long a step of a partition may take, `max_age_ms` how far event time may be
    ahead of what the model was trained on; `clock_s` is any monotonic clock.
    """

    def __init__(
        self,
        fallback: Forecaster,
        history: HistoryReader,
        *,
        static: StaticReader | None = None,
        snapshots: Snapshots | None = None,
        plans: PlanReader = no_plans,
        max_step_ms: int | None = None,
        max_age_ms: int | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.history = history
        self.static = static
        self.snapshots = snapshots
        self.plans = plans
        self._fallback = fallback
        self._max_step_ms = max_step_ms
        self._max_age_ms = max_age_ms
        self._clock_s = clock_s
        self._active = ServedModel(fallback)
        self._previous: ServedModel | None = None
        self._waiting: Candidate | None = None
        self._moves: Counter[Tag] = Counter()
        self._first: dict[Tag, QuantileForecast] = {}
        self._switched = False
        self._proven = True
        self._slow = 0
        self._newest_ms = 0
        self._lock = Lock()
        #: Why the champion does not serve, for people; empty while it does.
        self.problem = ""

    @property
    def model_id(self) -> str:
        """Id of the model that serves."""
        return self._active.model_id

    @property
    def on_fallback(self) -> bool:
        """Whether the fallback serves."""
        return self._active.forecaster is self._fallback

    @property
    def staged_id(self) -> str | None:
        """Id of the model that will take over at the next close."""
        waiting = self._waiting
        return None if waiting is None else waiting.model.model_id

    def forget(self, tag: Tag) -> None:
        """Drop the states of a partition that moved away or was reloaded."""
        with self._lock:
            self._moves[tag] += 1
            self._first.pop(tag, None)
            for model in (self._active, self._previous):
                if model is not None:
                    model.carried.pop(tag, None)

    def too_old(self, trained_through_ms: int | None) -> bool:
        """Whether a model trained so far is older than event time allows."""
        if self._max_age_ms is None or trained_through_ms is None:
            return False
        return self._newest_ms - trained_through_ms > self._max_age_ms

    # -- another model -----------------------------------------------------------------------------

    def candidate(self, forecaster: Forecaster, trained_through_ms: int | None) -> Candidate:
        """An empty candidate, or one with the states of the model before, where it is that one."""
        with self._lock:
            previous = self._previous
            model = ServedModel(forecaster, trained_through_ms)
            if previous is not None and previous.model_id == forecaster.model_id:
                model, self._previous = previous, None
            return Candidate(model, Counter(self._moves))

    def remembered(self, model_id: str) -> Forecaster | None:
        """The forecaster of the model that served before, if it is this one."""
        previous = self._previous
        if previous is None or previous.model_id != model_id:
            return None
        return previous.forecaster

    def offer(self, candidate: Candidate | None) -> None:
        """Let a candidate take over at the next close; None takes an earlier offer back."""
        with self._lock:
            if candidate is not None:
                for tag in list(candidate.model.carried):
                    if candidate.moves[tag] != self._moves[tag]:
                        del candidate.model.carried[tag]
                        candidate.forecasts.pop(tag, None)
            self._waiting = candidate

    def swap_in(self) -> bool:
        """Put a candidate in charge, between two closes; whether all is to be forecast anew."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
            if waiting is not None:
                before, self._active = self._active, waiting.model
                if before.forecaster is not self._fallback:
                    self._previous = before
                self._first = {
                    tag: forecast
                    for tag, forecast in waiting.forecasts.items()
                    if waiting.moves[tag] == self._moves[tag]
                }
                self._proven, self._slow, self.problem = False, 0, ""
                SWAPS.labels("swapped").inc()
                log.info("model_swapped", model_id=self.model_id, before=before.model_id)
        if waiting is None and not self.on_fallback:
            trained = self._active.trained_through_ms
            if self.too_old(trained):
                self._fall_back(f"{self.model_id} is too old for the events of now")
        switched, self._switched = self._switched, False
        return switched or waiting is not None

    # -- steps -------------------------------------------------------------------------------------

    def advance(self, tag: Tag, through_ms: int) -> QuantileForecast | None:
        """Step a partition over the buckets closed before `through_ms` and forecast from there.

        The values come from the store, in which a close is final before it is served. None when the
        store has no closed bucket, or none that is new. A model that fails is replaced at once.
        """
        self._newest_ms = max(self._newest_ms, through_ms)
        first = self._first.get(tag)
        if first is not None and first.origin_ms <= through_ms:
            del self._first[tag]
            if first.origin_ms == through_ms:
                return first
        try:
            return self._step(tag, through_ms)
        except (RuntimeError, MemoryError) as error:  # of the device, or of the kernels
            if self.on_fallback:
                raise
            self._give_up(error)
            return self._step(tag, through_ms)

    def _step(self, tag: Tag, through_ms: int) -> QuantileForecast | None:
        model = self._active
        ready = model.catch_up(
            tag,
            through_ms,
            self.history,
            static=self.static,
            snapshots=self.snapshots,
            plans=self.plans,
        )
        if ready is None:
            return None
        if self.snapshots is not None:
            model.keep(tag, ready.carried, self.snapshots)
        began_s = self._clock_s()
        forecast = model.step(ready)
        self._proven = True
        self._time(1000 * (self._clock_s() - began_s))
        return forecast

    def _time(self, took_ms: float) -> None:
        """Note how long a step took; too many slow ones, and the fallback serves the next close."""
        if self._max_step_ms is None or self.on_fallback:
            return
        self._slow = self._slow + 1 if took_ms > self._max_step_ms else 0
        if self._slow >= _SLOW_STEPS:
            self._fall_back(
                f"{self.model_id} is too slow: {_SLOW_STEPS} steps in a row took more than "
                f"{self._max_step_ms} ms, the last one {took_ms:.0f} ms"
            )

    def _give_up(self, error: Exception) -> None:
        """Serve without a model that has failed: with the one before where it never worked."""
        reason = f"{self.model_id} failed: {_first_line(error)}"
        with self._lock:
            previous, self._previous = self._previous, None
            if self._proven or previous is None:
                previous = None
            else:
                self._active, self._first = previous, {}
                self._proven = self._switched = True
                self.problem = reason
        if previous is None:
            self._fall_back(reason)
        else:
            SWAPS.labels("reverted").inc()
            log.error("model_reverted", reason=reason, model_id=self.model_id)

    def _fall_back(self, reason: str) -> None:
        log.error("fallback_serves", reason=reason)
        SWAPS.labels("fallback").inc()
        with self._lock:
            self._active = ServedModel(self._fallback)
            self._first = {}
            self._slow, self._proven, self._switched = 0, True, True
            self.problem = reason


def _first_line(error: Any) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
