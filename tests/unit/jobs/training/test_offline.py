"""Trainings that are kept while they run: what `surgecast train --resume` goes on from."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from model.training.run_file import RunFile
from model.training.train import TrainProgress, train
from stream.jobs.training.offline import Keep, train_with_bar
from tests.support.model_cases import history_of, real_hours, small_training


def test_a_killed_training_goes_on_only_when_asked_to(tmp_path: Path) -> None:
    """`--resume` says what it does; without it the state of the killed run is forgotten."""
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

    heard = StringIO()
    console = Console(file=heard, width=200)
    train_with_bar(history, config, console=console, keep=Keep(tmp_path, resume=True))
    assert f"going on from {run_file.path}" in heard.getvalue().replace("\n", "")
    train_with_bar(history, config, console=console, keep=Keep(tmp_path, resume=True))
    assert "it begins anew" in heard.getvalue()

    run_file.path.write_bytes(b"of another time")
    train_with_bar(history, config, console=console, keep=Keep(tmp_path))
    assert not run_file.path.exists()
