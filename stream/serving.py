"""Closed buckets in, forecasts out: the states of all series, carried by one forecaster.

Runs in the worker's serving thread, never on the event loop. Each partition (and the roll-ups) has
its own states; a bucket costs one step. States are a cache: those of a partition that is new to
this worker are loaded as they were last kept and stepped over what has closed since, or warmed up
from all of the stored history. A better model is warmed up aside, in another thread, and takes over
between two closes. It does no output; `stream/output.py` does.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from model.contract import QuantileForecast
from model.incremental import Forecaster
from stream.snapshots import Snapshots
from stream.state.history import StoredHistory
from stream.state.keys import Tag

log = structlog.get_logger(__name__)

Floats = NDArray[np.float32]

#: Stored history of a partition in portions: (tag, from_ms or None, to_ms or None).
HistoryReader = Callable[[Tag, int | None, int | None], Iterator[StoredHistory]]

#: Closed buckets between two times that states are kept.
KEEP_EVERY = 24


@dataclass(slots=True)
class _Carried:
    """States of one partition, valid through (exclusive) `through_ms`."""

    states: Any
    through_ms: int
    #: Through when they were when they were last kept; None = never.
    kept_ms: int | None = None


class Serving:
    """The champion and its states; `advance` is called from one thread only."""

    def __init__(
        self,
        forecaster: Forecaster,
        history: HistoryReader,
        *,
        bucket_ms: int,
        snapshots: Snapshots | None = None,
    ) -> None:
        self._forecaster = forecaster
        self._snapshots = snapshots
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
            # The last bucket is left for the take-over, whose first step forecasts.
            self._warm(forecaster, carried, tag, None)
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
        known = self._carried.get(tag)
        if known is not None and known.through_ms >= through_ms:
            return None
        last_SF = self._warm(forecaster, self._carried, tag, through_ms)
        if last_SF is None:
            return None
        carried = self._carried[tag]
        self._keep(forecaster, tag, carried)
        forecast = forecaster.step(carried.states, last_SF, carried.through_ms)
        carried.through_ms += self._bucket_ms
        return forecast

    def _warm(
        self,
        forecaster: Forecaster,
        carried_by: dict[Tag, _Carried],
        tag: Tag,
        through_ms: int | None,
    ) -> Floats | None:
        """Carry a partition's states over all but the last closed bucket, and return that [S, F].

        States it has none of are loaded or made. None when no bucket is new to them, or there is no
        series. What is carried before reading breaks off stays carried.
        """
        carried = carried_by.get(tag) or self._begin(forecaster, tag, through_ms)
        from_ms = None if carried is None else carried.through_ms
        for portion in self._history(tag, from_ms, through_ms):
            if not portion.series:
                return None
            if carried is None or portion.start_ms != carried.through_ms:
                # nothing known, or so old that the store has lost what follows it
                states = forecaster.new_states(len(portion.series))
                carried = _Carried(states, portion.start_ms)
            carried_by[tag] = carried
            known_TSF = portion.values_TSF[:-1] if portion.whole else portion.values_TSF
            forecaster.warm_up(carried.states, known_TSF, portion.start_ms)
            carried.through_ms += len(known_TSF) * self._bucket_ms
            if portion.whole:
                last_SF: Floats = portion.values_TSF[-1]
                return last_SF
        return None

    def _begin(self, forecaster: Forecaster, tag: Tag, before_ms: int | None) -> _Carried | None:
        """The states kept of a partition, where they are of a time before `before_ms`."""
        kept = self._snapshots.load(tag, forecaster) if self._snapshots else None
        if kept is None or (before_ms is not None and kept.through_ms >= before_ms):
            return None
        log.info("states_loaded", partition=tag, through_ms=kept.through_ms)
        return _Carried(kept.states, kept.through_ms, kept_ms=kept.through_ms)

    def _keep(self, forecaster: Forecaster, tag: Tag, carried: _Carried) -> None:
        """Keep the states now and then; what follows them is stepped again after a restart."""
        age_ms = carried.through_ms - (carried.kept_ms or 0)
        if self._snapshots is None or age_ms < KEEP_EVERY * self._bucket_ms:
            return
        if self._snapshots.save(tag, forecaster, carried.states, carried.through_ms):
            carried.kept_ms = carried.through_ms
