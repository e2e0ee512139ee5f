"""Columns of the carried seasonal profiles, and the phase of a bucket in each of them.

Four profiles follow the named statistics of a series: demand by time of day (buckets below a day),
by time of week (buckets below a week), by season of the year, and on special days (buckets below a
week). A phase of the first two is an hour, or one bucket if that is longer; a phase of the year is
seven days, or one bucket if that is longer. Phases of buckets below a day are those of the shop's
wall clock (`model/wall_clock.py`).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from torch import Tensor

from model.durations import DAY_MS, HOUR_MS, WEEK_MS
from model.inputs.carried_statistics import N_STATISTICS
from model.inputs.seasons.calendar import is_holiday
from model.inputs.seasons.special_days import N_SLOTS, slots
from model.time_zones import UTC_ZONE
from model.wall_clock import calendar_ms

#: 1970-01-01 was a Thursday; weeks start on Monday.
_MONDAY_MS: Final = 4 * DAY_MS
_YEAR_DAYS: Final = 365.2425
_YEAR_WEEKS: Final = 52
#: A twelfth of 365.25 days is a month as well.
_NEARLY: Final = 1e-3


@dataclass(frozen=True, slots=True)
class BucketPhases:
    """Columns of the phases of buckets: [T], or [T, S] if each series has its own time.

    `place` counts the buckets of the same hour before each bucket, 0 for wider ones. `ends` marks
    the last bucket of a phase of the year, `day_ends` of a day, `holiday` public holidays;
    `special` is the slot of a special day, else -1. `ends_T`, `day_ends_T`, `holiday_T` and
    `special_T` are the buckets with any such.
    """

    day: Tensor
    week: Tensor
    year: Tensor
    place: Tensor
    ends: Tensor
    day_ends: Tensor
    holiday: Tensor
    special: Tensor
    ends_T: list[bool]
    day_ends_T: list[bool]
    holiday_T: list[bool]
    special_T: list[bool]

    def at(self, t: int) -> "BucketPhases":
        """The phases of bucket t alone, [1] or [S]."""
        return BucketPhases(
            day=self.day[t].reshape(-1),
            week=self.week[t].reshape(-1),
            year=self.year[t].reshape(-1),
            place=self.place[t].reshape(-1),
            ends=self.ends[t].reshape(-1),
            day_ends=self.day_ends[t].reshape(-1),
            holiday=self.holiday[t].reshape(-1),
            special=self.special[t].reshape(-1),
            ends_T=self.ends_T[t : t + 1],
            day_ends_T=self.day_ends_T[t : t + 1],
            holiday_T=self.holiday_T[t : t + 1],
            special_T=self.special_T[t : t + 1],
        )

    def ahead(self, layout: "SeasonLayout") -> "HorizonPhases":
        """The phases of one bucket as a horizon of one step, [1] or [S, 1]."""

        def step(part: Tensor) -> Tensor:
            return part if part.numel() == 1 else part[:, None]

        return HorizonPhases(
            steps_H=torch.zeros(1, dtype=torch.int64, device=self.day.device),
            day=step(self.day),
            week=step(self.week),
            year=step(self.year - layout.first_year),
            year_of_H=None,
            holiday=step(self.holiday.to(torch.float32)),
            special=step(self.special),
            any_special=any(self.special_T),
            any_holiday=any(self.holiday_T),
        )


@dataclass(frozen=True, slots=True)
class HorizonPhases:
    """Columns of the phases ahead, [H] or [S, H]; `year` is the phase, not its column.

    `holiday` is 1 on public holidays, else 0; `special` is the slot of a special day, else -1;
    `any_holiday` and `any_special` say if there is one at all.
    """

    steps_H: Tensor
    day: Tensor
    week: Tensor
    year: Tensor
    year_of_H: Tensor | None
    holiday: Tensor
    special: Tensor
    any_special: bool
    any_holiday: bool


@dataclass(frozen=True, slots=True)
class SeasonLayout:
    """Sizes of the profiles, 0 where the bucket is too wide for one.

    `per_day` and `per_week` are the buckets of a day and of a week.

    >>> layout_of(DAY_MS)
    SeasonLayout(bucket_ms=86400000, day=0, week=7, year=52, special=64, per_day=1, per_week=7)
    >>> layout_of(60_000).day, layout_of(60_000).per_week, layout_of(WEEK_MS).week
    (24, 10080, 0)
    """

    bucket_ms: int
    day: int
    week: int
    year: int
    special: int
    per_day: int
    per_week: int

    @property
    def first_day(self) -> int:
        """Column of the first phase of the day."""
        return N_STATISTICS

    @property
    def first_week(self) -> int:
        """Column of the first phase of the week."""
        return N_STATISTICS + self.day

    @property
    def first_year(self) -> int:
        """Column of the first phase of the year."""
        return self.first_week + self.week

    @property
    def first_special(self) -> int:
        """Column of the first special day."""
        return self.first_year + self.year

    @property
    def end(self) -> int:
        """Number of columns up to the end of the profiles."""
        return self.first_special + self.special

    @property
    def per_year(self) -> float:
        """Buckets of a year."""
        return _YEAR_DAYS * DAY_MS / self.bucket_ms

    def buckets(
        self,
        start_ms: Tensor,
        country: str | None,
        device: torch.device | str = "cpu",
        *,
        timezone: str = UTC_ZONE,
    ) -> "BucketPhases":
        """The columns of the phases of buckets that start at `start_ms`, [T] or [T, S]."""
        start = self._local(start_ms, timezone)
        following = self._local(start_ms + self.bucket_ms, timezone)
        year = self.year_phase(start)
        ends = year != self.year_phase(following)
        holiday, special = self._holiday(start, country), self._special(start, country)
        day_ends = start // DAY_MS != following // DAY_MS
        return BucketPhases(
            day=(self.first_day + self.day_phase(start)).to(device),
            week=(self.first_week + self.week_phase(start)).to(device),
            year=(self.first_year + year).to(device),
            place=(start % HOUR_MS // self.bucket_ms).to(device),
            ends=ends.to(device),
            day_ends=day_ends.to(device),
            holiday=holiday.to(device),
            special=special.to(device),
            ends_T=_any_T(ends),
            day_ends_T=_any_T(day_ends),
            holiday_T=_any_T(holiday),
            special_T=_any_T(special >= 0),
        )

    def horizon(
        self,
        origin_ms: int | Tensor,
        horizon: int,
        country: str | None,
        device: torch.device | str = "cpu",
        *,
        timezone: str = UTC_ZONE,
        distinct: bool = True,
    ) -> "HorizonPhases":
        """The columns of the phases of `horizon` buckets from an origin, or one per row [S], on.

        With `distinct` the phases of the year ahead of one origin are listed once each, so their
        number differs from origin to origin.
        """
        steps_H = torch.arange(horizon)
        ahead = self.bucket_ms * steps_H
        start = ahead + (origin_ms if isinstance(origin_ms, int) else origin_ms[:, None])
        start = self._local(start, timezone)
        special, holiday = self._special(start, country), self._holiday(start, country)
        year, year_of_H = self.year_phase(start), None
        if distinct and year.dim() == 1:
            # in order, not sorted: the horizon may pass the end of the year
            year, year_of_H = torch.unique_consecutive(year, return_inverse=True)
            year_of_H = year_of_H.to(device)
        return HorizonPhases(
            steps_H=steps_H.to(device),
            day=(self.first_day + self.day_phase(start)).to(device),
            week=(self.first_week + self.week_phase(start)).to(device),
            year=year.to(device),
            year_of_H=year_of_H,
            holiday=holiday.to(device, torch.float32),
            special=special.to(device),
            any_special=bool((special >= 0).any()),
            any_holiday=bool(holiday.any()),
        )

    def _local(self, start_ms: Tensor, timezone: str) -> Tensor:
        local = calendar_ms(start_ms.numpy(), bucket_ms=self.bucket_ms, timezone=timezone)
        return torch.from_numpy(local)

    def _holiday(self, start_ms: Tensor, country: str | None) -> Tensor:
        flags = is_holiday(start_ms.numpy(), bucket_ms=self.bucket_ms, country=country)
        return torch.from_numpy(flags)

    def _special(self, start_ms: Tensor, country: str | None) -> Tensor:
        return torch.from_numpy(slots(start_ms.numpy(), bucket_ms=self.bucket_ms, country=country))

    def day_phase(self, start_ms: Tensor) -> Tensor:
        """Phase of the day of buckets [...]."""
        return start_ms % DAY_MS * self.day // DAY_MS

    def week_phase(self, start_ms: Tensor) -> Tensor:
        """Phase of the week of buckets [...]; Monday midnight is 0.

        >>> layout_of(HOUR_MS).week_phase(torch.tensor([_MONDAY_MS, _MONDAY_MS + HOUR_MS])).tolist()
        [0, 1]
        """
        return (start_ms - _MONDAY_MS) % WEEK_MS * self.week // WEEK_MS

    def year_phase(self, start_ms: Tensor) -> Tensor:
        """Phase of the year of buckets [...], by their middle.

        >>> layout_of(DAY_MS).year_phase(torch.tensor([0, 7 * DAY_MS, 364 * DAY_MS])).tolist()
        [0, 1, 51]
        """
        middle = (start_ms + self.bucket_ms // 2).numpy(force=True)
        if self.year < _YEAR_WEEKS:
            share = middle / (_YEAR_DAYS * DAY_MS) % 1.0
            phase = (share * self.year).astype(np.int64)
        else:
            day = middle.astype("datetime64[ms]").astype("datetime64[D]")
            of_year = (day - day.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
            phase = np.minimum(of_year // 7, _YEAR_WEEKS - 1)
        return torch.from_numpy(phase)


def read_columns(stats_SK: Tensor, columns: Tensor) -> Tensor:
    """Columns [H] of all series, or columns [S, H] of each, as [H, S].

    >>> read_columns(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([2, 0])).flatten().tolist()
    [3.0, 1.0]
    """
    if columns.dim() == 1:
        return stats_SK.t().index_select(0, columns)
    return stats_SK.gather(1, columns).t()


def _any_T(flags: Tensor) -> list[bool]:
    made: list[bool] = flags.view(len(flags), -1).any(dim=1).tolist()
    return made


@lru_cache(maxsize=16)
def layout_of(bucket_ms: int) -> SeasonLayout:
    """The layout for a bucket width."""
    per_day = max(1, DAY_MS // bucket_ms)
    per_week = max(1, WEEK_MS // bucket_ms)
    day = min(24, per_day) if bucket_ms < DAY_MS else 0
    week = 7 * max(day, 1) if bucket_ms < WEEK_MS else 0
    if DAY_MS < bucket_ms < WEEK_MS:
        week = per_week if WEEK_MS % bucket_ms == 0 else 0
    year = _YEAR_WEEKS
    if bucket_ms > WEEK_MS:  # not shorter than a bucket, which would leave out phases
        year = max(1, int(_YEAR_DAYS * DAY_MS / bucket_ms + _NEARLY))
    special = N_SLOTS if bucket_ms < WEEK_MS else 0
    return SeasonLayout(bucket_ms, day, week, year, special, per_day, per_week)
