"""The calendar marks holidays, closed days and hours, of the past and of the future."""

import datetime as dt

import numpy as np
import pytest

from model.durations import DAY_MS, HOUR_MS
from model.inputs.calendar import N_CALENDAR, calendar_features, horizon_calendar


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

    assert on[-9] == holiday
    if holiday:
        assert before[-8] == 1
        assert after[-7] == 1


def test_without_a_country_no_day_is_a_holiday() -> None:
    days = np.arange(_ms(2011, 1, 1), _ms(2012, 1, 1), DAY_MS)

    assert calendar_features(days, bucket_ms=DAY_MS, country=None)[:, -9:-6].max() == 0


def test_every_hour_and_weekday_has_a_column_of_its_own() -> None:
    hours = _ms(2011, 10, 3) + HOUR_MS * np.arange(168)
    features = calendar_features(hours, bucket_ms=HOUR_MS, country="GB")

    assert (features[:, :24].sum(axis=1) == 1).all()
    assert (features[:, :24].argmax(axis=1) == np.arange(168) % 24).all()
    assert (features[:, 26:33].argmax(axis=1) == np.arange(168) // 24).all()


def test_the_christmas_gap_is_marked() -> None:
    year = np.arange(_ms(2010, 12, 1), _ms(2011, 2, 1), DAY_MS)
    gap = _days(*year.tolist())[:, -6]
    marked = [int(start) for start, inside in zip(year, gap, strict=True) if inside]

    assert marked == list(range(_ms(2010, 12, 24), _ms(2011, 1, 4), DAY_MS))


def test_the_horizon_has_the_calendar_of_its_own_buckets() -> None:
    origin = _ms(2011, 12, 23, 5)
    ahead = horizon_calendar(np.array([origin]), horizon=30, bucket_ms=HOUR_MS, country="GB")
    starts = origin + HOUR_MS * np.arange(30)

    assert ahead.shape == (1, 30, N_CALENDAR)
    np.testing.assert_array_equal(
        ahead[0], calendar_features(starts, bucket_ms=HOUR_MS, country="GB")
    )


def test_all_features_stay_between_minus_one_and_one() -> None:
    minutes = _ms(2012, 2, 28) + 60_000 * np.arange(5_000)

    assert np.abs(calendar_features(minutes, bucket_ms=60_000, country="GB")).max() <= 1
