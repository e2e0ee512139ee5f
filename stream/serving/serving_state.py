"""Which model serves, and the transitions between models.

    FALLBACK --swap_in--> ON_TRIAL --step_completed--> PROVEN
    ON_TRIAL --revert--> PROVEN (the model before)     any --fall_back--> FALLBACK

The serving thread makes the transitions; the warm-up thread stages candidates, and the event loop
forgets partitions. The lock orders them.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from threading import Lock

import structlog

from model.contract import QuantileForecast
from model.inference.forecaster import Forecaster
from stream.serving.carried_states import StatefulModel
from stream.state.keys import Tag
from stream.telemetry import SWAPS

log = structlog.get_logger(__name__)


class Phase(Enum):
    """What serves: the fallback, a champion before its first step, or one that has stepped."""

    FALLBACK = "fallback"
    ON_TRIAL = "on trial"
    PROVEN = "proven"


@dataclass(slots=True)
class Candidate:
    """A model being warmed up in the background: its states, and its first forecasts.

    `moves` counts how often each partition had moved away when the warm-up began.
    """

    model: StatefulModel
    moves: Counter[Tag]
    forecasts: dict[Tag, QuantileForecast] = field(default_factory=dict)


class ServingState:
    """The serving model, the one before it, and the candidate staged to follow."""

    def __init__(self, fallback: Forecaster) -> None:
        self._fallback = fallback
        self._lock = Lock()
        self._moves: Counter[Tag] = Counter()
        self._first: dict[Tag, QuantileForecast] = {}
        self._changed = False
        self.phase = Phase.FALLBACK
        self.active = StatefulModel(fallback)
        self.previous: StatefulModel | None = None
        self.staged: Candidate | None = None
        self.slow_steps = 0
        #: Why the champion does not serve, for people; empty while it does.
        self.problem = ""

    def new_candidate(self, forecaster: Forecaster, trained_through_ms: int | None) -> Candidate:
        """A candidate without states, or with those of the previous model if it is the same."""
        with self._lock:
            model = StatefulModel(forecaster, trained_through_ms)
            if self.previous is not None and self.previous.model_id == forecaster.model_id:
                model, self.previous = self.previous, None
            return Candidate(model, Counter(self._moves))

    def stage(self, candidate: Candidate | None) -> None:
        """Let a candidate be swapped in at the next close; None withdraws the one staged."""
        with self._lock:
            if candidate is not None:
                for tag in list(candidate.model.carried):
                    if candidate.moves[tag] != self._moves[tag]:
                        del candidate.model.carried[tag]
                        candidate.forecasts.pop(tag, None)
            self.staged = candidate

    def forget(self, tag: Tag) -> None:
        """Drop the states of a partition that moved away or was restored again."""
        with self._lock:
            self._moves[tag] += 1
            self._first.pop(tag, None)
            for model in (self.active, self.previous):
                if model is not None:
                    model.carried.pop(tag, None)

    def swap_in(self) -> bool:
        """Make the staged candidate the serving model, on trial; False if none is staged."""
        with self._lock:
            staged, self.staged = self.staged, None
            if staged is None:
                return False
            before, self.active = self.active, staged.model
            if self.phase is not Phase.FALLBACK:
                self.previous = before
            self._first = {
                tag: forecast
                for tag, forecast in staged.forecasts.items()
                if staged.moves[tag] == self._moves[tag]
            }
            self.phase = Phase.ON_TRIAL
            self.slow_steps, self.problem, self._changed = 0, "", True
        SWAPS.labels("swapped").inc()
        log.info("model_swapped", model_id=self.active.model_id, before=before.model_id)
        return True

    def step_completed(self) -> None:
        """Note a step of the serving model: a champion is no longer on trial."""
        if self.phase is Phase.ON_TRIAL:
            self.phase = Phase.PROVEN

    def revert(self, reason: str) -> bool:
        """Return to the model before one that failed on trial; False if there is none."""
        with self._lock:
            previous, self.previous = self.previous, None
            if self.phase is not Phase.ON_TRIAL or previous is None:
                return False
            self.active, self._first = previous, {}
            self.phase, self._changed, self.problem = Phase.PROVEN, True, reason
        SWAPS.labels("reverted").inc()
        log.error("model_reverted", reason=reason, model_id=self.active.model_id)
        return True

    def fall_back(self, reason: str) -> None:
        """Serve the fallback until another candidate is swapped in."""
        log.error("fallback_serves", reason=reason)
        SWAPS.labels("fallback").inc()
        with self._lock:
            self.active, self._first = StatefulModel(self._fallback), {}
            self.phase, self._changed, self.problem = Phase.FALLBACK, True, reason
            self.slow_steps = 0

    def take_first(self, tag: Tag, through_ms: int) -> QuantileForecast | None:
        """A candidate's first forecast of a partition, once, if its origin is `through_ms`."""
        first = self._first.get(tag)
        if first is None or first.origin_ms > through_ms:
            return None
        self._first.pop(tag, None)  # it may have moved away since
        return first if first.origin_ms == through_ms else None

    def take_changed(self) -> bool:
        """True once after each transition that changed the serving model."""
        changed, self._changed = self._changed, False
        return changed
