"""Rows that trees learn from: a series at an origin and a step, for buckets of any width.

Columns: means over eight to eleven spans, lags, spread, the same phase of past weeks and days, last
year's level and the same bucket of the last two years, share and size of sales, age, order lines,
price relative to its usual one, the step, category, location and level of the series, and the
calendar of the target bucket. Columns in units are divided by the scale of the series at the
origin, so that what is learned from one series holds for another, and for a series that grows.

Axes: T = buckets, S = series, R = rows, X = columns.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.peers.tree_calendar import tree_calendar
from benchmarks.accuracy.tasks import Task
from model.durations import DAY_MS, WEEK_MS
from model.inputs.carried_statistics import ORDERS, REVENUE, UNITS
from stream.series_ids import level_of

Doubles = NDArray[np.float64]
Places = NDArray[np.int64]
_YEAR_DAYS: Final = 365.2425
_LEVELS: Final = ("sku", "location", "category", "total")
_LEAST_SCALE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Spans:
    """Lengths in buckets of a task's seasons, and of the means that trees read.

    `week` and `day` are 1 for buckets that are not shorter.

    >>> Spans.of(DAY_MS).means, Spans.of(WEEK_MS).year
    ((1, 4, 7, 14, 28, 56, 112, 364), 52)
    """

    day: int
    week: int
    year: int
    means: tuple[int, ...]
    scale: int

    @classmethod
    def of(cls, bucket_ms: int) -> "Spans":
        """The lengths for a width of buckets."""
        day, week = max(1, DAY_MS // bucket_ms), max(1, WEEK_MS // bucket_ms)
        if week == 1:
            year = round(_YEAR_DAYS * DAY_MS / bucket_ms)
            means = {1, 2, 3, *(max(1, year // part) for part in (12, 6, 4, 2)), year, 2 * year}
            return cls(day, week, year, tuple(sorted(means)), max(year // 2, 12))
        means = {1, week // 2 + 1, *(k * week for k in (1, 2, 4, 8, 16, 52))}
        means |= {day // 4, day} if day > 1 else set()
        return cls(day, week, 52 * week, tuple(sorted(means)), 8 * week)


class TreeRows:
    """The columns of any series, origin and step of a task, of which only the past is read."""

    def __init__(self, task: Task) -> None:
        history = task.history
        values_TSF = history.values_TSF
        units_TS = values_TSF[:, :, UNITS].astype(np.float64)
        self.spans = Spans.of(history.bucket_ms)
        self.begun_S = np.where(
            (units_TS > 0).any(axis=0), (units_TS > 0).argmax(axis=0), len(units_TS)
        )
        self.known_TS = np.arange(len(units_TS))[:, None] >= self.begun_S
        if task.observed_TS is not None:
            self.known_TS &= task.observed_TS
        self.units_TS = np.where(self.known_TS, units_TS, np.nan)
        counted_TS = np.where(self.known_TS, units_TS, 0)
        self.sums = {
            "known": _running(self.known_TS),
            "units": _running(counted_TS),
            "squares": _running(counted_TS**2),
            "sold": _running(counted_TS > 0),
            "orders": _running(values_TSF[:, :, ORDERS]),
            "revenue": _running(values_TSF[:, :, REVENUE]),
        }
        self.calendar_TC = tree_calendar(
            history.start_ms,
            bucket_ms=history.bucket_ms,
            buckets=len(units_TS) + task.horizon,
            country=task.country,
        )
        level_S = [_LEVELS.index(level_of(name)) for name in history.series]
        self.static_S3 = np.column_stack((history.static_features_SX[:, :2], level_S))

    def design(
        self, place_R: Places, step_R: Places, series_R: Places
    ) -> tuple[NDArray[np.float32], Doubles]:
        """Columns [R, X] and scale [R] of rows; step 0 is the bucket at the origin."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # means of unknown buckets are NaN
            scale_R = self._scale(place_R, series_R)
            in_units = [
                *(self._mean("units", place_R, span, series_R) for span in self.spans.means),
                *(self._at(place_R - lag, series_R) for lag in range(1, 8)),
                self._spread(place_R, series_R),
                *self._phases(place_R, step_R, series_R),
                *self._last_years(place_R, step_R, series_R),
                self.sums["units"][place_R, series_R]
                / np.maximum(1, self.sums["sold"][place_R, series_R]),
                self._mean("orders", place_R, 4 * self.spans.week, series_R),
            ]
            recent_R = self._price(place_R, 4 * self.spans.week, series_R)
            usual_R = self._price(place_R, 26 * self.spans.week, series_R)
            others = [
                np.log(scale_R),
                self._mean("sold", place_R, self.spans.scale, series_R),
                np.maximum(place_R - self.begun_S[series_R], 0),
                recent_R / usual_R,
                usual_R,
                step_R + 1,
            ]
        design_RX = np.column_stack(
            (
                np.stack(in_units, axis=1) / scale_R[:, None],
                *others,
                self.static_S3[series_R],
                self.calendar_TC[place_R + step_R],
            )
        )
        return design_RX.astype(np.float32), scale_R

    def _mean(self, name: str, place_R: Places, span: int, series_R: Places) -> Doubles:
        first_R = np.maximum(place_R - span, 0)
        known = self.sums["known"]
        known_R = known[place_R, series_R] - known[first_R, series_R]
        sums = self.sums[name]
        mean_R: Doubles = (sums[place_R, series_R] - sums[first_R, series_R]) / np.where(
            known_R > 0, known_R, np.nan
        )
        return mean_R

    def _scale(self, place_R: Places, series_R: Places) -> Doubles:
        """Recent mean of units, at least 0.3 of the year's mean."""
        year_R = np.nan_to_num(self._mean("units", place_R, self.spans.year, series_R))
        recent_R = self._mean("units", place_R, self.spans.scale, series_R)
        recent_R = np.where(np.isnan(recent_R), year_R, recent_R)
        scale_R: Doubles = np.maximum(np.maximum(recent_R, 0.3 * year_R), _LEAST_SCALE)
        return scale_R

    def _spread(self, place_R: Places, series_R: Places) -> Doubles:
        span = self.spans.scale
        square_R = self._mean("squares", place_R, span, series_R)
        mean_R = self._mean("units", place_R, span, series_R)
        return np.sqrt(np.maximum(square_R - mean_R**2, 0))

    def _at(self, place_R: Places, series_R: Places) -> Doubles:
        inside_R = place_R >= 0
        found_R: Doubles = np.where(
            inside_R, self.units_TS[np.where(inside_R, place_R, 0), series_R], np.nan
        )
        return found_R

    def _phases(self, place_R: Places, step_R: Places, series_R: Places) -> list[Doubles]:
        """The same weekday and hour of the last eight weeks, the same hour of seven days."""
        columns: list[Doubles] = []
        target_R = place_R + step_R
        week, day = self.spans.week, self.spans.day
        if week > 1:
            last_R = step_R // week + 1
            same_8R = np.stack(
                [self._at(target_R - (last_R + k) * week, series_R) for k in range(8)]
            )
            columns += [
                same_8R[0],
                same_8R[1],
                np.nanmean(same_8R[:4], axis=0),
                np.nanmean(same_8R, axis=0),
                np.nanmin(same_8R[:4], axis=0),
                np.nanmax(same_8R[:4], axis=0),
            ]
        if day > 1:
            last_R = step_R // day + 1
            same_7R = np.stack(
                [self._at(target_R - (last_R + k) * day, series_R) for k in range(7)]
            )
            columns += [same_7R[0], np.nanmean(same_7R, axis=0)]
        return columns

    def _last_years(self, place_R: Places, step_R: Places, series_R: Places) -> list[Doubles]:
        """The bucket one and two years before the target, and the levels around it."""
        week, year = self.spans.week, self.spans.year
        then_R = place_R + step_R - year
        half = week // 2 + 1
        end_R = np.clip(then_R + half, 0, place_R)
        around_R = self._mean("units", end_R, 2 * half - 1, series_R)
        base_span = 4 * week if week > 1 else max(3, year // 6)
        before_R = self._mean("units", np.maximum(place_R - year, 0), base_span, series_R)
        return [
            self._at(then_R, series_R),
            self._at(then_R - year, series_R),
            np.where(then_R >= half, around_R, np.nan),
            np.where(place_R - year >= base_span // 2, before_R, np.nan),
        ]

    def _price(self, place_R: Places, span: int, series_R: Places) -> Doubles:
        first_R = np.maximum(place_R - span, 0)
        units, revenue = self.sums["units"], self.sums["revenue"]
        units_R = units[place_R, series_R] - units[first_R, series_R]
        price_R: Doubles = (revenue[place_R, series_R] - revenue[first_R, series_R]) / np.where(
            units_R > 0, units_R, np.nan
        )
        return price_R


def _running(values_TS: NDArray[Any]) -> Doubles:
    """Sums over the buckets before each place [T + 1, S]."""
    nothing = np.zeros((1, values_TS.shape[1]))
    return np.concatenate((nothing, np.cumsum(values_TS, axis=0, dtype=np.float64)))
