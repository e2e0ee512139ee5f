"""A model and its states of each partition, carried from bucket to bucket.

For a partition new to a model its states are loaded from the last snapshot and stepped over the
buckets closed since, or else warmed up from all stored history, in portions. The statistics reach
further back than the store, so a warm-up inherits them: at its start, so that the inputs are about
right, and again at the time that they are of. From there on they are exact, as if this model had
carried them all along; only the network's state is rebuilt.

Axes: T = buckets, S = series, F = features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from model.contract import QuantileForecast
from model.inference.forecaster import Forecaster, NetworkForecaster
from model.inference.network_states import NetworkStates
from model.inputs.plans import Plans
from stream.serving.plan_blocks import PlanReader, no_plans
from stream.serving.state_snapshots import Snapshots, Statistics
from stream.serving.static_features import StaticReader
from stream.state.explanations import StoredExplanation
from stream.state.history import StoredHistory
from stream.state.keys import Tag

log = structlog.get_logger(__name__)

Floats = NDArray[np.float32]

#: Stored history of a partition in portions: (tag, from_ms or None, to_ms or None).
HistoryReader = Callable[[Tag, int | None, int | None], Iterator[StoredHistory]]

#: Closed buckets between two snapshots of a partition's states.
SNAPSHOT_EVERY: Final = 24


@dataclass(slots=True)
class CarriedStates:
    """States of one partition, valid through (exclusive) `through_ms`.

    Their statistics are of the buckets from `since_ms` on. `plans` are those of the next bucket to
    step over, and of the horizon after it.
    """

    states: Any
    through_ms: int
    since_ms: int
    #: The end of their last snapshot; None before the first.
    snapshot_ms: int | None = None
    plans: Plans | None = None
    #: Statistics that replace the carried ones at their time, which is still to come.
    inherited: Statistics | None = None
    #: The bucket of the last forecasting step; None unless the states are those of a forecast.
    last_SF: Floats | None = None


@dataclass(frozen=True, slots=True)
class ReadyToStep:
    """States of a partition before its newest closed bucket, and that bucket's values [S, F].

    These states stay valid if another thread drops those of the partition meanwhile.
    """

    carried: CarriedStates
    last_SF: Floats


@dataclass(slots=True)
class StatefulModel:
    """A forecaster with its states. `trained_through_ms` is None if it needs no training."""

    forecaster: Forecaster
    trained_through_ms: int | None = None
    carried: dict[Tag, CarriedStates] = field(default_factory=dict)

    @property
    def model_id(self) -> str:
        """Id of the model."""
        return self.forecaster.model_id

    @property
    def reads_plans(self) -> bool:
        """True if the forecaster uses plans."""
        return isinstance(self.forecaster, NetworkForecaster) and self.forecaster.config.plans

    def catch_up(
        self,
        tag: Tag,
        through_ms: int | None,
        history: HistoryReader,
        *,
        static: StaticReader | None = None,
        snapshots: Snapshots | None = None,
        plans: PlanReader = no_plans,
        between: Callable[[], None] = lambda: None,
        anew: bool = False,
    ) -> ReadyToStep | None:
        """Carry a partition's states over all but the last closed bucket.

        Missing states are loaded from a snapshot, or made; with `anew` they are always made.
        Returns None if no bucket is new to them, or there is no series. `static` and `plans` read
        the inputs that the model uses. `between` is called before each portion; the portions before
        an error stay carried.
        """
        if anew:
            carried = None
        else:
            carried = self.carried.get(tag) or self._load(tag, through_ms, snapshots)
        if carried is not None and through_ms is not None and carried.through_ms >= through_ms:
            return None
        from_ms = None if carried is None else carried.through_ms
        for portion in history(tag, from_ms, through_ms):
            between()
            if not portion.series:
                return None
            if carried is None or portion.start_ms != carried.through_ms:
                # no states, or so old that the store no longer has the next bucket
                carried = self._begin(tag, portion, through_ms, snapshots)
            self.carried[tag] = carried
            if static is not None and _takes_static(carried.states):
                carried.states.set_static(static(tag, portion.series))
                static = None  # the same for all portions
            known_TSF = portion.values_TSF[:-1] if portion.is_last else portion.values_TSF
            known = None
            if self.reads_plans:
                buckets = len(portion.values_TSF) + self.forecaster.horizon
                known = plans(tag, portion.series, portion.start_ms, buckets)
            carried.last_SF = None
            self._carry(carried, known_TSF, known)
            if portion.is_last:
                last = len(known_TSF)
                carried.plans = (
                    None
                    if known is None
                    else known.between(last, last + 1 + self.forecaster.horizon)
                )
                return ReadyToStep(carried, portion.values_TSF[-1])
        return None

    def step(self, ready: ReadyToStep) -> QuantileForecast:
        """Step a partition over its newest closed bucket, and forecast."""
        carried, last_SF = ready.carried, ready.last_SF
        forecast = self.forecaster.step(carried.states, last_SF, carried.through_ms, carried.plans)
        carried.through_ms = forecast.origin_ms
        carried.last_SF = last_SF.copy()  # not the whole portion that it is part of
        return forecast

    def explain(self, tag: Tag, slots: Sequence[int]) -> dict[int, StoredExplanation]:
        """Explain the newest forecasts of some slots of a partition; none before its first step."""
        carried = self.carried.get(tag)
        if carried is None or carried.last_SF is None:
            return {}
        origin_ms, model_id = carried.through_ms, self.model_id
        if not isinstance(self.forecaster, NetworkForecaster):
            none = StoredExplanation(origin_ms, model_id, missing="fallback")
            return dict.fromkeys(slots, none)
        wanted = [slot for slot in slots if slot < carried.states.size]
        rows_N, parts = self.forecaster.explain(
            carried.states, carried.last_SF, np.array(wanted, np.int64), carried.plans
        )
        none = StoredExplanation(origin_ms, model_id, missing="unseen-product")
        return dict.fromkeys(wanted, none) | {
            row: StoredExplanation.of(parts, place, origin_ms=origin_ms, model_id=model_id)
            for place, row in enumerate(rows_N.tolist())
        }

    def save(self, tag: Tag, carried: CarriedStates, snapshots: Snapshots) -> None:
        """Save a snapshot every `SNAPSHOT_EVERY` buckets; a restart steps over later buckets."""
        age_ms = carried.through_ms - (carried.snapshot_ms or 0)
        if age_ms < SNAPSHOT_EVERY * self.forecaster.bucket_ms:
            return
        if snapshots.save(
            tag, self.forecaster, carried.states, carried.through_ms, since_ms=carried.since_ms
        ):
            carried.snapshot_ms = carried.through_ms

    def _carry(self, carried: CarriedStates, values_TSF: Floats, plans: Plans | None) -> None:
        """Carry states over stored buckets; inherit statistics at their time."""
        width, inherited = self.forecaster.bucket_ms, carried.inherited
        buckets = len(values_TSF)
        until = buckets
        if inherited is not None:
            until = min((inherited.through_ms - carried.through_ms) // width, buckets)
        for first, last in ((0, until), (until, buckets)):
            if first == last:
                continue
            known = None if plans is None else plans.between(first, last)
            self.forecaster.warm_up(
                carried.states, values_TSF[first:last], carried.through_ms, known
            )
            carried.through_ms += (last - first) * width
            if inherited is not None and carried.through_ms == inherited.through_ms:
                carried.states.inherit(inherited.rows_SI)
                carried.inherited = None

    def _begin(
        self,
        tag: Tag,
        first: StoredHistory,
        through_ms: int | None,
        snapshots: Snapshots | None,
    ) -> CarriedStates:
        """New states before the first portion of the stored history, with inherited statistics."""
        states = self.forecaster.new_states(len(first.series))
        carried = CarriedStates(states, first.start_ms, since_ms=first.start_ms)
        if snapshots is None or not isinstance(self.forecaster, NetworkForecaster):
            return carried
        found = snapshots.statistics(
            tag, self.forecaster.config, from_ms=first.start_ms, through_ms=through_ms
        )
        if found is not None:
            log.info("statistics_inherited", partition=tag, through_ms=found.through_ms)
            carried.states.inherit(found.rows_SI)
            carried.since_ms = found.since_ms
            carried.inherited = found if found.through_ms > first.start_ms else None
        return carried

    def _load(
        self, tag: Tag, before_ms: int | None, snapshots: Snapshots | None
    ) -> CarriedStates | None:
        """The snapshot of a partition's states, if it is older than `before_ms`."""
        snapshot = snapshots.load(tag, self.forecaster) if snapshots else None
        if snapshot is None or (before_ms is not None and snapshot.through_ms >= before_ms):
            return None
        log.info("states_loaded", partition=tag, through_ms=snapshot.through_ms)
        return CarriedStates(
            snapshot.states,
            snapshot.through_ms,
            since_ms=snapshot.since_ms,
            snapshot_ms=snapshot.through_ms,
        )


def _takes_static(states: Any) -> bool:
    return isinstance(states, NetworkStates) and states.uses_static
