"""Closed buckets in, forecasts out: the states of all series, carried by one forecaster.

Runs in the worker's serving thread, never on the event loop. Each partition (and the roll-ups) has
its own states; a bucket costs one step. States are a cache: a partition that is new to this worker
is warmed up from the stored history. A better model is warmed up aside, in another thread, and
takes over between two closes. It does no output; `stream/output.py` does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

import structlog

from model.contract import QuantileForecast
from model.incremental import Forecaster
from stream.state.history import StoredHistory
from stream.state.keys import Tag

log = structlog.get_logger(__name__)

#: Reads stored history of a partition between two times: (tag, from_ms or None, to_ms or None).
HistoryReader = Callable[[Tag, int | None, int | None], StoredHistory | None]


@dataclass(slots=True)
class _Carried:
    """States of one partition, valid through (exclusive) `through_ms`."""

    states: Any
    through_ms: int


class Serving:
    """The champion and its states; `advance` is called from one thread only."""

    def __init__(self, forecaster: Forecaster, history: HistoryReader, *, bucket_ms: int) -> None:
        self._forecaster = forecaster
        self._history = history
        self._bucket_ms = bucket_ms
        self._carried: dict[Tag, _Carried] = {}
        self._waiting: tuple[Forecaster, dict[Tag, _Carried]] | None = None
        self._lock = Lock()

    @property
    def model_id(self) -> str:
        """Id of the model that serves."""
        return self._forecaster.model_id

    def forget(self, tag: Tag) -> None:
        """Drop the states of a partition that moved away or was reloaded."""
        self._carried.pop(tag, None)

    @property
    def tags(self) -> list[Tag]:
        """Partitions that have states."""
        return list(self._carried)

    def advance(self, tag: Tag, through_ms: int) -> QuantileForecast | None:
        """Step a partition over the buckets closed before `through_ms` and forecast from there.

        The values come from the store, in which a close is final before it is served. None when the
        store has no closed bucket, or none that is new.
        """
        return self._step(tag, through_ms)

    def prepare(self, forecaster: Forecaster, tags: list[Tag]) -> None:
        """Warm a new model up aside, from another thread; it takes over at the next close."""
        carried: dict[Tag, _Carried] = {}
        for tag in tags:
            history = self._history(tag, None, None)
            if history is not None:
                states = forecaster.new_states(len(history.series))
                # The last bucket is left for the take-over, whose first step forecasts.
                forecaster.warm_up(states, history.values_TSF[:-1], history.start_ms)
                carried[tag] = _Carried(states, history.end_ms - self._bucket_ms)
        with self._lock:
            self._waiting = (forecaster, carried)
        log.info("model_ready", model_id=forecaster.model_id, partitions=len(carried))

    def take_over(self) -> bool:
        """Put the model that was prepared in charge, between two closes; False when none waits."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
        if waiting is None:
            return False
        old = self._forecaster.model_id
        self._forecaster, self._carried = waiting
        log.info("model_swapped", model_id=self._forecaster.model_id, before=old)
        return True

    def _step(self, tag: Tag, through_ms: int) -> QuantileForecast | None:
        forecaster = self._forecaster
        carried = self._carried.get(tag)
        if carried is not None and carried.through_ms >= through_ms:
            return None
        history = self._history(tag, None if carried is None else carried.through_ms, through_ms)
        if carried is not None and history is not None and history.start_ms != carried.through_ms:
            carried = None  # the store keeps nothing that old any more
            history = self._history(tag, None, through_ms)
        if history is None or not history.series:
            return None
        if carried is None:
            states = forecaster.new_states(len(history.series))
            carried = self._carried[tag] = _Carried(states, history.start_ms)
        forecaster.warm_up(carried.states, history.values_TSF[:-1], history.start_ms)
        last_ms = history.end_ms - self._bucket_ms
        forecast = forecaster.step(carried.states, history.values_TSF[-1], last_ms)
        carried.through_ms = history.end_ms
        return forecast
