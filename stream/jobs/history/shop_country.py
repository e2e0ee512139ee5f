"""Country of the public holidays of a shop whose sales are in a file."""

import numpy as np
from rich.console import Console

from model.durations import DAY_MS, WEEK_MS
from model.history import History
from model.inputs.carried_statistics import UNITS
from model.inputs.seasons.holiday_country import LEAST_DAYS, likely_country
from stream.settings import ModelSettings


def with_country(history: History, settings: ModelSettings, console: Console) -> ModelSettings:
    """The settings with the country that the sales speak for, unless they name one.

    A history too short to tell keeps the default. Prints what was found.
    """
    days = history.buckets * history.bucket_ms // DAY_MS
    if "country" in settings.model_fields_set or history.bucket_ms >= WEEK_MS or days < LEAST_DAYS:
        return settings
    found = likely_country(*daily_totals(history))
    text = f"of {found}" if found else "of no country"
    console.print(f"public holidays: {text}, found from the sales (model.country names another)")
    return settings.model_copy(update={"country": found or ""})


def daily_totals(history: History) -> tuple[np.ndarray, int]:
    """Units [D] of all series on each whole day, and the first one in days since 1970."""
    units_T = history.values_TSF[:, :, UNITS].sum(axis=1, dtype=np.float64)
    first_day = -(-history.start_ms // DAY_MS)
    if history.bucket_ms >= DAY_MS:
        return units_T, history.start_ms // DAY_MS
    skipped = (first_day * DAY_MS - history.start_ms) // history.bucket_ms
    per_day = DAY_MS // history.bucket_ms
    whole = (len(units_T) - skipped) // per_day
    return units_T[skipped : skipped + whole * per_day].reshape(whole, per_day).sum(1), first_day
