"""The registry publishes whole models, points at one, and remembers every change."""

import json
from pathlib import Path

import numpy as np
import pytest

from model.errors import CorruptCheckpoint, UnknownModel
from model.training import Trained, train
from stream.registry import Registry
from tests.unit.model.cases import START_MS, history_of, real_hours, small_training


@pytest.fixture(scope="module")
def pair() -> tuple[Trained, Trained]:
    """Two different trained networks."""
    history = history_of(real_hours(days=10, series=5))
    return train(history, small_training()), train(history, small_training(seed=8))


@pytest.fixture(params=["folder", "memory"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    """A registry in a folder, and one on a file system that is no disk."""
    if request.param == "folder":
        return Registry(str(tmp_path / "registry"))
    return Registry(f"memory://{tmp_path.name}")


def test_an_empty_registry_has_no_champion(registry: Registry) -> None:
    assert registry.champion() is None
    assert list(registry.list()) == []
    with pytest.raises(UnknownModel):
        registry.load("lstm-20110101-00000000")


def test_a_published_model_loads_and_forecasts(
    registry: Registry, pair: tuple[Trained, Trained]
) -> None:
    model_id = registry.publish(pair[0])
    forecaster = registry.load(model_id)
    forecast = forecaster.step(forecaster.new_states(1), np.ones((2, 11), np.float32), START_MS)

    assert forecast.model_id == model_id
    assert registry.champion() is None
    assert [entry.model_id for entry in registry.list()] == [model_id]


def test_promotion_and_rollback_move_the_champion_and_leave_a_trace(
    registry: Registry, pair: tuple[Trained, Trained]
) -> None:
    first, second = (registry.publish(trained) for trained in pair)
    registry.promote(first)
    registry.promote(second)

    assert registry.champion() == second
    assert {e.model_id for e in registry.list() if e.is_champion} == {second}
    assert registry.rollback() == first
    assert registry.champion() == first
    with pytest.raises(UnknownModel):
        registry.rollback()
    changes = [(line["action"], line["model_id"]) for line in registry.audit()]
    assert changes == [
        ("publish", first),
        ("publish", second),
        ("promote", first),
        ("promote", second),
        ("rollback", first),
    ]


def test_publishing_the_same_weights_twice_changes_nothing(
    registry: Registry, pair: tuple[Trained, Trained]
) -> None:
    assert registry.publish(pair[0]) == registry.publish(pair[0])
    assert len(registry.list()) == 1
    assert len(registry.audit()) == 1


def test_a_damaged_model_is_not_promoted_and_the_champion_stays(
    tmp_path: Path, pair: tuple[Trained, Trained]
) -> None:
    registry = Registry(str(tmp_path))
    champion = registry.publish(pair[0], promote=True)
    damaged = registry.publish(pair[1])
    weights = tmp_path / "models" / damaged / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])

    with pytest.raises(CorruptCheckpoint):
        registry.promote(damaged)

    assert registry.champion() == champion


def test_a_model_that_was_not_written_to_the_end_does_not_exist(
    tmp_path: Path, pair: tuple[Trained, Trained]
) -> None:
    registry = Registry(str(tmp_path))
    model_id = registry.publish(pair[0])
    (tmp_path / "models" / model_id / "manifest.json").unlink()

    assert list(registry.list()) == []
    with pytest.raises(UnknownModel):
        registry.load(model_id)


@pytest.mark.parametrize("name", ["", "../secret", ".hidden", "a/b"])
def test_a_name_that_leaves_the_registry_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(UnknownModel):
        registry.load(name)


def test_no_file_of_the_registry_is_ever_half_written(
    tmp_path: Path, pair: tuple[Trained, Trained]
) -> None:
    """After any change the folder holds whole files only, none left aside."""
    registry = Registry(str(tmp_path))
    registry.publish(pair[0], promote=True)
    registry.publish(pair[1], promote=True)
    registry.rollback()

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "audit.jsonl",
        "champion.json",
        "models",
    ]
    assert len(list((tmp_path / "models").iterdir())) == 2
    assert json.loads((tmp_path / "champion.json").read_text())["model_id"] == registry.champion()
