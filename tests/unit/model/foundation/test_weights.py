"""Weights of foundation models: read from a local folder, checked, never unpickled."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.errors import CorruptCheckpoint, IncompatibleCheckpoint, MissingLibrary
from model.foundation.kinds import Kind
from model.foundation.weights import load_pretrained
from tests.support.tiny_weights import CONTEXT, KINDS, save_tiny_weights, tiny_network

pytestmark = pytest.mark.slow  # importing the libraries takes seconds

CONTEXT_BT = torch.arange(90.0).remainder(7).expand(2, -1) + torch.tensor([[1.0], [4.0]])


def _directly(kind: Kind, horizon: int) -> Tensor:
    """The forecast [B, H, L] of the network itself, without a file."""
    if kind == "chronos-bolt":
        from chronos import ChronosBoltPipeline

        made: Tensor = ChronosBoltPipeline(tiny_network(kind)).predict(CONTEXT_BT, horizon)
        return made.transpose(1, 2)
    if kind == "chronos-2":
        from chronos import Chronos2Pipeline

        made_B = Chronos2Pipeline(tiny_network(kind)).predict(CONTEXT_BT[:, None], horizon)
        return torch.cat(made_B).transpose(1, 2)
    forecast: Tensor = tiny_network(kind).forecast(CONTEXT_BT, prediction_length=horizon)[0]
    return forecast


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_model_forecasts_like_the_one_that_was_saved(kind: Kind, tmp_path: Path) -> None:
    loaded = load_pretrained(kind, save_tiny_weights(kind, tmp_path))
    made_BHL = loaded.predict(CONTEXT_BT, 10)

    assert loaded.context == CONTEXT
    assert made_BHL.shape == (2, 10, len(loaded.levels))
    assert made_BHL.std() > 0.1
    torch.testing.assert_close(made_BHL, _directly(kind, 10))


@pytest.mark.parametrize("kind", KINDS)
def test_loading_draws_no_random_numbers_of_others(kind: Kind, tmp_path: Path) -> None:
    """The same seed trains the same network, with a challenger or without."""
    folder = save_tiny_weights(kind, tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_pretrained(kind, folder)

    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "other"),
    [("chronos-bolt", "chronos-2"), ("chronos-2", "tirex"), ("tirex", "chronos-bolt")],
)
def test_weights_of_another_architecture_are_refused(
    kind: Kind, other: Kind, tmp_path: Path
) -> None:
    folder = save_tiny_weights(other, tmp_path)

    with pytest.raises(IncompatibleCheckpoint, match=f"holds weights of .*, but {kind} is "):
        load_pretrained(kind, folder)


def test_a_configuration_that_describes_no_such_model_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_weights("chronos-bolt", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["chronos_config"]
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(IncompatibleCheckpoint, match=r"config\.json does not describe a chronos"):
        load_pretrained("chronos-bolt", folder)


def test_a_configuration_that_cannot_forecast_is_refused(tmp_path: Path) -> None:
    """The trial forecast finds what building the network does not need."""
    folder = save_tiny_weights("chronos-bolt", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["decoder_start_token_id"]
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(IncompatibleCheckpoint, match="decoder_start_token_id"):
        load_pretrained("chronos-bolt", folder)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_another_size_are_refused(kind: Kind, tmp_path: Path) -> None:
    folder = save_tiny_weights(kind, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = "output_patch_embedding.output_layer.bias"
    save_file(tensors | {name: torch.zeros(3)}, folder / "model.safetensors")

    with pytest.raises(IncompatibleCheckpoint, match=rf"{name} is \[3\], config\.json says"):
        load_pretrained(kind, folder)


@pytest.mark.parametrize("kind", KINDS)
def test_no_tensor_keeps_its_random_start(kind: Kind, tmp_path: Path) -> None:
    folder = save_tiny_weights(kind, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["output_patch_embedding.output_layer.bias"]
    save_file(tensors, folder / "model.safetensors")

    with pytest.raises(IncompatibleCheckpoint, match=r"lacks 1 of \d+ tensors, such as output_pat"):
        load_pretrained(kind, folder)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = save_tiny_weights("tirex", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file(
        tensors | {"out_norm.weight": torch.full((16,), torch.nan)}, folder / "model.safetensors"
    )

    with pytest.raises(CorruptCheckpoint, match=r"out_norm\.weight contains NaN"):
        load_pretrained("tirex", folder)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptCheckpoint, match=f"{tmp_path / 'none'}: no such folder"):
        load_pretrained("chronos-2", tmp_path / "none")


def test_a_folder_without_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptCheckpoint, match=rf"{tmp_path} has no config\.json"):
        load_pretrained("chronos-2", tmp_path)


def test_a_pickled_file_is_never_read(tmp_path: Path) -> None:
    folder = save_tiny_weights("tirex", tmp_path)
    (folder / "model.safetensors").rename(folder / "model.ckpt")

    with pytest.raises(CorruptCheckpoint, match="pickled weights are never read"):
        load_pretrained("tirex", folder)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_weights("tirex", tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    with pytest.raises(CorruptCheckpoint, match=f"{weights} is unreadable"):
        load_pretrained("tirex", folder)


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_library_the_extra_is_named(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_weights(kind, tmp_path)
    for module in ("chronos", "chronos.chronos2", "chronos.chronos_bolt", "tirex"):
        monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(MissingLibrary, match=rf"{kind} needs .*pip install 'surgecast\[foundatio"):
        load_pretrained(kind, folder)
