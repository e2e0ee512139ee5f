"""Every bucket has its hour, weekday and week of the year as a phase, at any width of bucket."""

import datetime as dt

import pytest
import torch

from model.durations import DAY_MS, HOUR_MS, WEEK_MS
from model.inputs.carried_statistics import N_STATISTICS
from model.inputs.seasons.season_layout import layout_of
from model.inputs.seasons.special_days import N_SLOTS

MINUTE_MS = 60_000
#: A nominal month, a twelfth of a year.
MONTH_MS = 2_629_746_000
#: Width of a bucket, then its phases of the day, of the week and of the year.
WIDTHS = [
    (MINUTE_MS, 24, 168, 52),
    (15 * MINUTE_MS, 24, 168, 52),
    (HOUR_MS, 24, 168, 52),
    (6 * HOUR_MS, 4, 28, 52),
    (DAY_MS, 0, 7, 52),
    (WEEK_MS, 0, 0, 52),
    (MONTH_MS, 0, 0, 12),
]


def _ms(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    return int(dt.datetime(year, month, day, hour, minute, tzinfo=dt.UTC).timestamp() * 1000)


def _year_phase(bucket_ms: int, start_ms: int) -> int:
    return int(layout_of(bucket_ms).year_phase(torch.tensor([start_ms])).item())


@pytest.mark.parametrize(("bucket_ms", "day", "week", "year"), WIDTHS)
def test_a_phase_is_an_hour_or_a_week_or_one_bucket_if_that_is_longer(
    bucket_ms: int, day: int, week: int, year: int
) -> None:
    layout = layout_of(bucket_ms)

    assert (layout.day, layout.week, layout.year) == (day, week, year)
    special = N_SLOTS if bucket_ms < WEEK_MS else 0
    assert layout.end == N_STATISTICS + day + week + year + special


@pytest.mark.parametrize(("bucket_ms", "day", "week", "year"), WIDTHS)
def test_each_phase_has_a_column_of_its_own(bucket_ms: int, day: int, week: int, year: int) -> None:
    """Over three years all columns of a profile occur, and no other."""
    layout = layout_of(bucket_ms)
    count = 3 * 366 * DAY_MS // max(bucket_ms, HOUR_MS)
    phases = layout.buckets(_ms(2011, 1, 1) + max(bucket_ms, HOUR_MS) * torch.arange(count), None)

    assert layout.first_day == N_STATISTICS
    for columns, first, size in (
        (phases.day, layout.first_day, day),
        (phases.week, layout.first_week, week),
        (phases.year, layout.first_year, year),
    ):
        if size:
            assert sorted(set(columns.tolist())) == list(range(first, first + size))


@pytest.mark.parametrize("bucket_ms", [MINUTE_MS, 15 * MINUTE_MS, HOUR_MS])
def test_weeks_start_on_monday_and_phases_are_hours(bucket_ms: int) -> None:
    layout = layout_of(bucket_ms)
    monday = _ms(2011, 10, 3)
    starts = torch.tensor([monday, monday + HOUR_MS - bucket_ms, monday + HOUR_MS])
    sunday = torch.tensor([monday - bucket_ms])

    assert layout.week_phase(starts).tolist() == [0, 0, 1]
    assert layout.day_phase(starts).tolist() == [0, 0, 1]
    assert layout.week_phase(sunday).tolist() == [167]
    assert layout.day_phase(sunday).tolist() == [23]


def test_days_and_quarters_of_a_day_follow_the_week() -> None:
    monday = _ms(2011, 10, 3)
    days = layout_of(DAY_MS).week_phase(monday + DAY_MS * torch.arange(-1, 8))
    quarters = layout_of(6 * HOUR_MS)
    starts = monday + 6 * HOUR_MS * torch.arange(28)

    assert days.tolist() == [6, 0, 1, 2, 3, 4, 5, 6, 0]
    assert quarters.week_phase(starts).tolist() == list(range(28))
    assert quarters.day_phase(starts).tolist() == [0, 1, 2, 3] * 7


@pytest.mark.parametrize(
    ("day", "phase"),
    [
        ((2011, 1, 1), 0),
        ((2011, 1, 7), 0),
        ((2011, 1, 8), 1),
        ((2011, 3, 1), 8),  # day 60 of the year
        ((2012, 2, 29), 8),
        ((2012, 3, 1), 8),  # day 61 of a leap year
        ((2011, 12, 23), 50),
        ((2011, 12, 24), 51),
        ((2011, 12, 31), 51),  # the last phase has eight days, nine in a leap year
        ((2012, 12, 31), 51),
        ((2013, 1, 1), 0),
    ],
)
def test_a_phase_of_the_year_is_seven_days_from_the_first_of_january(
    day: tuple[int, int, int], phase: int
) -> None:
    """Also of leap years; hours of a day have its phase."""
    assert _year_phase(DAY_MS, _ms(*day)) == phase
    assert _year_phase(HOUR_MS, _ms(*day)) == phase
    assert _year_phase(HOUR_MS, _ms(*day, hour=23)) == phase
    assert _year_phase(15 * MINUTE_MS, _ms(*day, hour=23, minute=45)) == phase


def test_a_week_has_the_phase_of_its_middle() -> None:
    """The week from 29 December belongs to the new year, the one before to the old."""
    assert _year_phase(WEEK_MS, _ms(2014, 12, 29)) == 0
    assert _year_phase(WEEK_MS, _ms(2014, 12, 22)) == 51


@pytest.mark.parametrize("bucket_ms", [width for width, *_ in WIDTHS])
def test_no_phase_of_the_year_is_left_out(bucket_ms: int) -> None:
    """Buckets of twelve years pass from each phase to the next, and from the last to the first."""
    layout = layout_of(bucket_ms)
    step = max(bucket_ms, DAY_MS)
    starts = _ms(2009, 7, 1) + step * torch.arange(12 * 365 * DAY_MS // step)
    phases = layout.year_phase(starts)

    assert set((phases.diff() % layout.year).tolist()) in ({0, 1}, {1})


def test_wide_buckets_leave_no_phase_out_either() -> None:
    for days in (8, 10, 14, 28, 30, 31, 91):
        layout = layout_of(days * DAY_MS)
        phases = layout.year_phase(_ms(2009, 7, 1) + layout.bucket_ms * torch.arange(600))

        assert (phases.diff() % layout.year).max() <= 1, days


@pytest.mark.parametrize("bucket_ms", [HOUR_MS, DAY_MS, WEEK_MS, MONTH_MS])
def test_the_last_bucket_of_each_phase_of_the_year_is_its_end(bucket_ms: int) -> None:
    layout = layout_of(bucket_ms)
    starts = _ms(2011, 1, 3) + bucket_ms * torch.arange(2 * 366 * DAY_MS // bucket_ms)
    phases = layout.buckets(starts, None)

    assert phases.ends_T == phases.ends.tolist()
    assert phases.ends[:-1].tolist() == (phases.year.diff() != 0).tolist()


def test_one_bucket_of_many_has_the_phases_of_that_bucket_alone() -> None:
    layout = layout_of(HOUR_MS)
    starts_TS = _ms(2011, 1, 7, 20) + HOUR_MS * torch.tensor([[0, 9], [3, 5], [4, -110]])
    together = layout.buckets(starts_TS, "GB")

    for t in range(3):
        at = together.at(t)
        for s in range(2):
            alone = layout.buckets(starts_TS[t, s : s + 1], "GB").at(0)
            for name in ("day", "week", "year", "place", "ends", "holiday"):
                assert getattr(at, name)[s] == getattr(alone, name), name
    assert together.ends_T == [False, True, False]
    assert together.holiday_T == [False, False, True]


@pytest.mark.parametrize("bucket_ms", [width for width, *_ in WIDTHS])
def test_the_phases_ahead_are_those_of_the_buckets_when_they_come(bucket_ms: int) -> None:
    layout = layout_of(bucket_ms)
    origin_ms = _ms(2012, 12, 30, 22)
    ahead = layout.horizon(origin_ms, 30, "GB")
    coming = layout.buckets(origin_ms + bucket_ms * torch.arange(30), "GB")
    rows = layout.horizon(torch.tensor([0, origin_ms]), 30, "GB")

    assert ahead.steps_H.tolist() == list(range(30))
    assert ahead.year_of_H is not None
    year_H = ahead.year[ahead.year_of_H]
    for seen, expected in (
        (ahead.day, coming.day),
        (ahead.week, coming.week),
        (layout.first_year + year_H, coming.year),
        (ahead.holiday, coming.holiday.float()),
        (ahead.special, coming.special),
    ):
        assert torch.equal(seen, expected)
    for name in ("day", "week", "holiday", "special"):
        assert torch.equal(getattr(rows, name)[1], getattr(ahead, name))
    assert torch.equal(rows.year[1], year_H)


@pytest.mark.parametrize("bucket_ms", [15 * MINUTE_MS, HOUR_MS, DAY_MS])
def test_public_holidays_of_the_country_are_marked(bucket_ms: int) -> None:
    """The second and third of January 2012 were a Monday off in Britain, and a Tuesday at work."""
    starts = _ms(2012, 1, 1) + bucket_ms * torch.arange(4 * DAY_MS // bucket_ms)
    days = (starts - _ms(2012, 1, 1)) // DAY_MS
    here = layout_of(bucket_ms).buckets(starts, "GB")
    nowhere = layout_of(bucket_ms).buckets(starts, None)

    assert set(days[here.holiday].tolist()) == {0, 1}
    assert here.holiday_T == (days < 2).tolist()
    assert not nowhere.holiday.any()
    assert not any(nowhere.holiday_T)


@pytest.mark.parametrize("bucket_ms", [WEEK_MS, MONTH_MS])
def test_a_wide_bucket_is_no_holiday(bucket_ms: int) -> None:
    starts = _ms(2011, 12, 5) + bucket_ms * torch.arange(12)

    assert not layout_of(bucket_ms).buckets(starts, "GB").holiday.any()


def test_buckets_of_an_hour_are_numbered() -> None:
    starts = _ms(2012, 1, 1) + 15 * MINUTE_MS * torch.arange(6)

    assert layout_of(15 * MINUTE_MS).buckets(starts, None).place.tolist() == [0, 1, 2, 3, 0, 1]
    assert not layout_of(HOUR_MS).buckets(starts, None).place.any()
