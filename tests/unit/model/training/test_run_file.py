"""A killed training resumes as if uninterrupted."""

from pathlib import Path

import pytest
import torch

from model.config import TrainConfig
from model.errors import CorruptCheckpoint
from model.training.run_file import RunFile, fingerprint
from model.training.train import Trained, TrainProgress, train
from tests.support.model_cases import history_of, real_hours, small_training

HISTORY = history_of(real_hours(days=14, series=10))


class _Killed(Exception):
    """The process was killed."""


def _killed_at(update: int, config: TrainConfig, run_file: RunFile) -> list[int]:
    """Train until `update`, without a chance to save; return the updates made."""
    seen: list[int] = []

    def watch(at: TrainProgress) -> None:
        seen.append(at.update)
        if at.update == update:
            raise _Killed

    with pytest.raises(_Killed):
        train(HISTORY, config, watch, run_file=run_file)
    return seen


def _assert_same(one: Trained, other: Trained) -> None:
    for name, weight in one.network.state_dict().items():
        assert torch.equal(weight, other.network.state_dict()[name]), name
    for name in ("validation_loss", "training_loss", "updates"):
        assert one.metrics[name] == other.metrics[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("update", "resumes_at"),
    [(4, 1), (5, 5), (18, 18), (23, 22)],
    ids=["before a save", "after it", "learning over", "finishing"],
)
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, update: int, resumes_at: int
) -> None:
    """Dropout, lanes, carried state, moments, averages and the schedule all continue."""
    config = small_training(updates=24, validate_every=4, finish_share=0.3)
    whole = train(HISTORY, config)
    run_file = RunFile.of(tmp_path, HISTORY, config)
    _killed_at(update, config, run_file)

    seen: list[int] = []
    resumed = train(HISTORY, config, lambda at: seen.append(at.update), run_file=run_file)

    assert seen[0] == resumes_at
    _assert_same(whole, resumed)
    assert not run_file.path.exists()


@pytest.mark.slow
def test_a_run_killed_twice_resumes_too(tmp_path: Path) -> None:
    config = small_training(updates=20, validate_every=4)
    run_file = RunFile.of(tmp_path, HISTORY, config)
    _killed_at(6, config, run_file)

    assert _killed_at(13, config, run_file)[0] == 5
    _assert_same(train(HISTORY, config), train(HISTORY, config, run_file=run_file))


def test_a_state_belongs_to_its_data_and_configuration() -> None:
    config = small_training()
    other_TSF = HISTORY.values_TSF.copy()
    other_TSF[100, 3, 0] += 1

    names = {
        fingerprint(HISTORY, config),
        fingerprint(HISTORY, small_training(seed=8)),
        fingerprint(history_of(other_TSF), config),
    }
    assert len(names) == 3
    assert fingerprint(HISTORY, small_training(threads=2)) in names


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "another version"])
def test_a_damaged_state_is_refused_with_a_way_out(tmp_path: Path, damage: str) -> None:
    config = small_training()
    run_file = RunFile.of(tmp_path, HISTORY, config)
    _killed_at(7, config, run_file)
    payload = run_file.path.read_bytes()
    versions = (b'state_version\\": 1', b'state_version\\": 9')
    changed = {"cut": payload[:-5], "another version": payload.replace(*versions)}
    assert changed[damage] != payload
    run_file.path.write_bytes(changed[damage])

    with pytest.raises(CorruptCheckpoint, match="delete it to start over"):
        train(HISTORY, config, run_file=run_file)
