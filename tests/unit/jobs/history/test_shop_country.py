"""A file's country of public holidays: the setting, or what the sales say."""

from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from model.contract import FEATURE_NAMES
from model.durations import DAY_MS, HOUR_MS, WEEK_MS
from model.history import History
from model.inputs.seasons.special_days import days_off
from stream.jobs.history.shop_country import daily_totals, with_country
from stream.settings import ModelSettings

FIRST = int(np.datetime64("2021-03-01").astype(np.int64))


def _history(*, days: int = 500, bucket_ms: int = DAY_MS, shift_ms: int = 0) -> History:
    """Two series of an American shop, closed on holidays."""
    off = {day for year in (2021, 2022) for day in days_off("US", year)}
    per_day = max(1, DAY_MS // bucket_ms)
    open_D = np.array([FIRST + day not in off for day in range(days)])
    values_TSF = np.zeros((days * per_day, 2, len(FEATURE_NAMES)), np.float32)
    values_TSF[:, :, 0] = 10.0 * np.repeat(open_D, per_day)[:, None]
    return History(values_TSF, FIRST * DAY_MS + shift_ms, bucket_ms, ["a", "b"])


@pytest.mark.parametrize("bucket_ms", [DAY_MS, HOUR_MS])
def test_the_country_is_found_and_said(bucket_ms: int) -> None:
    said = StringIO()
    settings = with_country(_history(bucket_ms=bucket_ms), ModelSettings(), Console(file=said))

    assert settings.country == "US"
    assert "public holidays: of US" in said.getvalue()


def test_a_country_that_was_set_stays() -> None:
    given = ModelSettings(country="GB")

    assert with_country(_history(), given, Console(file=StringIO())) == given


@pytest.mark.parametrize(("days", "bucket_ms"), [(120, DAY_MS), (500, WEEK_MS)])
def test_a_history_that_cannot_tell_keeps_the_default(days: int, bucket_ms: int) -> None:
    said = StringIO()
    settings = with_country(_history(days=days, bucket_ms=bucket_ms), ModelSettings(),
                            Console(file=said))  # fmt: skip

    assert settings.country == ModelSettings().country
    assert not said.getvalue()


def test_days_are_whole_ones() -> None:
    """Hours that begin at five in the morning: the first and the last day are left out."""
    units_D, first_day = daily_totals(_history(days=4, bucket_ms=HOUR_MS, shift_ms=5 * HOUR_MS))

    assert first_day == FIRST + 1
    assert units_D.size == 3


def test_days_are_those_of_the_shops_clock() -> None:
    """UTC midnight is nine in the morning in Tokyo; open hours of a local day stay together."""
    history = _history(days=4, bucket_ms=HOUR_MS, shift_ms=-9 * HOUR_MS)
    units_D, first_day = daily_totals(history, timezone="Asia/Tokyo")

    assert first_day == FIRST
    assert units_D.tolist() == [480.0] * 4
