"""Country of the public holidays of a shop whose sales are in a file."""

import numpy as np
from rich.console import Console

from model.durations import DAY_MS, WEEK_MS
from model.history import History
from model.inputs.carried_statistics import UNITS
from model.inputs.seasons.holiday_country import LEAST_DAYS, likely_country
from model.time_zones import UTC_ZONE
from model.wall_clock import calendar_ms
from stream.settings import ModelSettings


def with_country(
    history: History, settings: ModelSettings, console: Console, *, timezone: str = UTC_ZONE
) -> ModelSettings:
    """The settings with the country that the sales speak for, unless they name one.

    A history too short to tell keeps the default. Days are those of `timezone`. Prints what was
    found.
    """
    days = history.buckets * history.bucket_ms // DAY_MS
    if "country" in settings.model_fields_set or history.bucket_ms >= WEEK_MS or days < LEAST_DAYS:
        return settings
    found = likely_country(*daily_totals(history, timezone=timezone))
    text = f"of {found}" if found else "of no country"
    console.print(f"public holidays: {text}, found from the sales (model.country names another)")
    return settings.model_copy(update={"country": found or ""})


def daily_totals(history: History, *, timezone: str = UTC_ZONE) -> tuple[np.ndarray, int]:
    """Units [D] of all series on each whole local day, and the first one in days since 1970."""
    units_T = history.values_TSF[:, :, UNITS].sum(axis=1, dtype=np.float64)
    if history.bucket_ms >= DAY_MS:
        return units_T, history.start_ms // DAY_MS
    ends_T = history.start_ms + history.bucket_ms * np.arange(history.buckets + 1)
    local_T = calendar_ms(ends_T, bucket_ms=history.bucket_ms, timezone=timezone)
    first_day, last_day = -(-int(local_T[0]) // DAY_MS), int(local_T[-1]) // DAY_MS
    day_T = local_T[:-1] // DAY_MS - first_day
    inside_T = (day_T >= 0) & (day_T < last_day - first_day)
    return np.bincount(day_T[inside_T], units_T[inside_T], last_day - first_day), first_day
