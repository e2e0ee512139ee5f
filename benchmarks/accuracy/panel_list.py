"""What the README of the panels says of each: buckets, origins, horizon, subset, columns."""

from dataclasses import dataclass, field
from typing import Final

from model.durations import DAY_MS, HOUR_MS, WEEK_MS

#: A nominal month: the mean month of the Gregorian calendar.
MONTH_MS: Final = 2_629_746_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel. Origins are the last observed bucket, as the panel writes its times.

    `scored` limits the scored series, drawn from those with at least `least_history` buckets before
    the first test origin. A row's bucket starts `behind_days` before its date. `location` is a
    static column. Columns known in advance: `price`; `promotion`, `event` and `closure` with the
    factor that makes each a share in [0, 1]; the largest counts.
    """

    bucket_ms: int
    season: int
    horizon: int
    test: tuple[str, ...]
    tune: tuple[str, ...]
    least_history: int
    scored: int | None = None
    country: str | None = None
    behind_days: int = 0
    location: str | None = None
    price: str | None = None
    promotion: dict[str, float] = field(default_factory=dict)
    event: dict[str, float] = field(default_factory=dict)
    closure: dict[str, float] = field(default_factory=dict)

    @property
    def weekly(self) -> bool:
        """True for buckets of a week, which start on the panel's own weekday."""
        return self.bucket_ms == WEEK_MS


def _hours(*days: str) -> tuple[str, ...]:
    return tuple(f"{day}T23" for day in days)


PANELS: Final[dict[str, Panel]] = {
    "recruit_restaurant_visitors_daily": Panel(
        bucket_ms=DAY_MS,
        season=7,
        horizon=14,
        test=("2017-02-25", "2017-03-11", "2017-03-25", "2017-04-08"),
        tune=("2016-10-15", "2016-11-12", "2016-12-10", "2017-01-21"),
        least_history=120,
        scored=80,
        country="JP",
        location="prefecture",
        event={"holiday": 1.0},
    ),
    "walmart_store_dept_weekly": Panel(
        bucket_ms=WEEK_MS,
        season=52,
        horizon=8,
        test=("2012-05-11", "2012-07-06", "2012-08-31"),
        tune=("2011-09-16", "2011-11-04", "2012-01-06", "2012-03-09"),
        least_history=104,
        scored=200,
        country="US",
        behind_days=6,  # the date is the last day of the week
        location="store",
        promotion={f"markdown{number}": 1e-5 for number in range(1, 6)},  # dollars a store
        event={"holiday": 1.0},
    ),
    "dominicks_oj_weekly": Panel(
        bucket_ms=WEEK_MS,
        season=1,
        horizon=8,
        test=("1992-04-16", "1992-06-11", "1992-08-06"),
        tune=("1991-06-20", "1991-10-10", "1992-01-16"),
        least_history=8,
        scored=200,
        country="US",
        location="store",
        price="price",
        promotion={"promo_deal": 1.0},
        event={"promo_feature": 1.0},
    ),
    "bike_dc_hourly": Panel(
        bucket_ms=HOUR_MS,
        season=168,
        horizon=168,
        test=_hours("2012-09-16", "2012-10-07", "2012-11-04", "2012-12-02"),
        tune=_hours("2012-03-18", "2012-05-13", "2012-06-24", "2012-08-12"),
        least_history=336,
        country="US",
        event={"holiday": 1.0},
    ),
    "bay_bikeshare_station_hourly": Panel(
        bucket_ms=HOUR_MS,
        season=168,
        horizon=168,
        test=_hours("2014-09-21", "2014-10-12", "2014-11-09", "2014-12-07"),
        tune=_hours("2014-04-20", "2014-05-25", "2014-06-22", "2014-08-10"),
        least_history=336,
        scored=60,
        country="US",
        event={"holiday": 1.0},
    ),
    "chicago_l_daily": Panel(
        bucket_ms=DAY_MS,
        season=7,
        horizon=28,
        test=("2016-04-24", "2016-05-22", "2016-06-19", "2016-07-17"),
        tune=("2015-05-24", "2015-08-16", "2015-11-08", "2015-12-06"),
        least_history=364,
        country="US",
        event={"holiday": 1.0, "game_blackhawks": 0.3, "game_bulls": 0.3, "game_bears": 0.3},
    ),
    "rohlik_orders_daily": Panel(
        bucket_ms=DAY_MS,
        season=7,
        horizon=28,
        test=("2023-11-24", "2023-12-22", "2024-01-19", "2024-02-16"),
        tune=("2022-11-25", "2023-03-17", "2023-06-16", "2023-09-15"),
        least_history=364,
        country="CZ",
        event={"holiday": 1.0, "school_holidays": 0.3, "winter_school_holidays": 0.3},
        closure={"shops_closed": 1.0},
    ),
    "carparts_monthly": Panel(
        bucket_ms=MONTH_MS,
        season=12,
        horizon=6,
        test=("2001-03", "2001-06", "2001-09"),
        tune=("2000-03", "2000-06", "2000-09", "2000-12"),
        least_history=36,
        scored=200,
        country=None,
    ),
    "hospital_patients_monthly": Panel(
        bucket_ms=MONTH_MS,
        season=12,
        horizon=12,
        test=("2005-06", "2005-09", "2005-12"),
        tune=("2003-06", "2003-12", "2004-06"),
        least_history=36,
        scored=200,
        country=None,
    ),
}
