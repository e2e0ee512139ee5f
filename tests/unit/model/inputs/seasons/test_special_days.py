"""A special day has the same slot in every year, whatever its date."""

from datetime import date

import numpy as np
import pytest

from model.durations import DAY_MS, HOUR_MS, WEEK_MS
from model.inputs.seasons.special_days import N_SLOTS, NO_SLOT, days_off, named, slots


def _slot(day: date, *, country: str | None = "GB", bucket_ms: int = DAY_MS, hour: int = 0) -> int:
    start_ms = np.datetime64(day, "ms").astype(np.int64) + hour * HOUR_MS
    found: int = slots(np.array([start_ms]), bucket_ms=bucket_ms, country=country)[0].item()
    return found


@pytest.mark.parametrize(
    ("country", "one", "other"),
    [
        ("GB", date(2010, 12, 25), date(2024, 12, 25)),
        ("GB", date(2024, 3, 29), date(2025, 4, 18)),  # Good Friday
        ("GB", date(2024, 3, 28), date(2025, 4, 17)),  # the day before
        ("GB", date(2024, 3, 27), date(2025, 4, 16)),  # two days before
        ("US", date(2023, 11, 24), date(2024, 11, 29)),  # the day after Thanksgiving
        ("GB", date(2010, 12, 27), date(2021, 12, 27)),  # substitute days of Christmas Day
        ("CZ", date(2022, 12, 24), date(2023, 12, 24)),  # a holiday, and the eve of one
    ],
)
def test_the_same_day_of_two_years_has_one_slot(country: str, one: date, other: date) -> None:
    assert _slot(one, country=country) == _slot(other, country=country) != NO_SLOT


def test_days_of_one_year_have_slots_of_their_own() -> None:
    """Eleven days from the 22nd of December to New Year, of which three are usual ones."""
    days = [date(2024, 12, day) for day in range(22, 32)] + [date(2025, 1, 1), date(2025, 1, 2)]
    found = [_slot(day) for day in days]
    known = [slot for slot in found if slot != NO_SLOT]

    assert len(known) == len(set(known)) == 9
    assert max(known) < N_SLOTS
    assert [slot == NO_SLOT for slot in found].count(True) == 3


def test_a_substitute_day_is_not_its_holiday() -> None:
    """Christmas Day of 2021 was a Saturday; the Monday off after it is a day of its own."""
    assert NO_SLOT != _slot(date(2021, 12, 27)) != _slot(date(2021, 12, 25))


def test_hours_have_the_slot_of_their_day_and_weeks_none() -> None:
    christmas = date(2024, 12, 25)

    assert _slot(christmas, bucket_ms=HOUR_MS, hour=23) == _slot(christmas)
    assert _slot(christmas, bucket_ms=WEEK_MS) == NO_SLOT
    assert _slot(christmas, country=None) == NO_SLOT
    assert slots(np.zeros((0, 3), np.int64), bucket_ms=DAY_MS, country="GB").shape == (0, 3)


def test_every_holiday_of_any_shape_is_found() -> None:
    """Fifty years of a country with many holidays: those with a frequent name have a slot."""
    for country in ("JP", "US", "ID"):
        day_D = np.arange("1995-01-01", "2045-01-02", dtype="datetime64[D]").astype(np.int64)
        slot_D = slots(day_D.reshape(-1, 4) * DAY_MS, bucket_ms=DAY_MS, country=country).ravel()
        off = {d: name for year in range(1994, 2047) for d, name in days_off(country, year).items()}
        for day, slot in zip(day_D.tolist(), slot_D.tolist(), strict=True):
            number = named(country).get(off.get(day, ""))
            assert number is None or slot == 4 * number
            assert number is not None or slot % 4 or slot == NO_SLOT
