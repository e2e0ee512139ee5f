"""The pretrained network that ships with the package.

`weights.safetensors` and `manifest.json` beside this module are a checkpoint like any other
(`model/training/checkpoint.py`), made by ``python scripts/pretrain.py``.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final

from model.config import ModelConfig
from model.errors import IncompatibleCheckpoint
from model.networks.quantile_network import QuantileNetwork
from model.pretraining.walks import at_width
from model.time_zones import UTC_ZONE
from model.training.adapt import adapted
from model.training.checkpoint import Manifest, restore

WEIGHTS: Final = Path(__file__).with_name("weights.safetensors")
MANIFEST: Final = Path(__file__).with_name("manifest.json")


@lru_cache(maxsize=1)
def shipped() -> tuple[QuantileNetwork, Manifest]:
    """The pretrained network and its manifest.

    Raises IncompatibleCheckpoint or CorruptCheckpoint if the files belong to another build.

    >>> shipped()[1].model_id.split("-")[0]
    'pretrained'
    """
    manifest = Manifest.from_json(MANIFEST.read_bytes())
    return restore(WEIGHTS.read_bytes(), manifest), manifest


def pretrained(
    *, bucket_ms: int, horizon: int, country: str | None, timezone: str = UTC_ZONE
) -> QuantileNetwork:
    """The pretrained network for a bucket width, horizon, country of the holidays and time zone."""
    network, _ = shipped()
    return adapted(network, at_width(network.config, bucket_ms, horizon, country, timezone))


def start_for(config: ModelConfig) -> QuantileNetwork | None:
    """The pretrained weights as a start for a network of `config`; None if they do not fit."""
    try:
        return adapted(shipped()[0], config)
    except IncompatibleCheckpoint:
        return None
