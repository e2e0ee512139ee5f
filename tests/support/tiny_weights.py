"""Tiny random weights of each foundation model, made with the classes of its library."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from model.foundation.kinds import Kind

KINDS: tuple[Kind, ...] = ("chronos-bolt", "chronos-2", "tirex")
CONTEXT = 64
DECILES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
_PATCH = 8
_FORECASTS = {
    "context_length": CONTEXT,
    "input_patch_size": _PATCH,
    "input_patch_stride": _PATCH,
    "use_reg_token": True,
}
_SIZES = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}


def tiny_network(kind: Kind) -> Any:
    """A network of the library with random weights; two patches are its longest forecast."""
    torch.manual_seed(3)
    if kind == "chronos-bolt":
        from chronos.chronos_bolt import ChronosBoltModelForForecasting
        from transformers import T5Config

        config = T5Config(
            **_SIZES, num_decoder_layers=1, decoder_start_token_id=0, initializer_factor=0.5,
            chronos_config=_FORECASTS | {"prediction_length": 2 * _PATCH, "quantiles": DECILES},
        )  # fmt: skip
        return ChronosBoltModelForForecasting(config).eval()
    if kind == "chronos-2":
        from chronos.chronos2 import Chronos2Model

        own = {"output_patch_size": _PATCH, "max_output_patches": 2, "use_arcsinh": True}
        config = Chronos2Model.config_class(
            **_SIZES, initializer_factor=0.2,
            chronos_config=_FORECASTS | own | {"quantiles": [0.01, *DECILES, 0.99]},
        )  # fmt: skip
        return Chronos2Model(config).eval()
    from tirex import TiRexZero

    network = TiRexZero("torch", **_tirex_config())
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def save_tiny_weights(kind: Kind, folder: Path) -> Path:
    """Save a tiny network as `config.json` and `model.safetensors`; return the folder."""
    network = tiny_network(kind)
    if kind == "tirex":
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(
            json.dumps(_tirex_config() | {"architectures": ["TiRexZero"]})
        )
        save_file(network.state_dict(), folder / "model.safetensors")
    else:
        network.save_pretrained(folder)
    return folder


def _tirex_config() -> dict[str, Any]:
    return {
        "model_config": {
            "input_patch_size": _PATCH,
            "output_patch_size": _PATCH,
            "quantiles": DECILES,
            "block_kwargs": {"num_blocks": 1, "embedding_dim": 16, "num_heads": 2},
            "input_ff_dim": 32,
        },
        "train_ctx_len": CONTEXT,
    }
