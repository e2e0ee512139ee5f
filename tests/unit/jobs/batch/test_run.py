"""The batch path: a sales file is cleaned with a report, forecast, backtested and plotted."""

import io
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from model.config import NETWORK_QUANTILES
from model.durations import DAY_MS, HOUR_MS
from stream.errors import UsageError
from stream.jobs.batch.run import run_backtest, run_forecast, run_train
from stream.jobs.batch.sales_files import cap_outliers, load_sales
from stream.registry.model_registry import Registry
from stream.settings import ModelSettings

SETTINGS = ModelSettings(horizon=7)


def _sales(days: int = 120, *, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    dates = pl.date_range(pl.date(2023, 1, 1), pl.date(2023, 1, 1), eager=True)
    first = dates[0]
    return pl.DataFrame(
        {
            "date": [str(np.datetime64(first, "D") + day) for day in range(days)],
            "sales": rng.poisson(10 + 8 * (np.arange(days) % 7 == 5)),
        }
    )


def _file(tmp_path: Path, table: pl.DataFrame, name: str = "sales.csv") -> Path:
    path = tmp_path / name
    if path.suffix == ".csv":
        table.write_csv(path)
    else:
        table.write_parquet(path)
    return path


def _console() -> Console:
    return Console(file=io.StringIO(), width=120)


def _output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_date_and_sales_alone_make_one_daily_series(tmp_path: Path) -> None:
    table = _sales()
    history, report = load_sales(_file(tmp_path, table))

    assert history.bucket_ms == DAY_MS
    assert history.series == ["sales"]
    np.testing.assert_array_equal(history.values_TSF[:, 0, 0], table["sales"].to_numpy())
    assert report.lines() == ["120 rows → 1 series × 120 buckets of 1d"]


def test_repairs_are_reported(tmp_path: Path) -> None:
    """A gap, a duplicate day, a missing number and a return are each counted."""
    table = pl.DataFrame(
        {
            "date": ["2023-01-01", "2023-01-02", "2023-01-02", "2023-01-05", "2023-01-06", "x"],
            "sales": ["3", "4", "1", "", "-2", "5"],
            "sku": ["a"] * 6,
        }
    )
    with pytest.raises(UsageError, match="cannot read dates"):
        load_sales(_file(tmp_path, table))
    history, report = load_sales(_file(tmp_path, table[:5]))

    assert history.values_TSF[:, 0, 0].tolist() == [3, 5, 0, 0, 0, 0]
    assert history.values_TSF[5, 0, 1] == 2
    assert report.unreadable_rows == 1
    assert report.summed_rows == 1
    assert report.filled_buckets == 3
    assert report.negative_rows == 1


def test_an_outlier_is_capped_for_training_only(tmp_path: Path) -> None:
    table = _sales().with_columns(
        sales=pl.when(pl.int_range(pl.len()) == 50).then(8_000_000).otherwise(pl.col("sales"))
    )
    history, report = load_sales(_file(tmp_path, table))
    capped, report = cap_outliers(history, report)

    assert report.outliers_capped == 1
    assert capped.values_TSF.max() < 100_000
    assert history.values_TSF.max() == 8_000_000


def test_orders_make_a_history_as_well(tmp_path: Path) -> None:
    orders = pl.DataFrame(
        {
            "ts": [DAY_MS * 19_000 + hour * HOUR_MS for hour in range(48)],
            "sku": ["10001"] * 48,
            "quantity": [2] * 48,
            "unit_price": [1.5] * 48,
        }
    )
    history, _ = load_sales(_file(tmp_path, orders, "orders.parquet"))

    assert history.values_TSF[:, history.series.index("10001"), 0].tolist() == [48, 48]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a readable table"),
        ("a,b\n1,2\n", "needs the columns date and sales"),
        ("date,sales\n2023-01-01,x\n", "no row has both"),
        ("date,sales\nyesterday,3\n", "cannot read dates"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "sales.csv"
    path.write_text(text)

    with pytest.raises(UsageError, match=reason) as refused:
        load_sales(path)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_sales(tmp_path / "sales.csv")


@pytest.mark.slow
def test_a_forecast_follows_the_file_and_is_written_and_drawn(tmp_path: Path) -> None:
    out, plot = tmp_path / "forecast.csv", tmp_path / "forecast.png"
    table = run_forecast(
        _file(tmp_path, _sales()),
        SETTINGS,
        horizon=7,
        out=out,
        plot=plot,
        max_seconds=3,
        console=_console(),
    )

    assert table["target_start"].dt.date().to_list()[0].isoformat() == "2023-05-01"
    quantiles = table.select(pl.col("^q.*$")).to_numpy()
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert quantiles.min() >= 0
    assert pl.read_csv(out).shape == table.shape
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("pretrained", "said"),
    [(True, "the pretrained network"), (False, "the seasonal naive")],
)
def test_a_history_too_short_to_train_on_is_forecast_without(
    tmp_path: Path, pretrained: bool, said: str
) -> None:
    console = _console()
    settings = SETTINGS.model_copy(update={"pretrained": pretrained})
    table = run_forecast(_file(tmp_path, _sales(days=15)), settings, horizon=7, console=console)

    assert table.height == 7
    assert f"{said} forecasts instead" in " ".join(_output(console).split())


@pytest.mark.slow
def test_a_backtest_writes_the_table_of_the_contract(tmp_path: Path) -> None:
    out, plot = tmp_path / "backtest.parquet", tmp_path / "backtest.png"
    console = _console()
    run_backtest(
        _file(tmp_path, _sales()),
        SETTINGS,
        horizon=7,
        origins=3,
        out=out,
        plot=plot,
        max_seconds=3,
        console=console,
    )
    table = pl.read_parquet(out)

    assert table.columns[:6] == [
        "series_id",
        "origin_ms",
        "step",
        "target_start_ms",
        "actual",
        "model",
    ]
    assert table.columns[6:] == [f"q{q:g}" for q in NETWORK_QUANTILES] + ["mean"]
    levels = table.select(f"q{q:g}" for q in NETWORK_QUANTILES)
    assert (levels.to_numpy() % 1 == 0).all()  # sales are whole, and so are their quantiles
    assert (table["mean"] > 0).all()
    assert set(table["model"]) == {"surgecast", "seasonal-naive"}
    assert table.height == 3 * 7 * 2
    assert (table["target_start_ms"] - table["origin_ms"] == (table["step"] - 1) * DAY_MS).all()
    assert "WQL" in _output(console)
    assert plot.stat().st_size > 10_000


@pytest.mark.slow
def test_backtest_and_forecast_report_further_targets(tmp_path: Path) -> None:
    """A line with the WQL of each model, and columns with the quantiles."""
    orders = _sales().select(
        ts=pl.col("date").str.to_datetime(),
        sku=pl.lit("A"),
        quantity="sales",
        unit_price=pl.lit(2.5),
    )
    path = _file(tmp_path, orders.filter(pl.col("quantity") > 0), "orders.parquet")
    settings = SETTINGS.model_copy(update={"targets": ("revenue",)})
    console = _console()
    run_backtest(
        path, settings, horizon=7, origins=2, bucket_ms=DAY_MS, max_seconds=2, console=console
    )
    table = run_forecast(
        path, settings, horizon=7, bucket_ms=DAY_MS, max_seconds=2, console=_console()
    )

    output = " ".join(_output(console).split())
    assert re.search(r"WQL of revenue: surgecast \d.\d{3}, seasonal-naive \d.\d{3}", output)
    names = [name for name in table.columns if "revenue" in name]
    assert names == [f"revenue_q{q:g}" for q in NETWORK_QUANTILES]
    assert (table["revenue_q0.9"] > 1.5 * table["q0.9"]).all()


@pytest.mark.slow
def test_an_origin_is_the_first_bucket_forecast(tmp_path: Path) -> None:
    first_ms = int(np.datetime64("2023-04-01", "ms").astype(np.int64))
    outcome = run_backtest(
        _file(tmp_path, _sales()),
        SETTINGS,
        horizon=7,
        origins=[first_ms],
        max_seconds=2,
        console=_console(),
    )

    expected = _sales()["sales"].to_numpy()[90:97]
    np.testing.assert_array_equal(outcome.result.actual_OSH[0, 0], expected)


@pytest.mark.slow
def test_training_on_a_file_publishes_and_its_champion_forecasts(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "registry"))
    path = _file(tmp_path, _sales(300))
    trained = run_train(path, SETTINGS, registry, max_seconds=2, promote=True, console=_console())
    console = _console()
    run_forecast(path, SETTINGS, horizon=5, registry=registry, console=console)

    assert registry.champion() == trained.model_id
    assert trained.model_id in _output(console)
    assert "public holidays" not in _output(console)  # the champion has its own country


@pytest.mark.slow
def test_a_network_with_static_features_is_trained_on_a_file_without_them(
    tmp_path: Path,
) -> None:
    """`model.static` works without a catalog."""
    registry = Registry(str(tmp_path / "registry"))
    path = _file(tmp_path, _sales())
    static = SETTINGS.model_copy(update={"static": 4})
    trained = run_train(path, static, registry, max_seconds=2, promote=True, console=_console())
    console = _console()
    run_forecast(path, static, horizon=5, registry=registry, console=console)

    assert registry.network(trained.model_id).embedding is not None
    assert trained.model_id in _output(console)


@pytest.mark.slow
def test_a_backtest_measures_the_importance_of_each_input(tmp_path: Path) -> None:
    console = _console()
    run_backtest(
        _file(tmp_path, _sales(200)),
        SETTINGS.model_copy(update={"inputs_off": ("views",)}),
        horizon=7,
        origins=3,
        importance=tmp_path / "importance.csv",
        max_seconds=4,
        console=console,
    )
    table = pl.read_csv(tmp_path / "importance.csv")
    rises = dict(zip(table["input"], table["wql_rise"], strict=True))

    assert table.columns == ["input", "wql_rise", "deviation"]
    assert table["wql_rise"].is_sorted(descending=True)
    assert rises["views"] == 0.0
    assert rises["calendar"] != 0.0
    assert (tmp_path / "importance.png").read_bytes().startswith(b"\x89PNG")
    assert "calendar" in _output(console)


def test_an_unknown_input_is_refused_in_one_line(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"inputs_off": ("colour",)})

    with pytest.raises(UsageError, match="inputs_off: colour unknown"):
        run_backtest(_file(tmp_path, _sales()), settings, horizon=7, max_seconds=2)
