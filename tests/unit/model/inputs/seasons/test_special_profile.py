"""Christmas, the days around it and every other holiday have factors of their own."""

from datetime import date

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.durations import DAY_MS, HOUR_MS
from model.inputs import carried_statistics as at
from model.inputs.seasons.season_layout import layout_of
from model.inputs.seasons.special_profile import special_log
from model.inputs.seasons.week_profile import log_factors
from tests.support.model_cases import START_MS, carried_through

WEEKDAYS = np.array([0.5, 0.7, 0.9, 1.0, 1.2, 1.9, 0.8])
_FIRST = np.datetime64(START_MS, "ms").astype("datetime64[D]")


def _days(until: date) -> np.ndarray:
    return np.arange(_FIRST, np.datetime64(until, "D"))


def _factor(units_TS: np.ndarray, day: date, *, bucket_ms: int = DAY_MS) -> np.ndarray:
    """Factor [S] of a day after the history, as forecast at its end."""
    config = ModelConfig(horizon=60, bucket_ms=bucket_ms, holidays_country="GB")
    stats_SK = carried_through(units_TS, config)
    origin_ms = START_MS + bucket_ms * len(units_TS)
    layout = layout_of(bucket_ms)
    step = int((np.datetime64(day, "ms").astype(np.int64) - origin_ms) // bucket_ms)
    ahead = layout.horizon(origin_ms, step + 1, "GB")
    found: np.ndarray = special_log(stats_SK, ahead, layout)[:, step].exp().numpy()
    return found


def _shop(until: date, effects: dict[str, float]) -> np.ndarray:
    """Units [T, 1] of a steady shop whose days of a month and day, MM-DD, have a factor."""
    day_T = _days(until)
    factor_T = np.array([effects.get(str(day)[5:], 1.0) for day in day_T])
    units_T1: np.ndarray = (200 * WEEKDAYS[np.arange(day_T.size) % 7] * factor_T)[:, None]
    return units_T1


@pytest.mark.slow
def test_each_special_day_has_its_own_factor() -> None:
    """Closed on Christmas Day, a run on its eve, the sales on Boxing Day, New Year as usual."""
    units_TS = _shop(date(2013, 12, 1), {"12-24": 1.6, "12-25": 0.0, "12-26": 2.0})

    assert _factor(units_TS, date(2013, 12, 24)) == pytest.approx(1.6, rel=0.1)
    assert _factor(units_TS, date(2013, 12, 25)) < 0.1
    assert _factor(units_TS, date(2013, 12, 26)) == pytest.approx(2.0, rel=0.2)
    assert _factor(units_TS, date(2014, 1, 1)) == pytest.approx(1.0, abs=0.1)
    assert _factor(units_TS, date(2013, 12, 12)).item() == 1.0


def test_one_year_is_enough_for_a_steady_series_and_tells_little_of_a_sparse_one() -> None:
    rng = np.random.default_rng(5)
    dense_T1 = _shop(date(2012, 12, 1), {"12-25": 0.3})
    sparse_TS = rng.poisson(0.3, (len(dense_T1), 40))
    factor_S = _factor(np.concatenate((dense_T1, sparse_TS), axis=1), date(2012, 12, 25))

    assert factor_S[0] == pytest.approx(0.3, abs=0.1)
    assert np.abs(np.log(factor_S[1:])).mean() < 0.25


@pytest.mark.slow
def test_an_unknown_holiday_has_the_factor_that_the_others_share() -> None:
    """A shop that sold half on every holiday so far, asked about one it has not seen."""
    day_T = _days(date(2012, 8, 20))
    off_T = (
        layout_of(DAY_MS)
        .buckets(START_MS + DAY_MS * torch.arange(day_T.size), "GB")
        .holiday.numpy()
    )
    units_T = 200 * WEEKDAYS[np.arange(day_T.size) % 7] * np.where(off_T, 0.5, 1.0)
    unseen = _factor(units_T[:, None], date(2012, 8, 27)).item()

    assert 0.45 < unseen < 0.65


def test_special_days_change_neither_the_weekdays_nor_the_level() -> None:
    """Just after Christmas, closed for three days as last year: the level is that of usual days."""
    closed = {f"12-{day}": 0.0 for day in (24, 25, 26)}
    units_TS = np.concatenate(
        (_shop(date(2012, 12, 29), closed), _shop(date(2012, 12, 29), {})), axis=1
    )
    config = ModelConfig(horizon=14, bucket_ms=DAY_MS, holidays_country="GB")
    stats_SK = carried_through(units_TS, config)
    ahead = layout_of(DAY_MS).horizon(START_MS + DAY_MS * len(units_TS), 7, "GB")
    factors_SH = log_factors(stats_SK, ahead, layout_of(DAY_MS))

    torch.testing.assert_close(factors_SH[0], factors_SH[1], atol=0.05, rtol=0)
    for column in (at.SLOW, at.WEEK):
        special, usual = stats_SK[:, column].tolist()
        assert special == pytest.approx(usual, rel=0.05)


@pytest.mark.slow
def test_hours_learn_the_factor_of_their_day() -> None:
    """Two series at one thing a day: all hours of Christmas Day at a fifth, and none."""
    hours = 24 * _days(date(2012, 12, 20)).size
    day_T = (START_MS + HOUR_MS * np.arange(hours)).astype("datetime64[ms]").astype(str)
    christmas_T = np.array([name[5:10] == "12-25" for name in day_T])
    hour_T = 40 * (1 + np.sin(2 * np.pi * np.arange(hours) / 24))
    units_TS = np.stack((hour_T * np.where(christmas_T, 0.2, 1.0), hour_T), axis=1)
    low, usual = _factor(units_TS, date(2012, 12, 25), bucket_ms=HOUR_MS)

    assert low == pytest.approx(0.2, abs=0.08)
    assert usual == pytest.approx(1.0, abs=0.08)
