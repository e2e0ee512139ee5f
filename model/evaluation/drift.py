"""Drift detection: a daily test of the live scores of a model.

Two signals of each volume class: the WQL of a day, and the mean of the probability integral
transform under the model's own quantiles, which reacts to a rise or fall of demand earlier than the
loss. Page and Hinkley's test (Page 1954; Hinkley 1971) watches each in standard deviations of its
own past: it sums the deviation of a signal above its mean, less half a deviation per day, and
raises an alarm when the sum exceeds the threshold. At a threshold of 8 a signal of independent,
normally distributed days raises one false alarm in about 20,000 days.

A busy season is no drift. The loss is divided by the demand of the same day, so that more demand
alone changes nothing; and a second test must find it excessive as well, divided by how hard demand
is to forecast. That difficulty follows the seasonal naive's WQL, but by at most `_STEP` a day: a
season makes all forecasts worse bit by bit, a drift from one day to the next, and the naive has
forgotten it a week later (docs/experiments/drift.md).

The unit is a day, because the hours of a day differ from each other by more than any drift.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.evaluation.score_sums import N_SUMS, SUMS

#: Drift below this many standard deviations per day is ignored.
SLACK: Final = 0.5
#: Span of means and deviations, in days.
MEMORY_DAYS: Final = 56
#: Maximum contribution of a day, in deviations: one outlier is not a drift.
_MAX_DEVIATION: Final = 4.0
#: Deviations beyond this, up or down, are clipped before they update the mean.
_MAX_LEARNED: Final = 3.0
#: Least demand that the loss of a day is divided by, as a share of the usual demand.
_LEAST_DEMAND: Final = 0.25
#: The difficulty makes up for this share of a day's difference, and changes by this much at most.
_RATE: Final = 0.25
_STEP: Final = 0.05
#: Days of the naive before there is a difficulty.
_LEAST_FIRST: Final = 3
#: A signal has recovered when its last days are, on average, this close to its old mean.
_RECOVERED_WITHIN: Final = 1.0
_RECOVERED_DAYS: Final = 3
#: An incident of this length becomes the new normal.
_NEW_NORMAL_DAYS: Final = 28

Side = Literal["up", "down", "both"]


@dataclass(slots=True)
class PageHinkley:
    """Page and Hinkley's test on one signal, with one update per day.

    `update` returns True while the signal is in alarm. An alarm starts when a sum exceeds
    `threshold`, and ends when the signal has been close to its old mean for three days, or after
    four weeks, which then are the new normal. The test learns nothing during an alarm. `least` is
    the least standard deviation, as a share of the mean.

    >>> test = PageHinkley(threshold=6, warm_up=4, side="up")
    >>> [test.update(value) for value in (1.0, 1.2, 0.9, 1.1, 1.0, 1.1, 2.0, 2.1, 2.0)][-3:]
    [False, True, True]
    """

    threshold: float
    warm_up: int
    side: Side = "up"
    least: float = 0.01
    days: int = 0
    mean: float = 0.0
    variance: float = 0.0
    above: float = 0.0
    below: float = 0.0
    alarm_days: int = 0
    recent: list[float] = field(default_factory=list)

    def update(self, value: float) -> bool:
        """Add a day's value. True if the signal is in alarm."""
        z = self.deviation(value)
        if self.alarm_days:
            self._in_alarm(z)
        elif self.days >= self.warm_up:
            z = max(-_MAX_DEVIATION, min(_MAX_DEVIATION, z))
            self.above = max(0.0, self.above + z - SLACK) if self.side != "down" else 0.0
            self.below = max(0.0, self.below - z - SLACK) if self.side != "up" else 0.0
            if max(self.above, self.below) > self.threshold:
                self.alarm_days, self.recent = 1, []
        if not self.alarm_days:
            self._learn(self._clipped(value))
        return self.alarm_days > 0

    def deviation(self, value: float) -> float:
        """Standard deviations of a value from the mean; 0 before the second day."""
        return (value - self.mean) / self._spread() if self.days > 1 else 0.0

    def _spread(self) -> float:
        return math.sqrt(max(self.variance, (self.least * self.mean) ** 2, 1e-12))

    def _in_alarm(self, z: float) -> None:
        self.alarm_days += 1
        self.recent = [*self.recent, z][-_RECOVERED_DAYS:]
        recovered = (
            len(self.recent) == _RECOVERED_DAYS
            and abs(sum(self.recent)) < _RECOVERED_WITHIN * _RECOVERED_DAYS
        )
        if recovered or self.alarm_days > _NEW_NORMAL_DAYS:
            if not recovered:
                self.days, self.mean, self.variance = 0, 0.0, 0.0
            self.above = self.below = 0.0
            self.alarm_days = 0

    def _clipped(self, value: float) -> float:
        """The value, clipped to a few deviations around the mean.

        Otherwise the first days of a drift would inflate the deviation and hide the rest of it.
        """
        if self.days < self.warm_up:
            return value
        spread = self._spread()
        return max(self.mean - _MAX_LEARNED * spread, min(self.mean + _MAX_LEARNED * spread, value))

    def _learn(self, value: float) -> None:
        self.days += 1
        share = 1 / min(self.days, MEMORY_DAYS)
        gap = value - self.mean
        self.mean += share * gap
        self.variance = (1 - share) * (self.variance + share * gap * gap)


#: The tests of a class, and the side of each that counts; `excess` is a second test of the loss.
TESTS: Final[dict[str, Side]] = {"loss": "up", "excess": "up", "pit": "both"}
#: Least deviation of a test, as a share of its mean.
_LEAST: Final = {"loss": 0.01, "excess": 0.15, "pit": 0.01}


class Reading(NamedTuple):
    """A signal on a day: its alarm, its value, and its usual value before."""

    alarm: bool
    value: float
    usual: float


@dataclass(slots=True)
class ClassDrift:
    """The signals of one volume class, its usual demand per day, and how hard it is to forecast.

    `difficulty` is about the naive's WQL of the last weeks, during the warm-up the median of its
    days, `first`: one of them may be far from usual. It is 0 while these are too few; until then
    the loss decides alone.
    """

    threshold: float
    warm_up: int
    usual: float = 0.0
    days: int = 0
    difficulty: float = 0.0
    first: list[float] = field(default_factory=list)
    tests: dict[str, PageHinkley] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, side in TESTS.items():
            test = PageHinkley(self.threshold, self.warm_up, side, _LEAST[name])
            self.tests.setdefault(name, test)

    def update(self, sums_K: NDArray[np.float64]) -> dict[str, Reading]:
        """Add a day's sums [..., K] (`score_sums.SUMS`); return a reading of each signal.

        A day without demand is ignored.
        """
        pooled_K = np.asarray(sums_K, np.float64).reshape(-1, N_SUMS).sum(axis=0)
        named = dict(zip(SUMS, pooled_K.tolist(), strict=True))
        if named["actual"] <= 0 or named["weight"] <= 0:
            return {}
        self.days += 1
        self.usual += (named["actual"] - self.usual) / min(self.days, MEMORY_DAYS)
        self._follow(named)
        demand = max(named["actual"], _LEAST_DEMAND * self.usual)
        loss, pit = 2 * named["loss"] / demand, named["pit"] / named["weight"]
        usual = {name: test.mean for name, test in self.tests.items()}
        worse = self.tests["loss"].update(loss)
        excessive = not self.difficulty or self.tests["excess"].update(loss / self.difficulty)
        moved = self.tests["pit"].update(pit)
        return {
            "loss": Reading(worse and excessive, loss, usual["loss"]),
            "pit": Reading(moved, pit, usual["pit"]),
        }

    def _follow(self, named: Mapping[str, float]) -> None:
        """Let the difficulty follow the seasonal naive's WQL of a day."""
        if named["naive_actual"] <= 0 or named["naive_loss"] <= 0:
            return
        naive = 2 * named["naive_loss"] / named["naive_actual"]
        if len(self.first) < max(self.warm_up, _LEAST_FIRST):
            self.first.append(naive)
            if len(self.first) >= _LEAST_FIRST:
                self.difficulty = statistics.median(self.first)
            return
        gap = _RATE * math.log(naive / self.difficulty)
        self.difficulty *= math.exp(max(-_STEP, min(_STEP, gap)))

    def state(self) -> dict[str, Any]:
        """Plain JSON, the argument of `from_state`."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "ClassDrift":
        """Rebuild the object of a `state`.

        >>> drift = ClassDrift(8.0, 14)
        >>> ClassDrift.from_state(drift.state()) == drift
        True
        """
        tests = {name: PageHinkley(**test) for name, test in state["tests"].items()}
        return cls(**{**state, "tests": tests})
