"""Days, weeks and months of a file: found from its dates, and written back as the file has them."""

import io
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from model.durations import DAY_MS, HOUR_MS, MONTH_MS, WEEK_MS
from model.history import History
from stream.jobs.batch.run import run_backtest, run_forecast
from stream.jobs.batch.sales_files import CleaningReport, load_sales
from stream.settings import ModelSettings

SETTINGS = ModelSettings(horizon=4)
DATES = "datetime64[D]"


def _file(tmp_path: Path, dates: list[str], sales: list[float] | None = None) -> Path:
    path = tmp_path / "sales.csv"
    values = sales or [float(number + 1) for number in range(len(dates))]
    pl.DataFrame({"date": dates, "sales": values}).write_csv(path)
    return path


def _loaded(
    tmp_path: Path, dates: list[str], *, bucket_ms: int | None = None, timezone: str = "UTC"
) -> tuple[History, CleaningReport]:
    return load_sales(_file(tmp_path, dates), bucket_ms=bucket_ms, timezone=timezone)


def _weeks(first: str, count: int) -> list[str]:
    return [str(np.datetime64(first) + 7 * week) for week in range(count)]


def _months(first: str, count: int, *, last_day: bool = False) -> list[str]:
    months = np.datetime64(first, "M") + np.arange(count + 1)
    days = months.astype(DATES)
    return [str(day) for day in (days[1:] - 1 if last_day else days[:-1])]


def _units(history: History) -> list[float]:
    units: list[float] = history.values_TSF[:, 0, 0].tolist()
    return units


@pytest.mark.parametrize(
    ("first", "weekday"),
    [("2023-01-02", "Monday"), ("2023-01-06", "Friday"), ("2023-01-08", "Sunday")],
)
def test_weeks_begin_on_the_weekday_of_the_dates(tmp_path: Path, first: str, weekday: str) -> None:
    dates = _weeks(first, 30)
    history, report = _loaded(tmp_path, dates)

    assert history.bucket_ms == WEEK_MS
    assert _units(history) == [float(number + 1) for number in range(30)]
    assert str(np.datetime64(history.start_ms, "ms").astype(DATES)) == first
    assert f"30 buckets of 1 week, from {weekday} on" in report.lines()[0]


def test_a_missing_week_is_one_empty_bucket(tmp_path: Path) -> None:
    dates = _weeks("2023-01-06", 10)
    history, report = _loaded(tmp_path, dates[:4] + dates[5:])

    assert (history.buckets, report.filled_buckets) == (10, 1)
    assert _units(history)[4] == 0


def test_weeks_of_a_file_of_days_end_with_its_last_day(tmp_path: Path) -> None:
    """So that the newest week is whole."""
    dates = [str(np.datetime64("2023-01-01") + day) for day in range(24)]  # until a Tuesday
    history, report = _loaded(tmp_path, dates, bucket_ms=WEEK_MS)

    assert "from Wednesday on" in report.lines()[0]
    assert _units(history) == [6, sum(range(4, 11)), sum(range(11, 18)), sum(range(18, 25))]


@pytest.mark.parametrize("last_day", [False, True])
def test_months_are_calendar_months(tmp_path: Path, *, last_day: bool) -> None:
    """February of a leap year and of others, by the first or the last day."""
    dates = _months("2019-11", 30, last_day=last_day)
    history, report = _loaded(tmp_path, dates)

    assert history.bucket_ms == MONTH_MS
    assert _units(history) == [float(number + 1) for number in range(30)]
    assert "30 buckets of 1 month" in report.lines()[0]
    starts = history.start_ms + MONTH_MS * np.arange(30)
    written = report.grid.dates_ms(starts).astype("datetime64[ms]").astype(DATES)
    assert [str(day) for day in written] == dates


def test_four_weeks_are_no_month(tmp_path: Path) -> None:
    dates = [str(np.datetime64("2023-01-02") + 28 * step) for step in range(20)]
    history, _ = _loaded(tmp_path, dates)

    assert history.bucket_ms == DAY_MS


def test_a_month_that_is_not_over_is_left_out_and_said(tmp_path: Path) -> None:
    dates = [str(np.datetime64("2023-01-01") + day) for day in range(31 + 28 + 12)]
    history, report = _loaded(tmp_path, dates, bucket_ms=MONTH_MS)

    assert _units(history) == [sum(range(1, 32)), sum(range(32, 60))]
    assert "12 rows of the last month, which is not over, were left out" in report.lines()


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (_weeks("2021-01-08", 110), _weeks("2023-02-17", 4)),
        (_months("2015-01", 60), _months("2020-01", 4)),
        (_months("2015-01", 60, last_day=True), _months("2020-01", 4, last_day=True)),
    ],
)
def test_a_forecast_has_the_dates_of_the_file(
    tmp_path: Path, dates: list[str], expected: list[str]
) -> None:
    """A sine of a year that the pretrained network continues."""
    place = np.arange(len(dates)) * (365 / 52 if len(dates) > 100 else 365 / 12) / 365
    sales = (100 + 50 * np.sin(2 * np.pi * place)).round(1).tolist()
    out = tmp_path / "forecast.csv"
    console = Console(file=io.StringIO(), width=120)
    run_forecast(
        _file(tmp_path, dates, sales), SETTINGS,
        horizon=4, out=out, max_seconds=1, console=console,
    )  # fmt: skip

    table = pl.read_csv(out)
    assert [text[:10] for text in table["target_start"]] == expected
    at_ms = table["target_start_ms"].to_numpy().astype("datetime64[ms]")
    assert [str(day) for day in at_ms.astype(DATES)] == expected


def test_the_seasonal_naive_repeats_the_year_before(tmp_path: Path) -> None:
    """Noise whose every month repeats: the naive is exact, and says which season it used."""
    pattern = np.random.default_rng(1).integers(20, 200, 12)
    path = _file(tmp_path, _months("2017-01", 48), np.tile(pattern, 4).astype(float).tolist())
    said, out = io.StringIO(), tmp_path / "backtest.parquet"
    outcome = run_backtest(
        path, SETTINGS,
        horizon=4, origins=2, max_seconds=1, out=out, console=Console(file=said, width=120),
    )  # fmt: skip

    median = outcome.result.forecast["seasonal-naive"][..., 5]
    np.testing.assert_array_equal(median, outcome.result.actual_OSH)
    assert "the demand 12 buckets of 1 month before" in said.getvalue()
    table = pl.read_parquet(out)
    origins = table["origin_ms"].unique().sort().to_numpy().astype("datetime64[ms]")
    assert [str(day) for day in origins.astype(DATES)] == ["2020-05-01", "2020-09-01"]


def test_origins_are_dates_of_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, _months("2015-01", 60))
    origins = [np.datetime64(day, "ms").astype(np.int64).item() for day in ("2019-02", "2019-06")]
    outcome = run_backtest(
        path, SETTINGS, horizon=4, origins=origins, max_seconds=1, console=Console(quiet=True)
    )

    assert outcome.result.actual_OSH[:, 0, 0].tolist() == [50, 54]


# -- time zones ----------------------------------------------------------------------------------


def test_a_date_without_a_time_is_the_shops_own_day(tmp_path: Path) -> None:
    dates = [f"2024-03-{day:02}" for day in range(8, 13)]  # clocks change on the tenth
    history, report = _loaded(tmp_path, dates, timezone="America/New_York")

    assert str(np.datetime64(history.start_ms, "ms").astype(DATES)) == "2024-03-08"
    assert _units(history) == [1, 2, 3, 4, 5]
    assert report.grid.timezone == "UTC"


@pytest.mark.parametrize("timezone", ["America/New_York", "UTC"])
def test_a_day_of_times_with_an_offset_is_local(tmp_path: Path, timezone: str) -> None:
    """The evening of a local day is the next day in UTC; without a zone the date is as written."""
    dates = [f"2024-03-{day:02}T21:30:00-0{5 - (day > 9)}:00" for day in range(8, 13)]
    history, report = _loaded(tmp_path, dates, timezone=timezone)

    assert history.bucket_ms == DAY_MS
    assert str(np.datetime64(history.start_ms, "ms").astype(DATES)) == "2024-03-08"
    assert _units(history) == [1, 2, 3, 4, 5]
    assert report.grid.timezone == "UTC"


def test_days_of_times_in_utc_are_those_of_the_zone(tmp_path: Path) -> None:
    dates = [f"2024-03-{day:02}T16:00:00Z" for day in range(8, 13)]
    history, _ = _loaded(tmp_path, dates, timezone="Asia/Tokyo")

    assert str(np.datetime64(history.start_ms, "ms").astype(DATES)) == "2024-03-09"


def test_hours_with_an_offset_are_instants_that_the_model_reads_by_the_zone(
    tmp_path: Path,
) -> None:
    hours = np.datetime64("2024-03-10T05:00") + np.arange(6).astype("timedelta64[h]")
    offsets = [5, 5, 4, 4, 4, 4]  # clocks change at 07:00 UTC
    dates = [
        f"{hour - np.timedelta64(offset, 'h')}:00-0{offset}:00"
        for hour, offset in zip(hours, offsets, strict=True)
    ]
    history, report = _loaded(tmp_path, dates, timezone="America/New_York")

    assert (history.bucket_ms, report.grid.timezone) == (HOUR_MS, "America/New_York")
    assert history.start_ms == hours[0].astype("datetime64[ms]").astype(np.int64)
    assert _units(history) == [1, 2, 3, 4, 5, 6]


def test_hours_without_an_offset_are_local_already(tmp_path: Path) -> None:
    dates = [f"2024-05-01 {hour:02}:00" for hour in range(6)]
    history, report = _loaded(tmp_path, dates, timezone="Asia/Tokyo")

    assert history.start_ms == np.datetime64("2024-05-01T00", "ms").astype(np.int64)
    assert report.grid.timezone == "UTC"


@pytest.mark.parametrize(("bucket_ms", "expected"), [(DAY_MS, [2, 6]), (WEEK_MS, [8])])
def test_days_of_orders_are_local(tmp_path: Path, bucket_ms: int, expected: list[int]) -> None:
    """Four orders from 13:00 UTC on, every hour: one before midnight in Tokyo is at 14:00 UTC."""
    first = np.datetime64("2024-05-01T13:30", "ms").astype(np.int64).item()
    orders = pl.DataFrame(
        {
            "ts": [first + HOUR_MS * 2 * number for number in range(4)],
            "sku": ["A"] * 4, "quantity": [2] * 4, "unit_price": [1.0] * 4,
        }
    )  # fmt: skip
    path = tmp_path / "orders.parquet"
    orders.write_parquet(path)
    history, _ = load_sales(path, bucket_ms=bucket_ms, timezone="Asia/Tokyo")

    assert history.values_TSF[:, history.series.index("A"), 0].tolist() == expected
    assert (history.end_ms - np.datetime64("2024-05-03", "ms").astype(np.int64)) == 0


@pytest.mark.parametrize("roll", ["preceding", "following"])
def test_dates_of_working_days_are_months(
    tmp_path: Path, roll: Literal["preceding", "following"]
) -> None:
    """The last working day of a month, or the first one, is up to two days off its end."""
    dates = np.array(_months("2019-01", 60, last_day=roll == "preceding"), DATES)
    working = np.busday_offset(dates, 0, roll=roll)

    history, report = _loaded(tmp_path, [str(day) for day in working])

    assert (history.bucket_ms, history.buckets) == (MONTH_MS, 60)
    assert report.filled_buckets == report.summed_rows == 0


def test_hours_of_a_zone_with_half_hours_begin_at_half_past(tmp_path: Path) -> None:
    hours = np.datetime64("2024-01-01T00", "h") + np.arange(48)
    dates = [f"{hour}:00:00+05:30" for hour in hours]

    history, report = _loaded(tmp_path, dates, timezone="Asia/Kolkata")

    first = report.grid.dates_ms(np.array([history.start_ms])).astype("datetime64[ms]")
    assert first[0] == np.datetime64("2023-12-31T18:30")
    assert history.values_TSF[:, 0, 0].tolist() == [float(n + 1) for n in range(48)]
