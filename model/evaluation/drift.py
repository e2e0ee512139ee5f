"""Has a model drifted? Day by day, from how good its forecasts turned out to be.

Two signals of each volume class: the pinball loss of a day relative to the class's usual demand,
and the mean of the probability integral transform under the model's own quantiles, which tells that
demand has moved up or down before the loss does. Each is watched by Page and Hinkley's test (Page
1954; Hinkley 1971) in standard deviations of its own past: what a signal lies above its mean, less
half a deviation a day, is summed up, and an alarm is raised when the sum passes the threshold.
At a threshold of 8 a signal of independent normal days raises one false alarm in some 20,000 days.

Days, not buckets: the hours of a day differ from each other by more than any drift.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.evaluation.score_sums import N_SUMS, SUMS

#: Drift below this many standard deviations a day is of no interest.
SLACK: Final = 0.5
#: Means and deviations forget over this many days.
MEMORY_DAYS: Final = 56
#: Largest single day, in deviations: one strange day is not a drift.
_MOST: Final = 4.0
#: Largest deviation, up or down, that is learnt from.
_TAME: Final = 3.0
#: A signal is back when its last days lie, on average, this near to what was usual.
_BACK_WITHIN: Final = 1.0
_BACK_DAYS: Final = 3
#: An incident that has lasted so long is how things are now.
_NEW_NORMAL_DAYS: Final = 28

Side = Literal["up", "down", "both"]


@dataclass(slots=True)
class PageHinkley:
    """Page and Hinkley's test on one signal, an update a day.

    `update` says whether the signal is in alarm; it raises one when a sum passes `threshold`, and
    takes it back when the signal has been near its old mean for three days, or after four weeks,
    which then are the new normal. While it is in alarm nothing is learned.

    >>> test = PageHinkley(threshold=6, warm_up=4, side="up")
    >>> [test.update(value) for value in (1.0, 1.2, 0.9, 1.1, 1.0, 1.1, 2.0, 2.1, 2.0)][-3:]
    [False, True, True]
    """

    threshold: float
    warm_up: int
    side: Side = "up"
    days: int = 0
    mean: float = 0.0
    variance: float = 0.0
    above: float = 0.0
    below: float = 0.0
    alarm_days: int = 0
    recent: list[float] = field(default_factory=list)

    def update(self, value: float) -> bool:
        """Take a day's value; whether the signal is in alarm now."""
        z = self.deviation(value)
        if self.alarm_days:
            self._in_alarm(z)
        elif self.days >= self.warm_up:
            z = max(-_MOST, min(_MOST, z))
            self.above = max(0.0, self.above + z - SLACK) if self.side != "down" else 0.0
            self.below = max(0.0, self.below - z - SLACK) if self.side != "up" else 0.0
            if max(self.above, self.below) > self.threshold:
                self.alarm_days, self.recent = 1, []
        if not self.alarm_days:
            self._learn(self._tamed(value))
        return self.alarm_days > 0

    def deviation(self, value: float) -> float:
        """Standard deviations of a value from the mean; 0 while nothing is known."""
        return (value - self.mean) / self._spread() if self.days > 1 else 0.0

    def _spread(self) -> float:
        return math.sqrt(max(self.variance, (0.01 * self.mean) ** 2, 1e-12))

    def _in_alarm(self, z: float) -> None:
        self.alarm_days += 1
        self.recent = [*self.recent, z][-_BACK_DAYS:]
        back = len(self.recent) == _BACK_DAYS and abs(sum(self.recent)) < _BACK_WITHIN * _BACK_DAYS
        if back or self.alarm_days > _NEW_NORMAL_DAYS:
            if not back:
                self.days, self.mean, self.variance = 0, 0.0, 0.0
            self.above = self.below = 0.0
            self.alarm_days = 0

    def _tamed(self, value: float) -> float:
        """The value, or the nearest that is not too strange to be learnt from.

        Otherwise the first days of a drift would widen what is usual until none of it is seen.
        """
        if self.days < self.warm_up:
            return value
        spread = self._spread()
        return max(self.mean - _TAME * spread, min(self.mean + _TAME * spread, value))

    def _learn(self, value: float) -> None:
        self.days += 1
        share = 1 / min(self.days, MEMORY_DAYS)
        gap = value - self.mean
        self.mean += share * gap
        self.variance = (1 - share) * (self.variance + share * gap * gap)


#: The signals of a class, and on which side each counts.
SIGNALS: Final[dict[str, Side]] = {"loss": "up", "pit": "both"}


class Reading(NamedTuple):
    """A signal on a day: whether it is in alarm, its value, and what was usual before."""

    alarm: bool
    value: float
    usual: float


@dataclass(slots=True)
class ClassDrift:
    """The signals of one volume class, and its usual demand a day."""

    threshold: float
    warm_up: int
    usual: float = 0.0
    days: int = 0
    tests: dict[str, PageHinkley] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, side in SIGNALS.items():
            self.tests.setdefault(name, PageHinkley(self.threshold, self.warm_up, side))

    def update(self, sums_K: NDArray[np.float64]) -> dict[str, Reading]:
        """Take a day's sums [..., K] of `model.scores`; a reading of each signal.

        A day without any demand says nothing, and changes nothing.
        """
        pooled_K = np.asarray(sums_K, np.float64).reshape(-1, N_SUMS).sum(axis=0)
        named = dict(zip(SUMS, pooled_K.tolist(), strict=True))
        if named["actual"] <= 0 or named["weight"] <= 0:
            return {}
        self.days += 1
        self.usual += (named["actual"] - self.usual) / min(self.days, MEMORY_DAYS)
        values = {"loss": 2 * named["loss"] / self.usual, "pit": named["pit"] / named["weight"]}
        return {
            name: Reading(usual=test.mean, alarm=test.update(values[name]), value=values[name])
            for name, test in self.tests.items()
        }

    def state(self) -> dict[str, Any]:
        """What `from_state` makes the same object of; plain JSON."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "ClassDrift":
        """The object that `state` was taken of.

        >>> drift = ClassDrift(8.0, 14)
        >>> ClassDrift.from_state(drift.state()) == drift
        True
        """
        tests = {name: PageHinkley(**test) for name, test in state["tests"].items()}
        return cls(**{**state, "tests": tests})
