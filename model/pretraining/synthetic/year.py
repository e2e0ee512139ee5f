"""The year of a synthetic shop: seasons, days of the month, public holidays.

Axes: C = cells, S = series, G = categories, B = basis seasons, Y = days of a year, H = holidays.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from model.inputs.seasons.special_days import days_off
from model.pretraining.synthetic.clock import Clock
from model.pretraining.synthetic.draws import Flags, Floats, Ints, magnitude, normal, some
from model.pretraining.synthetic.kinds import Kind

#: Countries whose holidays are known for every year of any clock.
COUNTRIES: Final = (
    "US", "GB", "FR", "DE", "IT", "ES", "PT", "NL", "BE", "AT", "CH", "DK", "SE", "NO", "FI",
    "PL", "CZ", "HU", "RO", "GR", "IE", "TR", "RU", "UA", "BR", "MX", "AR", "CL", "CO", "PE",
    "CA", "AU", "NZ", "JP", "CN", "KR", "TW", "HK", "SG", "MY", "ID", "TH", "VN", "PH", "PK",
    "BD", "SA", "AE", "EG", "MA", "ZA", "NG", "KE", "IL", "EC", "BG", "HR", "RS", "SI", "SK",
    "LT", "LV", "EE", "KZ",
)  # fmt: skip
_DAYS: Final = 366
_YEAR: Final = 365.2425
#: Centre, in days of the year, and width of seasons with a name: Christmas, Black Friday, summer,
#: Valentine, spring, back to school, New Year, Halloween, autumn.
_SEASONS: Final = ((353.0, 9.0), (331.0, 4.0), (205.0, 28.0), (43.0, 4.0), (115.0, 20.0),
                   (242.0, 12.0), (8.0, 9.0), (303.0, 5.0), (290.0, 20.0))  # fmt: skip
_MONTH_DAYS: Final = (0, 0, 4, 9, 14, 14, 19, 24, -1, -1, -5)
_LIMIT: Final = 2.5
_LAST_YEAR: Final = 2099
_RAMP_DAYS: Final = 22


def annual_log(rng: np.random.Generator, kind: Kind, clock: Clock, category_S: Ints) -> Floats:
    """Log effects [C, S] of the time of the year; they drift, and no two years are quite equal."""
    series, count = len(category_S), int(rng.integers(1, 5))
    if some(rng, 0.12):
        return np.zeros((clock.cells, series), np.float32)
    strength = magnitude(rng, (max(kind.annual[0], 0.02), kind.annual[1]))
    basis_YB = np.stack([_season(rng) for _ in range(count)], axis=1)
    basis_CB = _in_years(rng, clock, basis_YB)
    shop_B1 = normal(rng, (count, 1))
    shop_B1 *= np.sqrt(count) / np.linalg.norm(shop_B1)  # its strength is the shop's
    of_category_BG = normal(rng, (count, int(category_S.max()) + 1))
    own = rng.uniform(0.0, 0.6)
    weight_BS = shop_B1 + rng.uniform(0.0, 1.0) * of_category_BG[:, category_S]
    weight_BS = weight_BS + own * normal(rng, (count, series))
    weight_BS *= strength * np.exp(rng.uniform(0.0, 0.6) * normal(rng, (1, series)))
    weight_BS = (weight_BS / np.sqrt(count)).astype(np.float32)
    log_CS: Floats = basis_CB @ weight_BS
    if some(rng, 0.3):  # the season of each series drifts
        moved_BS = rng.uniform(0.1, 0.8) * np.abs(weight_BS) * normal(rng, weight_BS.shape)
        log_CS += np.linspace(-0.5, 0.5, clock.cells, dtype=np.float32)[:, None] * (
            basis_CB @ moved_BS.astype(np.float32)
        )
    np.clip(log_CS, -2 * _LIMIT, _LIMIT, out=log_CS)
    return log_CS


def _season(rng: np.random.Generator) -> Floats:
    """A season [Y] of mean 0 and variance 1: smooth, or peaks, plateaus and dips, or both."""
    day_Y = np.arange(_DAYS)
    season_Y = np.zeros(_DAYS)
    if some(rng, 0.7):
        for k in range(1, 5):
            phase = 2 * np.pi * k * day_Y / _YEAR
            a, b = rng.normal(0.0, 1.0, 2) * k**-1.5
            season_Y += a * np.sin(phase) + b * np.cos(phase)
    if some(rng, 0.6) or not season_Y.any():
        for _ in range(rng.integers(1, 5)):
            centre, width = _SEASONS[int(rng.integers(len(_SEASONS)))]
            if some(rng, 0.2):
                centre, width = float(rng.integers(_DAYS)), magnitude(rng, (3.0, 40.0))
            away_Y = (day_Y - centre - rng.normal(0, 4) + _DAYS / 2) % _DAYS - _DAYS / 2
            width *= magnitude(rng, (0.6, 1.7))
            form = 2.0 if some(rng, 0.6) else 8.0  # a bell, or a plateau as of school holidays
            height = rng.uniform(0.4, 2.5) * (1.0 if some(rng, 0.65) else -1.0)
            bump_Y = np.exp(-0.5 * np.abs(away_Y / width) ** form)
            if some(rng, 0.3):  # rises slowly and ends at once
                bump_Y = np.where(away_Y > 0, np.exp(-((away_Y / 2.0) ** 2)), bump_Y)
            season_Y += height * bump_Y
    season_Y -= season_Y.mean()
    scaled_Y: Floats = (season_Y / max(season_Y.std(), 1e-6)).astype(np.float32)
    return scaled_Y


def _in_years(rng: np.random.Generator, clock: Clock, basis_YB: Floats) -> Floats:
    """The basis seasons at each cell [C, B], with years a little early, late, strong or weak."""
    date_C = clock.day_C.astype("datetime64[D]")
    year_C = date_C.astype("datetime64[Y]")
    day_C = (date_C - year_C.astype("datetime64[D]")).astype(np.int64)
    number_C = year_C.astype(np.int64) - int(year_C[0].astype(np.int64))
    years = int(number_C[-1]) + 1
    shift_C = np.rint(rng.normal(0.0, rng.uniform(0.0, 4.0), years))[number_C].astype(np.int64)
    at_CB: Floats = basis_YB[(day_C + shift_C) % _DAYS]
    scale = 1.0 + rng.uniform(0.0, 0.25) * normal(rng, (years, basis_YB.shape[1]))
    at_CB *= np.clip(scale, 0.3, 2.0)[number_C]
    return at_CB


def month_log(rng: np.random.Generator, clock: Clock, series: int) -> Floats:
    """Log effects [C, S] of the day of the month: paydays, month ends."""
    if some(rng, 0.55):
        return np.zeros((clock.cells, series), np.float32)
    date_C = clock.day_C.astype("datetime64[D]")
    month_C = date_C.astype("datetime64[M]")
    day_C = (date_C - month_C.astype("datetime64[D]")).astype(np.int64)
    days_C = ((month_C + 1).astype("datetime64[D]") - month_C.astype("datetime64[D]")).astype(int)
    log_C = np.zeros(clock.cells, np.float32)
    for _ in range(rng.integers(1, 4)):
        payday = int(rng.choice(_MONTH_DAYS))
        since_C = (day_C - np.where(payday < 0, days_C + payday, payday)) % days_C
        height = magnitude(rng, (0.02, 0.5)) * (1.0 if some(rng, 0.8) else -1.0)
        log_C += height * np.exp(-since_C / rng.uniform(0.3, 8.0)).astype(np.float32)
        if some(rng, 0.3):
            log_C += 0.6 * height * (days_C - since_C <= 2)
    follow_S = np.clip(1.0 + 0.5 * normal(rng, (series,)), -0.3, 2.5)
    log_CS: Floats = log_C[:, None] * follow_S
    return log_CS


@dataclass(frozen=True, slots=True)
class HolidayEffect:
    """Public holidays of a country: `off_C` marks them, `rate_CS` are factors, 0 where closed.

    `country` is None if the forecaster is not told of it, or there is none.
    """

    country: str | None
    off_C: Flags
    rate_CS: Floats


def holidays_of(country: str, year: int) -> dict[int, str]:
    """Names of the public holidays of a country's year by day since 1970.

    >>> sorted(holidays_of("GB", 2001).values())[:3]
    ['Boxing Day', 'Christmas Day', 'Easter Monday']
    """
    return {} if year > _LAST_YEAR else days_off(country, year)


def holiday_effect(
    rng: np.random.Generator, kind: Kind, clock: Clock, series: int
) -> HolidayEffect:
    """Draw a country and the effect of each of its holidays, on the days before and after too."""
    country = COUNTRIES[rng.integers(len(COUNTRIES))]
    told, matters = some(rng, 0.7), some(rng, 0.85)
    first, last = clock.day_C[[0, -1]]
    years = clock.day_C[[0, -1]].astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970
    names: dict[int, str] = {}
    for year in range(int(years[0]) - 1, int(years[1]) + 2):
        names |= holidays_of(country, year)
    near = {day: name for day, name in names.items() if first - 3 <= day < last + _RAMP_DAYS}
    day_H = np.fromiter(near, np.int64, len(near))
    off_C = np.isin(clock.day_C, day_H)
    if not matters or not near:
        ones_CS = np.ones((clock.cells, series), np.float32)
        return HolidayEffect(country if told else None, off_C & matters, ones_CS)
    kinds, which_H = np.unique(list(near.values()), return_inverse=True)
    return HolidayEffect(
        country if told else None,
        off_C,
        _holiday_rate(rng, kind, clock, series, day_H=day_H, which_H=which_H, kinds=len(kinds)),
    )


def _holiday_rate(
    rng: np.random.Generator,
    kind: Kind,
    clock: Clock,
    series: int,
    *,
    day_H: Ints,
    which_H: Ints,
    kinds: int,
) -> Floats:
    """Factors [C, S] around the holidays: each name has its own effect, each series its share."""
    level = rng.uniform(*kind.holiday)
    own_K = np.clip(level + rng.uniform(0.05, 0.5) * rng.standard_normal(kinds), -4.0, 0.8)
    own_K *= some(rng, rng.uniform(0.5, 1.0), kinds)  # some pass unnoticed
    closed = some(rng, kind.closed_holiday)
    closed_K = some(rng, rng.uniform(0.4, 1.0), kinds) if closed else np.zeros(kinds, np.bool_)
    around = rng.uniform(0.0, 0.5) * some(rng, 0.7)
    around_DK = around * rng.standard_normal((7, kinds)) * np.array(
        [0.2, 0.35, 0.9, 0.0, 0.7, 0.35, 0.2]
    )[:, None]  # fmt: skip
    around_DK[:3] += np.abs(around_DK[:3]) * some(rng, 0.5)
    around_DK[3] = own_K
    ramp_K = 0.3 * rng.standard_normal(kinds) * some(rng, 0.15, kinds)  # weeks of preparation
    ramp_K *= some(rng, 0.5)
    low = int(clock.day_C[0]) - _RAMP_DAYS - 3
    log_D = np.zeros(int(clock.day_C[-1]) - low + _RAMP_DAYS + 4)
    shut_D = np.zeros(len(log_D), np.bool_)
    for i, offset in enumerate(range(-3, 4)):
        np.add.at(log_D, day_H + offset - low, around_DK[i, which_H])
    for before in range(1, _RAMP_DAYS):
        np.add.at(log_D, day_H - before - low, ramp_K[which_H] * np.exp(-before / 7.0))
    shut_D[day_H[closed_K[which_H]] - low] = True
    log_C = np.clip(log_D, -4.0, 1.0).astype(np.float32)[clock.day_C - low]
    follow_S = np.clip(1.0 + 0.4 * normal(rng, (series,)), 0.0, 2.0)
    rate_CS: Floats = np.exp(np.minimum(log_C[:, None] * follow_S, 1.2))
    open_S = some(rng, rng.choice([0.0, 0.0, 0.1]), series)
    shut_C = shut_D[clock.day_C - low]
    rate_CS[np.ix_(shut_C, ~open_S)] = 0.0
    return rate_CS
