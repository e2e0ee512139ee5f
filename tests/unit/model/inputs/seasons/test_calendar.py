"""The calendar marks holidays, closed days, hours and distances, of the past and the future."""

import datetime as dt

import numpy as np
import pytest

from model.durations import DAY_MS, HOUR_MS, WEEK_MS
from model.inputs.seasons.calendar import (
    N_CALENDAR,
    N_HORIZON,
    calendar_features,
    distances,
    horizon_calendar,
    is_holiday,
)

#: Columns of weekdays, harmonics of the year, holidays and special days, and the bucket's width.
WEEKDAYS, YEAR, SPECIAL, WIDTH = slice(26, 33), slice(33, 39), slice(39, 48), slice(48, 51)


def _ms(year: int, month: int, day: int, hour: int = 0) -> int:
    return int(dt.datetime(year, month, day, hour, tzinfo=dt.UTC).timestamp() * 1000)


def _days(*starts: int) -> np.ndarray:
    return calendar_features(np.array(starts, np.int64), bucket_ms=DAY_MS, country="GB")


@pytest.mark.parametrize(
    ("day", "holiday"),
    [
        ((2011, 4, 22), True),  # Good Friday
        ((2011, 4, 29), True),  # the royal wedding, a bank holiday of that year alone
        ((2010, 12, 25), True),
        ((2011, 8, 29), True),  # summer bank holiday
        ((2011, 8, 30), False),
    ],
)
def test_holidays_are_marked_and_so_are_their_neighbours(
    day: tuple[int, int, int], holiday: bool
) -> None:
    start = _ms(*day)
    before, on, after = _days(start - DAY_MS, start, start + DAY_MS)

    assert on[SPECIAL][0] == holiday
    if holiday:
        assert before[SPECIAL][1] == 1
        assert after[SPECIAL][2] == 1


def test_without_a_country_no_day_is_a_holiday() -> None:
    days = np.arange(_ms(2011, 1, 1), _ms(2012, 1, 1), DAY_MS)

    marks = calendar_features(days, bucket_ms=DAY_MS, country=None)[:, SPECIAL]
    assert marks[:, :3].max() == 0
    assert not is_holiday(days, bucket_ms=DAY_MS, country=None).any()


def test_public_holidays_of_any_shape_are_found() -> None:
    """In every hour of the day; a week is no holiday."""
    hours_DH = _ms(2010, 12, 24) + HOUR_MS * np.arange(72).reshape(3, 24)
    marks = calendar_features(hours_DH.reshape(-1), bucket_ms=HOUR_MS, country="GB")[:, SPECIAL]
    off_DH = is_holiday(hours_DH, bucket_ms=HOUR_MS, country="GB")

    assert off_DH.tolist() == [[False] * 24, [True] * 24, [True] * 24]
    np.testing.assert_array_equal(marks[:, 0].astype(bool), off_DH.reshape(-1))
    assert not is_holiday(np.array([_ms(2010, 12, 25)]), bucket_ms=WEEK_MS, country="GB").any()


def test_every_hour_and_weekday_has_a_column_of_its_own() -> None:
    hours = _ms(2011, 10, 3) + HOUR_MS * np.arange(168)
    features = calendar_features(hours, bucket_ms=HOUR_MS, country="GB")

    assert (features[:, :24].sum(axis=1) == 1).all()
    assert (features[:, :24].argmax(axis=1) == np.arange(168) % 24).all()
    assert (features[:, WEEKDAYS].argmax(axis=1) == np.arange(168) // 24).all()


def test_the_christmas_gap_is_marked() -> None:
    year = np.arange(_ms(2010, 12, 1), _ms(2011, 2, 1), DAY_MS)
    gap = _days(*year.tolist())[:, SPECIAL][:, 3]
    marked = [int(start) for start, inside in zip(year, gap, strict=True) if inside]

    assert marked == list(range(_ms(2010, 12, 24), _ms(2011, 1, 4), DAY_MS))


@pytest.mark.parametrize("year_terms", [False, True])
def test_the_horizon_has_the_calendar_of_its_own_buckets(year_terms: bool) -> None:
    """Then how far ahead each is."""
    origin = _ms(2011, 12, 23, 5)
    ahead = horizon_calendar(
        np.array([origin, origin + HOUR_MS]), horizon=30, bucket_ms=HOUR_MS, country="GB",
        year_terms=year_terms,
    )  # fmt: skip
    starts = origin + HOUR_MS * np.arange(31)
    seen = calendar_features(starts, bucket_ms=HOUR_MS, country="GB", year_terms=year_terms)

    assert ahead.shape == (2, 30, N_HORIZON)
    for number in range(2):
        np.testing.assert_array_equal(ahead[number, :, :N_CALENDAR], seen[number : number + 30])
        np.testing.assert_array_equal(ahead[number, :, N_CALENDAR:], distances(30, HOUR_MS))


def test_terms_of_the_year_are_off_by_default() -> None:
    """Without them a day of winter and one of summer look the same."""
    days = np.array([_ms(2011, 2, 7), _ms(2011, 11, 7)])  # both a Monday, the same day of a month
    off = calendar_features(days, bucket_ms=DAY_MS, country="GB")
    on = calendar_features(days, bucket_ms=DAY_MS, country="GB", year_terms=True)
    of_year = np.zeros(N_CALENDAR, np.bool_)
    of_year[YEAR] = True
    of_year[[SPECIAL.start + k for k in (4, 5, 6)]] = True  # the run-up to Christmas, January

    np.testing.assert_array_equal(off[0], off[1])
    assert not off[:, of_year].any()
    assert np.ptp(on[:, YEAR], axis=0).max() > 0.5
    np.testing.assert_array_equal(on[:, ~of_year], off[:, ~of_year])
    december = calendar_features(
        np.array([_ms(2011, 12, 20)]), bucket_ms=DAY_MS, country="GB", year_terms=True
    )
    assert december[0, SPECIAL.start + 4] > 0.2


def test_the_width_of_the_bucket_is_known() -> None:
    start = np.array([_ms(2011, 10, 3)])
    widths = [
        calendar_features(start, bucket_ms=width, country=None)[0, WIDTH].tolist()
        for width in (60_000, HOUR_MS, DAY_MS, WEEK_MS, 30 * DAY_MS)
    ]

    logs = [width[0] for width in widths]
    assert logs == sorted(logs)
    assert logs[2] == 0
    assert [width[1:] for width in widths] == [[0, 0], [0, 0], [1, 0], [0, 1], [0, 1]]


def test_distances_are_those_of_time_and_of_buckets() -> None:
    """The same day ahead is as far in days at any width; the next bucket is always the first."""
    hourly, daily = distances(48, HOUR_MS), distances(2, DAY_MS)

    np.testing.assert_allclose(hourly[[23, 47], 4:], daily[:, 4:], rtol=1e-6)
    np.testing.assert_array_equal(hourly[0, :4], daily[0, :4])
    falling = np.r_[1:4, 5:8]
    assert (np.diff(hourly, axis=0)[:, falling] < 0).all()
    assert (np.diff(np.delete(hourly, falling, axis=1), axis=0) > 0).all()


@pytest.mark.parametrize("bucket_ms", [60_000, HOUR_MS, WEEK_MS, 30 * DAY_MS])
def test_all_features_stay_small(bucket_ms: int) -> None:
    starts = _ms(2012, 2, 28) + bucket_ms * np.arange(500)
    ahead = horizon_calendar(
        starts[:2], horizon=336, bucket_ms=bucket_ms, country="GB", year_terms=True
    )
    past = calendar_features(starts, bucket_ms=bucket_ms, country="GB", year_terms=True)

    for features in (past, ahead):
        assert np.isfinite(features).all()
        assert np.abs(features).max() < 3
