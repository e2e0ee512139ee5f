"""The script that measures the GPU path runs on a CPU too, and a failure is a row."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

TINY = ["--device", "cpu", "--series", "12", "--steps", "2", "--updates", "2", "--lanes", "8"]


@pytest.fixture
def script() -> dict[str, Any]:
    """Names of the script."""
    return runpy.run_path(str(ROOT / "scripts" / "gpu_acceptance.py"))


def _cells(text: str) -> list[list[str]]:
    """Cells of the rows of the table, without its head."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1:]]


@pytest.mark.slow
def test_every_measurement_has_rows(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "table.md"
    status = script["main"]([*TINY, "--out", str(out)])

    rows = _cells(capsys.readouterr().out)
    assert status == 0
    assert {len(row) for row in rows} == {3}
    assert not [row for row in rows if row[1] == "failed"]
    names = [row[0] for row in rows]
    assert names[0] == "step, replayed"
    for architecture in script["ARCHITECTURES"]:
        assert f"training, {architecture}, bfloat16" in names
        assert f"carried against re-read, {architecture}, TF32" in names
    assert rows[-1][:2] == ["lanes after running out of memory", "4 of 8"]
    assert _cells(out.read_text()) == rows


def test_a_failure_is_a_row_and_the_others_go_on(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_options: Any) -> Any:
        yield script["Row"]("before", 1.0, "ms")
        raise RuntimeError("device | lost\nmore")

    measurements = script["MEASUREMENTS"]
    transfers = measurements["transfers"]
    measurements.clear()
    measurements.update({"broken": broken, "transfers": transfers})
    status = script["main"](TINY)

    rows = _cells(capsys.readouterr().out)
    assert status == 1
    assert rows[:2] == [["before", "1 ms", ""], ["broken", "failed", "device / lost"]]
    assert [row[0] for row in rows[2:]] == ["transfer in", "transfer out"]


def test_without_a_gpu_it_says_so(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    assert script["main"](["--device", "cuda"]) == 1
    assert capsys.readouterr().err.startswith("no GPU that torch can use; --device cpu")


def test_a_process_that_dies_is_a_row(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "false")

    assert script["in_own_process"]("replay", TINY) == [["replay", "failed", "ended with 1"]]
