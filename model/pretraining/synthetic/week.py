"""Hours and weekdays of a synthetic shop: opening hours, peaks, closed days, and their changes.

Axes: C = cells, S = series, P = basis profiles, D = day types (weekday, Saturday, Sunday),
M = minutes of a day, W = days of the week.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS, MINUTE_MS
from model.pretraining.synthetic.clock import Clock, slot_means
from model.pretraining.synthetic.draws import Flags, Floats, Ints, magnitude, normal, some
from model.pretraining.synthetic.kinds import Kind

_HOUR_M: Final = np.arange(DAY_MS // MINUTE_MS) / 60.0
_SATURDAY, _SUNDAY = 5, 6


def weekly_rate(
    rng: np.random.Generator, kind: Kind, clock: Clock, series: int, holiday_C: Flags
) -> Floats:
    """Factors [C, S] of the day of the week and the time of day, mean about 1; closed is 0."""
    change_C = _share_changed(rng, clock)
    weekend = 4 if some(rng, 0.06) else _SATURDAY  # Friday and Saturday in some countries
    weekday_C = (clock.weekday_C - weekend + _SATURDAY) % 7
    before_WS = _weekdays(rng, kind, series)
    rate_CS = before_WS[weekday_C]
    if change_C.any():
        after_WS = _changed_weekdays(rng, kind, before_WS)
        rate_CS += change_C[:, None] * (after_WS[weekday_C] - rate_CS)
    if clock.slots > 1:
        type_C = np.maximum(weekday_C - (_SATURDAY - 1), 0)
        if some(rng, 0.5):
            type_C = np.where(holiday_C, 2, type_C)
        rate_CS *= _hours(rng, kind, clock, series, type_C=type_C, change_C=change_C)
    return rate_CS


def _share_changed(rng: np.random.Generator, clock: Clock) -> Floats:
    """Share [C] of the later of two weekly profiles: a step, a season, mostly none."""
    if some(rng, 0.7):
        return np.zeros(clock.cells, np.float32)
    if some(rng, 0.25):  # another in the season
        angle_C = 2 * np.pi * (clock.day_C / 365.2425 + rng.random())
        season_C: Floats = np.clip(0.5 + 2.0 * np.sin(angle_C), 0.0, 1.0).astype(np.float32)
        return season_C
    at_C = np.arange(clock.cells) - rng.uniform(0.1, 1.0) * clock.cells
    if some(rng, 0.6):
        return (at_C >= 0).astype(np.float32)
    width = rng.uniform(0.1, 0.8) * clock.cells
    share_C: Floats = np.clip(at_C / width + 0.5, 0.0, 1.0).astype(np.float32)
    return share_C


def _weekdays(rng: np.random.Generator, kind: Kind, series: int) -> Floats:
    """Weekday factors [W, S]: the shop's, times deviations; some days are closed."""
    strength = magnitude(rng, (0.3, 1.8)) * some(rng, 0.9)
    log_W = rng.normal(0.0, 0.15, 7)
    saturday = rng.uniform(*kind.weekend)
    log_W[_SATURDAY] += saturday
    log_W[_SUNDAY] += saturday + rng.normal(0.0, 0.3)
    log_W[4] += 0.4 * saturday * rng.uniform(-0.3, 1.0)
    spread = magnitude(rng, (0.01, 0.4))
    follow_S = np.clip(1.0 + rng.normal(0.0, 0.35, series), -0.5, 2.0)
    log_WS = strength * log_W[:, None] * follow_S + spread * normal(rng, (7, series))
    rate_WS = np.exp(np.clip(log_WS, -3.0, 2.0)).astype(np.float32)
    rate_WS *= ~_closed_days(rng, kind, series)
    return _mean_one(rate_WS)


def _closed_days(rng: np.random.Generator, kind: Kind, series: int) -> Flags:
    """Closed days [W, S]: those of the shop for most of its series, and some of a series' own."""
    shop_W = np.zeros(7, np.bool_)
    if some(rng, kind.closed_weekend):
        shop_W[_SATURDAY:] = True
    shop_W[_SUNDAY] |= some(rng, kind.closed_sunday)
    shop_W[0] |= some(rng, kind.closed_monday)
    closed_WS = np.repeat(shop_W[:, None], series, axis=1)
    if some(rng, 0.25):  # a chain whose shops differ
        differs_S = some(rng, rng.uniform(0.05, 0.6), series)
        own_WS = np.zeros((7, series), np.bool_)
        own_WS[rng.choice(7, series, p=(0.3, 0.1, 0.08, 0.06, 0.04, 0.12, 0.3)), range(series)] = 1
        closed_WS = np.where(differs_S, own_WS & some(rng, 0.7, series), closed_WS)
    return closed_WS


def _changed_weekdays(rng: np.random.Generator, kind: Kind, before_WS: Floats) -> Floats:
    """The later weekday factors [W, S]: a day opens or closes, or the shape moves."""
    if some(rng, 0.5):
        return _weekdays(rng, kind, before_WS.shape[1])
    after_WS: Floats = before_WS * np.exp(0.3 * normal(rng, (7, 1)))
    day = int(rng.choice([0, _SATURDAY, _SUNDAY]))
    if (before_WS[day] == 0).any():
        after_WS[day] = rng.uniform(0.2, 1.0)
    elif some(rng, 0.5):
        after_WS[day] = 0.0
    return after_WS


def _mean_one(rate_WS: Floats) -> Floats:
    mean_S = rate_WS.mean(axis=0)
    return rate_WS / np.where(mean_S > 0, mean_S, 1.0)


def _hours(
    rng: np.random.Generator,
    kind: Kind,
    clock: Clock,
    series: int,
    *,
    type_C: Ints,
    change_C: Floats,
) -> Floats:
    """Factors [C, S] of the time of day: each series mixes a few basis profiles of the shop."""
    count = int(rng.integers(1, 6))
    share_PS = rng.dirichlet(np.full(count, magnitude(rng, (0.1, 5.0))), series).T
    sharp = rng.uniform(0.4, 1.3) if some(rng, 0.95) else 0.0
    before_DPN = _profiles(rng, kind, count, clock.slots, sharp)
    basis_CP = before_DPN[type_C, :, clock.slot_C]
    if change_C.any() and some(rng, 0.7):
        after_DPN = _profiles(rng, kind, count, clock.slots, sharp)
        later_CP = after_DPN[type_C, :, clock.slot_C]
        basis_CP += change_C[:, None] * (later_CP - basis_CP)
    return basis_CP @ share_PS.astype(np.float32)


def _profiles(rng: np.random.Generator, kind: Kind, count: int, slots: int, sharp: float) -> Floats:
    """Basis profiles [D, P, slots], each of mean 1 over the day; closed hours are 0."""
    opens = _opening_hours(rng, kind)
    all_DPN = []
    weekday_PM = np.stack([_peaks(rng, kind) for _ in range(count)])
    for day_type in range(3):
        own_PM = np.stack([_peaks(rng, kind) for _ in range(count)])
        mixed = 0.0 if day_type == 0 else rng.uniform(0.1, 1.0)
        profile_PM = ((1 - mixed) * weekday_PM + mixed * own_PM) ** sharp
        opening, closing = opens
        if day_type and some(rng, 0.5):
            opening, closing = opening + rng.uniform(-1, 2), closing + rng.uniform(-4, 1)
        if closing - opening < 24.0:
            hour_M = (_HOUR_M - opening) % 24.0
            profile_PM = profile_PM * (hour_M < max(closing - opening, 2.0))
        profile_PM /= profile_PM.mean(axis=1, keepdims=True)
        all_DPN.append(slot_means(profile_PM, slots))
    return np.stack(all_DPN)


def _opening_hours(rng: np.random.Generator, kind: Kind) -> tuple[float, float]:
    """Opening and closing hour, on the half hour mostly; 0 to 24 if it never closes."""
    if not some(rng, kind.closed_night):
        return 0.0, 24.0
    opening, length = rng.normal(min(kind.peaks) - 2.0, 1.2), rng.uniform(6.0, 17.0)
    length = max(length, max(kind.peaks) - min(kind.peaks) + 1.0)
    return round(opening * 2) / 2, round((opening + length) * 2) / 2


def _peaks(rng: np.random.Generator, kind: Kind) -> NDArray[np.float64]:
    """One day's profile [M]: a base, the waking hours, and some of the kind's peaks."""
    night = magnitude(rng, (0.002, 0.3))
    waking_M = _bump(rng.normal(14.5, 1.5), rng.uniform(3.0, 6.0)) * rng.uniform(0.2, 1.0)
    profile_M = night + waking_M
    for _ in range(rng.integers(0, 5)):
        peak = rng.choice(kind.peaks) if some(rng, 0.8) else rng.uniform(0.0, 24.0)
        width = magnitude(rng, (0.3, 2.5))
        profile_M += rng.uniform(0.2, 2.0) * _bump(peak + rng.normal(0.0, 0.7), width)
    return profile_M


def _bump(hour: float, width: float) -> NDArray[np.float64]:
    distance_M = (_HOUR_M - hour + 12.0) % 24.0 - 12.0
    bump_M: NDArray[np.float64] = np.exp(-0.5 * (distance_M / width) ** 2)
    return bump_M
