"""A training that runs out of memory is repeated with fewer lanes, and then refused clearly."""

import logging
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from model.errors import OutOfMemory
from model.networks.base import State
from model.training import memory
from model.training import run as training_run
from model.training.chunk import Chunk
from model.training.memory import with_fewer_lanes
from model.training.run_file import RunFile
from model.training.train import TrainProgress, train
from stream.cli.entry import run
from tests.support.model_cases import history_of, real_hours, small_training

pytestmark = pytest.mark.slow  # most of them train

OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError(),
)


def _room_for(lanes: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a chunk of more lanes fail with `error`; returns the lanes of each update tried."""
    forward = training_run._Objective.forward
    seen: list[int] = []

    def limited(self: Any, chunk: Chunk, state: State, positions_P: Any) -> Any:
        seen.append(len(chunk.scale_NL))
        if seen[-1] > lanes:
            raise error
        return forward(self, chunk, state, positions_P)

    monkeypatch.setattr(training_run._Objective, "forward", limited)
    return seen


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["gpu", "cpu", "python"])
def test_a_training_out_of_memory_is_repeated_with_half_the_lanes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    seen = _room_for(4, error, monkeypatch)
    # import-linter, which a test of the architecture runs, disables all loggers
    monkeypatch.setattr(memory.log, "disabled", False)
    with caplog.at_level(logging.WARNING):
        trained = train(
            history_of(real_hours(days=5, series=6)), small_training(updates=2, lanes=16)
        )

    assert seen[:2] == [16, 8]
    assert set(seen[2:]) == {4}
    assert trained.config.lanes == 4
    assert trained.metrics["updates"] >= 2
    assert [line.split(" (")[0] for line in caplog.messages] == [
        "out of memory with 16 lanes",
        "out of memory with 8 lanes",
    ]


def test_it_is_refused_with_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    _room_for(0, OUT_OF_MEMORY[0], monkeypatch)

    with pytest.raises(OutOfMemory, match=r"with 64, 32, 16 or 8 lanes: CUDA out of memory\.") as e:
        train(history_of(real_hours(days=5, series=6)), small_training(lanes=64))
    assert "\n" not in str(e.value)


def test_a_group_keeps_one_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _room_for(0, OUT_OF_MEMORY[0], monkeypatch)

    with pytest.raises(OutOfMemory, match="with 4 or 2 lanes"):
        train(history_of(real_hours(days=5, series=6)), small_training(lanes=4, groups=2))
    assert seen == [4, 2]


def test_another_error_is_no_reason_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _room_for(0, RuntimeError("mat1 and mat2 cannot be multiplied"), monkeypatch)

    with pytest.raises(RuntimeError, match="mat1"):
        train(history_of(real_hours(days=5, series=6)), small_training())
    assert seen == [16]


def test_the_memory_of_an_attempt_is_free_before_the_next() -> None:
    made: list[weakref.ref[torch.Tensor]] = []

    def attempt(*_: object) -> str:
        assert [part() for part in made] == [None] * len(made)
        large = torch.zeros(8)
        made.append(weakref.ref(large))
        if len(made) < 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    assert with_fewer_lanes(attempt, small_training(lanes=64)) == "done"


def test_a_smaller_training_that_is_killed_resumes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From a state of its own, which fits its lanes; nothing is left at the end."""
    history = history_of(real_hours(days=5, series=6))
    config = small_training(updates=8, validate_every=2, lanes=16)
    run_file = RunFile.of(tmp_path, history, config)
    _room_for(8, OUT_OF_MEMORY[0], monkeypatch)

    def kill(at: TrainProgress) -> None:
        if at.update == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(history, config, kill, run_file=run_file)
    assert [path.name for path in tmp_path.iterdir()] == [run_file.with_lanes(8).path.name]
    seen: list[int] = []
    train(history, config, lambda at: seen.append(at.update), run_file=run_file)

    assert seen[0] == 5
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_prints_one_line_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    days = np.arange("2025-01-01", "2025-05-01", dtype="datetime64[D]")
    demand = np.random.default_rng(1).poisson(6, len(days))
    sales = tmp_path / "sales.csv"
    pl.DataFrame({"date": days.astype(str), "sales": demand}).write_csv(sales)
    monkeypatch.setenv("SURGECAST_DATA_DIR", str(tmp_path))
    _room_for(0, OUT_OF_MEMORY[1], monkeypatch)

    status = run(["train", "--history", str(sales), "--horizon", "7", "--bucket", "1d"])

    lines = capsys.readouterr().err.splitlines()
    assert status == 1
    assert lines[-1].startswith(
        "surgecast: cannot train: the training does not fit into the memory"
    )
    assert not [line for line in lines if "Traceback" in line]
