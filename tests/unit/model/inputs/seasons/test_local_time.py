"""The calendar and the seasons of buckets below a day are those of the shop's wall clock."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.durations import DAY_MS, HOUR_MS, WEEK_MS
from model.inputs.seasons.calendar import calendar_features, horizon_calendar
from model.inputs.seasons.season_layout import layout_of
from model.inputs.seasons.week_profile import log_factors
from model.wall_clock import wall_clock_ms
from tests.support.model_cases import carried_through

NEW_YORK, TOKYO = "America/New_York", "Asia/Tokyo"
#: Columns of the calendar: Monday, and the holiday's own mark.
MONDAY, HOLIDAY = 26, 39


def _ms(text: str) -> int:
    return int(np.datetime64(text, "ms").astype(np.int64))


@pytest.mark.parametrize(
    "zone", [NEW_YORK, TOKYO, "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia"]
)
def test_local_times_are_those_of_the_zone_at_any_second(zone: str) -> None:
    seconds = np.random.default_rng(1).integers(0, _ms("2099-01-01") // 1_000, 2_000)
    offsets = [
        datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(zone)).utcoffset()
        for at in seconds.tolist()
    ]

    local_ms = wall_clock_ms(seconds * 1_000, zone)
    assert (local_ms // 1_000 - seconds).tolist() == [
        offset.total_seconds() for offset in offsets if offset is not None
    ]


@pytest.mark.parametrize(
    ("changes", "before", "after"), [("2024-03-10", 23, 22), ("2024-11-03", 22, 23)]
)
def test_a_peak_at_six_local_time_moves_with_the_clocks(
    changes: str, before: int, after: int
) -> None:
    """Four weeks until two days before the change, then the profile of the week ahead."""
    config = ModelConfig(horizon=120, bucket_ms=HOUR_MS, holidays_country=None, timezone=NEW_YORK)
    origin_ms = _ms(changes) - 2 * DAY_MS
    start_ms = origin_ms - 4 * WEEK_MS
    starts_T = start_ms + HOUR_MS * np.arange(28 * 24)
    local_T = [
        datetime.fromtimestamp(at / 1_000, UTC).astimezone(ZoneInfo(NEW_YORK)).hour
        for at in starts_T.tolist()
    ]
    units_TS = np.where(np.array(local_T) == 18, 40.0, 4.0)[:, None]
    stats_SK = carried_through(units_TS, config, start_ms=start_ms)

    layout = layout_of(HOUR_MS)
    ahead = layout.horizon(origin_ms, config.horizon, None, timezone=config.timezone)
    factors_DH = log_factors(stats_SK, ahead, layout)[0].numpy().reshape(5, 24)
    # the clocks change on the third day, in the morning
    assert factors_DH.argmax(axis=1).tolist() == [before, before, after, after, after]


def test_the_profile_still_learns_the_same_hour_after_the_change() -> None:
    """Two weeks on either side: one hour of the day stands out, not two."""
    config = ModelConfig(horizon=24, bucket_ms=HOUR_MS, holidays_country=None, timezone=NEW_YORK)
    start_ms = _ms("2024-03-10") - 2 * WEEK_MS
    starts_T = start_ms + HOUR_MS * np.arange(28 * 24)
    units_TS = np.where(wall_clock_ms(starts_T, NEW_YORK) % DAY_MS == 18 * HOUR_MS, 40.0, 4.0)
    stats_SK = carried_through(units_TS[:, None], config, start_ms=start_ms)

    layout = layout_of(HOUR_MS)
    of_day_P = stats_SK[0, layout.first_day : layout.first_day + 24]
    assert of_day_P[18].item() == pytest.approx(40.0)
    assert of_day_P[[17, 19]].tolist() == pytest.approx([4.0, 4.0])


def test_weekday_and_holiday_are_those_of_the_local_date() -> None:
    """Midnight of Monday 2024-01-01 in Tokyo is 15:00 of Sunday in UTC."""
    starts = _ms("2023-12-31T14:00") + HOUR_MS * np.arange(2)
    local = calendar_features(starts, bucket_ms=HOUR_MS, country="JP", timezone=TOKYO)
    plain = calendar_features(starts, bucket_ms=HOUR_MS, country="JP")

    assert local[:, [23, 0, MONDAY, HOLIDAY]].tolist() == [[1, 0, 0, 0], [0, 1, 1, 1]]
    assert not plain[:, [MONDAY, HOLIDAY]].any()


def test_phases_are_those_of_the_local_date() -> None:
    """The last hour of a year in Tokyo, and the first one of the next."""
    starts = _ms("2023-12-31T14:00") + HOUR_MS * torch.arange(2)
    layout = layout_of(HOUR_MS)
    phases = layout.buckets(starts, "JP", timezone=TOKYO)

    assert phases.holiday.tolist() == [False, True]
    assert phases.day_ends.tolist() == phases.ends.tolist() == [True, False]
    assert (phases.day - layout.first_day).tolist() == [23, 0]
    assert (phases.week - layout.first_week).tolist() == [167, 0]
    assert (phases.year - layout.first_year).tolist() == [51, 0]


def test_every_local_day_ends_once_although_the_clocks_change() -> None:
    starts = _ms("2024-11-01T04:00") + HOUR_MS * torch.arange(4 * 24 + 1)
    phases = layout_of(HOUR_MS).buckets(starts, None, timezone=NEW_YORK)

    ends = np.flatnonzero(phases.day_ends.numpy())
    assert np.diff(ends, prepend=-1).tolist() == [24, 24, 25, 24]


@pytest.mark.parametrize("bucket_ms", [DAY_MS, WEEK_MS])
def test_days_and_longer_buckets_are_not_shifted(bucket_ms: int) -> None:
    starts = bucket_ms * np.arange(2_000, 2_100)
    local, plain = (
        horizon_calendar(starts, horizon=3, bucket_ms=bucket_ms, country="JP", timezone=zone)
        for zone in (TOKYO, "UTC")
    )

    np.testing.assert_array_equal(local, plain)
