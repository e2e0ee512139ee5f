"""Closed buckets in, forecasts out: one step of the serving model per closed bucket.

Runs in the worker's serving thread, never on the event loop. Each partition, and the roll-ups, have
states of their own. A new champion, warmed up in the background, is swapped in between two closes;
the model before it is kept for a rollback. The fallback serves while the champion fails, is too
slow or too old.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from model.contract import QuantileForecast
from model.inference.forecaster import Forecaster
from stream.serving.carried_states import HistoryReader
from stream.serving.plan_blocks import PlanReader, no_plans
from stream.serving.serving_state import Candidate, Phase, ServingState
from stream.serving.state_snapshots import Snapshots
from stream.serving.static_features import StaticReader
from stream.state.explanations import StoredExplanation
from stream.state.keys import Tag

#: Slow steps in a row after which the fallback serves: one may be the machine's hiccup.
_SLOW_STEPS: Final = 3


class ModelServer:
    """The serving model and its states; its steps and explanations belong to one thread.

    `max_step_ms` is how long a step of a partition may take, `max_age_ms` how far event time may be
    ahead of the end of a model's training data; `clock_s` is any monotonic clock.
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
        self._max_step_ms = max_step_ms
        self._max_age_ms = max_age_ms
        self._clock_s = clock_s
        self._state = ServingState(fallback)
        self._newest_ms = 0

    @property
    def model_id(self) -> str:
        """Id of the serving model."""
        return self._state.active.model_id

    @property
    def on_fallback(self) -> bool:
        """True if the fallback serves."""
        return self._state.phase is Phase.FALLBACK

    @property
    def problem(self) -> str:
        """Why the champion does not serve, for people; empty while it does."""
        return self._state.problem

    @property
    def staged_id(self) -> str | None:
        """Id of the model to be swapped in at the next close."""
        staged = self._state.staged
        return None if staged is None else staged.model.model_id

    def too_old(self, trained_through_ms: int | None) -> bool:
        """True if event time is further ahead of the training data than `max_age_ms`."""
        if self._max_age_ms is None or trained_through_ms is None:
            return False
        return self._newest_ms - trained_through_ms > self._max_age_ms

    # -- the next model ----------------------------------------------------------------------------

    def new_candidate(self, forecaster: Forecaster, trained_through_ms: int | None) -> Candidate:
        """A candidate without states, or with those of the previous model if it is the same."""
        return self._state.new_candidate(forecaster, trained_through_ms)

    def previous_forecaster(self, model_id: str) -> Forecaster | None:
        """The forecaster of the previous model if that has this id."""
        previous = self._state.previous
        if previous is None or previous.model_id != model_id:
            return None
        return previous.forecaster

    def stage(self, candidate: Candidate | None) -> None:
        """Let a candidate be swapped in at the next close; None withdraws the one staged."""
        self._state.stage(candidate)

    def swap_in(self) -> bool:
        """Swap in the staged model between two closes.

        True if every partition must be forecast again: another model serves than before.
        """
        state = self._state
        swapped = state.swap_in()
        if not (swapped or self.on_fallback) and self.too_old(state.active.trained_through_ms):
            state.fall_back(f"{self.model_id} is too old for the newest events")
        return state.take_changed()

    def forget(self, tag: Tag) -> None:
        """Drop the states of a partition that moved away or was restored again."""
        self._state.forget(tag)

    # -- steps -------------------------------------------------------------------------------------

    def advance(self, tag: Tag, through_ms: int) -> QuantileForecast | None:
        """Step a partition over the buckets closed before `through_ms`; forecast from there.

        The values come from the store, which has every closed bucket in its final form. None if it
        has no new one. A model that fails is replaced at once.
        """
        self._newest_ms = max(self._newest_ms, through_ms)
        first = self._state.take_first(tag, through_ms)
        if first is not None:
            return first
        try:
            return self._step(tag, through_ms)
        except (RuntimeError, MemoryError) as error:  # of the device, or of the kernels
            if self.on_fallback:
                raise
            reason = f"{self.model_id} failed: {_first_line(error)}"
            if not self._state.revert(reason):
                self._state.fall_back(reason)
            return self._step(tag, through_ms)

    def explain(self, tag: Tag, slots: Sequence[int]) -> dict[int, StoredExplanation]:
        """Explain the newest forecasts of some slots of a partition, of the serving model.

        Empty before its first step in this worker.
        """
        return self._state.active.explain(tag, slots)

    def newest(self, tag: Tag) -> tuple[str, int] | None:
        """Model and origin of a partition's newest forecast, None before its first step."""
        active = self._state.active
        carried = active.carried.get(tag)
        if carried is None or carried.last_SF is None:
            return None
        return active.model_id, carried.through_ms

    def _step(self, tag: Tag, through_ms: int) -> QuantileForecast | None:
        model = self._state.active
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
            model.save(tag, ready.carried, self.snapshots)
        began_s = self._clock_s()
        forecast = model.step(ready)
        self._state.step_completed()
        self._check_duration(1000 * (self._clock_s() - began_s))
        return forecast

    def _check_duration(self, took_ms: float) -> None:
        """Fall back at the next close after too many slow steps in a row."""
        state = self._state
        if self._max_step_ms is None or self.on_fallback:
            return
        state.slow_steps = state.slow_steps + 1 if took_ms > self._max_step_ms else 0
        if state.slow_steps >= _SLOW_STEPS:
            state.fall_back(
                f"{self.model_id} is too slow: {_SLOW_STEPS} steps in a row took more than "
                f"{self._max_step_ms} ms, the last one {took_ms:.0f} ms"
            )


def _first_line(error: Any) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
