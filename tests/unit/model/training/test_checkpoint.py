"""A checkpoint is restored exactly; a damaged or foreign one is refused with a reason."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from model.errors import CorruptCheckpoint, IncompatibleCheckpoint
from model.inference.forecaster import NetworkForecaster
from model.training.checkpoint import Manifest, dump, restore
from model.training.train import Trained, train
from tests.support.model_cases import START_MS, history_of, real_hours, small_training


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(history_of(real_hours(days=10, series=5)), small_training())


def test_a_restored_network_forecasts_the_same(trained: Trained) -> None:
    payload, manifest = dump(trained)
    values_SF = real_hours(days=1, series=5)[10]
    forecasts = []
    for network in (trained.network, restore(payload, Manifest.from_json(manifest.to_json()))):
        forecaster = NetworkForecaster(network, "x")
        forecasts.append(forecaster.step(forecaster.new_states(5), values_SF, START_MS))

    np.testing.assert_array_equal(forecasts[0].units_SHQ, forecasts[1].units_SHQ)


def test_the_manifest_describes_the_model(trained: Trained) -> None:
    _, manifest = dump(trained)

    assert manifest.architecture == "lstm"
    assert manifest.horizon == 6
    assert manifest.seed == trained.config.seed
    assert manifest.span_ms == trained.span_ms
    assert manifest.metrics["validation_loss"] > 0


@pytest.mark.parametrize("field", ["feature_hash", "input_hash"])
def test_a_checkpoint_of_other_features_is_refused(trained: Trained, field: str) -> None:
    payload, manifest = dump(trained)

    fields = json.loads(manifest.to_json()) | {field: "0" * 16}

    with pytest.raises(IncompatibleCheckpoint, match="expects"):
        restore(payload, Manifest.from_json(json.dumps(fields).encode()))


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_truncated_checkpoint_is_refused(trained: Trained, cut: int) -> None:
    payload, manifest = dump(trained)

    with pytest.raises(CorruptCheckpoint, match="bytes"):
        restore(payload[:cut], manifest)


def test_changed_weights_are_refused(trained: Trained) -> None:
    payload, manifest = dump(trained)

    with pytest.raises(CorruptCheckpoint, match="checksum"):
        restore(payload[:-1] + bytes([payload[-1] ^ 1]), manifest)


def test_nan_weights_are_neither_written_nor_read(trained: Trained) -> None:
    payload, manifest = dump(trained)
    network = restore(payload, manifest)
    with torch.no_grad():
        network.heads.project.bias[0] = float("nan")

    with pytest.raises(CorruptCheckpoint, match=r"heads\.project\.bias"):
        dump(dataclasses.replace(trained, network=network))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'{"format_version": 1}'])
def test_an_unreadable_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(CorruptCheckpoint, match="manifest"):
        Manifest.from_json(text)


def test_another_format_is_refused(trained: Trained) -> None:
    _, manifest = dump(trained)
    fields = json.loads(manifest.to_json()) | {"format_version": 99}

    with pytest.raises(IncompatibleCheckpoint, match="99"):
        Manifest.from_json(json.dumps(fields).encode())
