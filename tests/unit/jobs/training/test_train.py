"""Unfinished trainings and `surgecast train --resume`."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from model.training.run_file import RunFile
from model.training.train import TrainProgress, train
from stream.jobs.training.train import RunFolder, train_with_bar
from tests.support.model_cases import history_of, real_hours, small_training


@pytest.mark.slow
def test_a_killed_training_continues_only_with_resume(tmp_path: Path) -> None:
    """`--resume` prints what it does; without it the state of the killed run is deleted."""
    history = history_of(real_hours(days=10, series=5))
    config = small_training(updates=8, validate_every=2)
    run_file = RunFile.of(tmp_path, history, config)

    class Killed(Exception):
        pass

    def kill(at: TrainProgress) -> None:
        if at.update == 5:
            raise Killed

    with pytest.raises(Killed):
        train(history, config, kill, run_file=run_file)

    output = StringIO()
    console = Console(file=output, width=200)
    resuming = RunFolder(tmp_path, resume=True)
    train_with_bar(history, config, console=console, run_folder=resuming)
    assert f"resuming from {run_file.path}" in output.getvalue().replace("\n", "")
    train_with_bar(history, config, console=console, run_folder=resuming)
    assert "starting a new one" in output.getvalue()

    run_file.path.write_bytes(b"of another time")
    train_with_bar(history, config, console=console, run_folder=RunFolder(tmp_path))
    assert not run_file.path.exists()
