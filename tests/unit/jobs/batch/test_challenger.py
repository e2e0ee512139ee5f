"""The foundation model of the settings: a row in backtests, a forecast on request, clear errors."""

import io
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from stream.cli.entry import run
from stream.errors import UsageError
from stream.jobs.batch.run import run_backtest, run_forecast
from stream.settings import ModelSettings
from tests.support.tiny_weights import save_tiny_weights

pytestmark = pytest.mark.slow  # importing the libraries takes seconds


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    """Two series of eight weeks, too short for a network."""
    days = np.arange("2025-01-01", "2025-02-26", dtype="datetime64[D]")
    demand = np.random.default_rng(1).poisson(6, (2, len(days)))
    path = tmp_path / "sales.csv"
    pl.DataFrame(
        {
            "date": [str(day) for day in days] * 2,
            "sku": ["a"] * len(days) + ["b"] * len(days),
            "sales": demand.reshape(-1),
        }
    ).write_csv(path)
    return path


@pytest.fixture
def settings(tmp_path: Path) -> ModelSettings:
    """Settings with a tiny challenger."""
    folder = save_tiny_weights("chronos-bolt", tmp_path / "weights")
    return ModelSettings(challenger="chronos-bolt", challenger_path=folder)


def test_a_backtest_has_a_row_of_the_challenger(sales: Path, settings: ModelSettings) -> None:
    console = Console(file=io.StringIO(), width=120)
    outcome = run_backtest(
        sales, settings, horizon=7, origins=3, out=sales.with_name("out.csv"), console=console
    )
    assert isinstance(console.file, io.StringIO)
    rows = [line.split() for line in console.file.getvalue().splitlines()]

    assert list(outcome.result.forecast) == ["surgecast", "seasonal-naive", "chronos-bolt"]
    assert outcome.result.forecast["chronos-bolt"].shape == (3, 2, 7, 11)
    assert any("chronos-bolt" in row for row in rows)
    written = pl.read_csv(sales.with_name("out.csv"))
    assert set(written["model"]) == set(outcome.result.forecast)


def test_the_challenger_forecasts_on_request_alone(sales: Path, settings: ModelSettings) -> None:
    asked, usual = (
        run_forecast(sales, settings, horizon=7, challenger=challenger, console=Console(quiet=True))
        for challenger in (True, False)
    )

    assert asked.columns == usual.columns
    assert asked.height == usual.height == 14
    assert not asked.equals(usual)


def test_a_path_is_needed(sales: Path) -> None:
    with pytest.raises(UsageError, match=r"chronos-2 needs model\.challenger_path"):
        run_backtest(sales, ModelSettings(challenger="chronos-2"), horizon=7)


def _fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that exits with 1."""
    capsys.readouterr()
    assert run(arguments) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "challenger" in line]
    assert len(lines) == 1
    return lines[0]


def test_the_command_line_explains_what_is_missing(
    sales: Path, settings: ModelSettings,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """No setting, a wrong path, weights of another model, no library: one line each."""
    command = ["forecast", "--history", str(sales), "--horizon", "7", "--challenger"]
    assert "needs the settings model.challenger" in _fails(command, capsys)

    monkeypatch.setenv("SURGECAST_MODEL__CHALLENGER", "chronos-2")
    monkeypatch.setenv("SURGECAST_MODEL__CHALLENGER_PATH", str(sales))
    assert f"{sales}: no such folder" in _fails(command, capsys)

    monkeypatch.setenv("SURGECAST_MODEL__CHALLENGER_PATH", str(settings.challenger_path))
    assert "holds weights of ChronosBoltModelForForecasting" in _fails(command, capsys)

    monkeypatch.setenv("SURGECAST_MODEL__CHALLENGER", "chronos-bolt")
    for module in ("chronos", "chronos.chronos_bolt"):
        monkeypatch.setitem(sys.modules, module, None)
    assert "pip install 'surgecast[foundation]'" in _fails(command, capsys)
