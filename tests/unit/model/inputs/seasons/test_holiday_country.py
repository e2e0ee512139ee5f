"""The country of a shop is found from the days on which it sells differently."""

import numpy as np
import pytest

from model.inputs.seasons.holiday_country import COUNTRIES, LEAST_DAYS, likely_country
from model.inputs.seasons.special_days import days_off

FIRST = int(np.datetime64("2021-03-01").astype(np.int64))


def _shop(country: str, *, days: int = 700, effect: float, noise: float = 0.08) -> np.ndarray:
    """Daily totals of a shop with weekdays and noise, and an effect on its holidays."""
    rng = np.random.default_rng(len(country) + days)
    day_D = np.arange(FIRST, FIRST + days)
    off = {day for year in (2021, 2022, 2023) for day in days_off(country, year)}
    weekday_D = np.array([1.0, 1.0, 1.1, 1.1, 1.4, 1.6, 0.6])[day_D % 7]
    usual_D = 500 * weekday_D * rng.lognormal(0, noise, days)
    units_D: np.ndarray = np.where([day in off for day in day_D.tolist()], effect, 1.0) * usual_D
    return units_D


@pytest.mark.parametrize("country", ["US", "GB", "DE", "JP", "BR", "CZ"])
@pytest.mark.parametrize("effect", [0.0, 0.5, 1.8])
def test_holidays_that_show_give_the_country(country: str, effect: float) -> None:
    assert likely_country(_shop(country, effect=effect), FIRST) == country


@pytest.mark.parametrize("noise", [0.0, 0.08, 0.6])
def test_without_an_effect_there_is_no_country(noise: float) -> None:
    assert likely_country(_shop("GB", effect=1.0, noise=noise), FIRST) is None


def test_one_odd_day_is_no_country() -> None:
    """A day without sales on the 4th of July, and a day of a hundred times as much."""
    units_D = _shop("GB", effect=1.0)
    units_D[int(np.datetime64("2021-07-04").astype(np.int64)) - FIRST] = 0.0
    units_D[int(np.datetime64("2022-12-05").astype(np.int64)) - FIRST] *= 100.0

    assert likely_country(units_D, FIRST) is None


def test_a_month_at_another_level_is_no_country() -> None:
    """Thirty days that an export contains twice, in May, full of public holidays somewhere."""
    units_D = _shop("GB", effect=1.0, noise=0.03)
    first = int(np.datetime64("2022-05-01").astype(np.int64)) - FIRST
    units_D[first : first + 30] *= 2.0

    assert likely_country(units_D, FIRST) is None


def test_a_history_without_a_year_of_days_says_nothing() -> None:
    units_D = _shop("US", effect=0.1)

    assert likely_country(units_D[: LEAST_DAYS - 1], FIRST) is None
    units_D[: len(units_D) - LEAST_DAYS + 1] = np.nan
    assert likely_country(units_D, FIRST) is None


def test_unknown_days_are_left_out() -> None:
    units_D = _shop("US", effect=0.3)
    units_D[::11] = np.nan

    assert likely_country(units_D, FIRST) == "US"


def test_every_candidate_has_holidays() -> None:
    assert all(days_off(country, 2015) for country in COUNTRIES)
    assert len(set(COUNTRIES)) == len(COUNTRIES)
