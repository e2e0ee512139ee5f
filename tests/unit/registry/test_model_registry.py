"""The registry stores whole models, one champion, and an audit of every change."""

import errno
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from model.durations import DAY_MS
from model.errors import CorruptCheckpoint, UnknownModel
from model.training.train import Trained, train
from stream.registry import files as registry_files
from stream.registry.audit import tenures
from stream.registry.model_registry import Registry
from tests.support.model_cases import START_MS, history_of, real_hours, small_training


@pytest.fixture(scope="module")
def pair() -> tuple[Trained, Trained]:
    """Two different trained networks."""
    history = history_of(real_hours(days=10, series=5))
    return train(history, small_training()), train(history, small_training(seed=8))


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """URL of a bucket in a local S3 server.

    For the session, because parallel test processes can return to this module, and the server's
    buckets survive its stop.
    """
    # outside the system's ephemeral ports, which another test could have been given just now
    port = 20_000 + os.getpid() % 10_000
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    access = {
        "key": "k", "secret": "s", "endpoint_url": f"http://127.0.0.1:{port}",
        "client_kwargs": {"region_name": "eu-west-1"},
    }  # fmt: skip
    fsspec.config.conf["s3"] = access
    S3FileSystem(**access).mkdir("shop-models")
    yield "s3://shop-models"
    del fsspec.config.conf["s3"]
    server.stop()


@pytest.fixture(params=["folder", "memory", "s3"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    """A registry in a folder, one in a file system in memory, and one in an object store."""
    if request.param == "folder":
        return Registry(str(tmp_path / "registry"))
    if request.param == "s3":
        return Registry(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")
    return Registry(f"memory://{tmp_path.name}")


@pytest.mark.slow
def test_processes_see_each_others_models_in_an_object_store(
    bucket: str, pair: tuple[Trained, Trained]
) -> None:
    """A process does not answer from its cache of listings."""
    trainer = Registry(f"{bucket}/both")
    S3FileSystem.clear_instance_cache()  # another process has its own cache of listings
    worker = Registry(f"{bucket}/both")
    assert worker.champion() is None
    assert list(worker.list()) == []

    first = trainer.publish(pair[0], promote=True)
    assert worker.champion() == first
    assert worker.load(first).model_id == first
    second = trainer.publish(pair[1])
    worker.promote(second)
    assert trainer.champion() == second
    assert [entry.model_id for entry in trainer.list() if entry.is_champion] == [second]
    assert [line["action"] for line in trainer.audit()] == [
        "publish", "promote", "publish", "promote",
    ]  # fmt: skip


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


def test_promotion_and_rollback_move_the_champion_and_are_audited(
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


def test_a_partially_written_model_does_not_exist(
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
    """After any change the folder contains whole files only, no temporary ones."""
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


# -- audit and retention -------------------------------------------------------------------------


def test_the_audit_lists_the_champions_with_times_and_reasons(
    registry: Registry, pair: tuple[Trained, Trained]
) -> None:
    first = registry.publish(pair[0], promote=True, note="the first")
    second = registry.publish(pair[1])
    registry.refuse(second, note="no better beyond noise")
    registry.promote(second, note="by hand")
    registry.rollback(note="too high")

    notes = [(line["action"], line["model_id"], line["note"]) for line in registry.audit()]
    assert ("refuse", second, "no better beyond noise") in notes
    served = tenures(registry.audit())
    assert [(tenure.model_id, tenure.note) for tenure in served] == [
        (first, "the first"),
        (second, "by hand"),
        (first, "too high"),
    ]
    assert [tenure.until_ms for tenure in served] == [served[1].since_ms, served[2].since_ms, None]


def test_a_partial_line_of_the_audit_hides_no_other(
    tmp_path: Path, pair: tuple[Trained, Trained]
) -> None:
    registry = Registry(str(tmp_path))
    registry.publish(pair[0], promote=True)
    with (tmp_path / "audit.jsonl").open("ab") as audit:
        audit.write(b'{"at_ms": 17, "act\n')
    registry.publish(pair[1])

    assert [line["action"] for line in registry.audit()] == ["publish", "promote", "publish"]


def publish_many(registry: Registry, pair: tuple[Trained, Trained], size: int) -> list[str]:
    """Publish `size` models, the newest data last."""
    model_ids = []
    for number in range(size):
        trained = pair[0]
        with torch.no_grad():
            trained.network.heads.project.bias[0] += 0.01
        start_ms, end_ms = trained.span_ms
        span_ms = (start_ms, end_ms + number * DAY_MS)
        model_ids.append(registry.publish(replace(trained, span_ms=span_ms)))
    return model_ids


@pytest.mark.slow
def test_pruning_keeps_the_newest_and_always_the_champion_and_the_previous_one(
    registry: Registry, pair: tuple[Trained, Trained]
) -> None:
    models = publish_many(registry, pair, 6)
    for model_id in (models[2], models[0], models[1]):
        registry.promote(model_id)
    deleted = registry.prune(4)

    kept = {entry.model_id for entry in registry.list()}
    assert kept == {models[0], models[1], models[4], models[5]}
    assert set(deleted) == set(models) - kept
    assert [line["model_id"] for line in registry.audit() if line["action"] == "delete"] == deleted
    assert registry.rollback() == models[0]
    with pytest.raises(UnknownModel):  # the champion before that is deleted
        registry.rollback()


def test_a_promotion_or_a_rollback_repairs_a_damaged_pointer(
    tmp_path: Path, pair: tuple[Trained, Trained]
) -> None:
    """`champion` raises; the previous champions are recovered from the audit."""
    registry = Registry(str(tmp_path))
    first, second, third = publish_many(registry, pair, 3)
    for model_id in (first, second, third, third):
        registry.promote(model_id)
    assert registry.rollback() == second

    (tmp_path / "champion.json").write_bytes(b"\0")
    with pytest.raises(CorruptCheckpoint):
        registry.champion()
    assert registry.last_champion() == second
    assert [entry.model_id for entry in registry.list() if entry.is_champion] == [second]

    registry.promote(second)
    assert registry.champion() == second
    (tmp_path / "champion.json").write_bytes(b"{")
    assert registry.rollback() == first
    assert registry.champion() == first


def test_a_rollback_skips_a_damaged_model(tmp_path: Path, pair: tuple[Trained, Trained]) -> None:
    registry = Registry(str(tmp_path))
    models = publish_many(registry, pair, 3)
    for model_id in models:
        registry.promote(model_id)
    weights = tmp_path / "models" / models[1] / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])

    assert registry.rollback() == models[0]


def test_the_manifest_contains_parent_and_build(
    registry: Registry, pair: tuple[Trained, Trained]
) -> None:
    model_id = registry.publish(replace(pair[0], parent="lstm-20110101-00000000"))

    manifest = registry.manifest(model_id)
    assert manifest.parent == "lstm-20110101-00000000"
    assert manifest.code_version
    assert manifest.feature_hash
    assert manifest.span_ms == pair[0].span_ms


# -- failures during a write --------------------------------------------------------------------


def write_steps(monkeypatch: pytest.MonkeyPatch, at: int, act: Any) -> list[str]:
    """Call `act` before file operation number `at`; returns the operations so far."""
    done: list[str] = []

    def watched(owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def call(*arguments: Any, **more: Any) -> Any:
            done.append(name)
            if len(done) == at:
                act()
            return plain(*arguments, **more)

        monkeypatch.setattr(owner, name, call)

    watched(registry_files, "_write_through")
    watched(registry_files.RegistryFiles, "append")
    watched(Path, "rename")
    watched(Path, "mkdir")
    return done


def killed_at(registry: Registry, trained: Trained, at: int) -> bool:
    """Publish and promote in a child process that is killed before file operation `at`."""
    pid = os.fork()
    if not pid:
        with pytest.MonkeyPatch.context() as patched:
            write_steps(patched, at, lambda: os.kill(os.getpid(), signal.SIGKILL))
            registry.publish(trained, promote=True)
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.slow
def test_a_writer_killed_at_any_point_leaves_a_champion_and_whole_models(
    tmp_path: Path, pair: tuple[Trained, Trained]
) -> None:
    """`kill -9` before each file operation of a promotion: the old champion, or the new one."""
    killed = 0
    for at in range(1, 40):
        registry = Registry(str(tmp_path / str(at)))
        before = registry.publish(pair[0], promote=True)
        if not killed_at(registry, pair[1], at):
            break
        killed += 1
        champion = registry.champion()
        assert champion is not None
        registry.load(champion)
        for entry in registry.list():
            registry.load(entry.model_id)
        after = registry.publish(pair[1], promote=True)  # the next attempt succeeds
        assert registry.champion() == after != before
    assert killed >= 8


@pytest.mark.parametrize("at", [1, 2, 3, 5, 6])
def test_a_full_disk_leaves_the_champion_and_no_partial_files(
    at: int, tmp_path: Path, pair: tuple[Trained, Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(str(tmp_path))
    before = registry.publish(pair[0], promote=True)

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        write_steps(patched, at, full)
        with pytest.raises(OSError, match="No space left"):
            registry.publish(pair[1], promote=True)

    assert registry.champion() == before
    assert not [path for path in tmp_path.rglob(".*") if path.name.startswith(".")]
    for entry in registry.list():
        registry.load(entry.model_id)
