"""Weights of foundation models, read from a local folder: `config.json` and `model.safetensors`.

Nothing is fetched from a hub and nothing is ever unpickled: the library's class is built from the
configuration and filled from the safetensors file, each tensor checked. The libraries (the extra
`foundation`) are imported here alone, when a model is loaded.

Axes: B = series of a batch, T = buckets, H = horizon, L = levels of the model.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model.errors import CorruptCheckpoint, IncompatibleCheckpoint, MissingLibrary
from model.foundation.kinds import ARCHITECTURES, EXTRA, PACKAGES, Kind

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A loaded foundation model: its rising levels, and the most buckets that it reads."""

    levels: tuple[float, ...]
    context: int
    #: `predict` of the library.
    _predict: Callable[[Tensor, int], Tensor]

    def predict(self, context_BT: Tensor, horizon: int) -> Tensor:
        """The model's own quantiles [B, H, L]; unknown buckets of the context are NaN.

        Draws no random numbers of others, and does not warn of a horizon beyond the one that the
        model was trained for: the backtest shows what that costs.
        """
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="We recommend keeping prediction length")
            return self._predict(context_BT, horizon)


def load_pretrained(kind: Kind, folder: Path, *, device: str = "cpu") -> Pretrained:
    """Load the weights in `folder`, ready to forecast on `device`.

    Raises MissingLibrary without the extra, IncompatibleCheckpoint for weights of another
    architecture, CorruptCheckpoint for a folder or file that is missing or damaged.
    """
    config = _read_config(folder)
    architecture = ", ".join(map(str, config.get("architectures") or ["an unnamed architecture"]))
    if architecture != ARCHITECTURES[kind]:
        raise IncompatibleCheckpoint(
            f"{folder} holds weights of {architecture}, but {kind} is {ARCHITECTURES[kind]}"
        )
    tensors = _read_tensors(folder)
    try:
        with torch.random.fork_rng(devices=[]):  # no training's seed may depend on a challenger
            network, wrap = _BUILDERS[kind](config)
    except ImportError as error:
        raise MissingLibrary(
            f"{kind} needs the package {PACKAGES[kind]} ({error}): pip install 'surgecast[{EXTRA}]'"
        ) from error
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unusable(kind, folder, error) from error
    _fill(network, tensors, folder / WEIGHTS)
    network.to(device).eval().requires_grad_(False)
    try:
        pretrained = wrap(network)
        pretrained.predict(torch.ones(1, 1), 1)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unusable(kind, folder, error) from error
    return pretrained


def _unusable(kind: Kind, folder: Path, error: Exception) -> IncompatibleCheckpoint:
    return IncompatibleCheckpoint(
        f"{folder / CONFIG} does not describe a {kind}: {type(error).__name__} {error}"
    )


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise CorruptCheckpoint(f"{folder}: no such folder; it must hold {CONFIG} and {WEIGHTS}")
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except FileNotFoundError:
        raise CorruptCheckpoint(f"{folder} has no {CONFIG}") from None
    except (OSError, ValueError) as error:
        raise CorruptCheckpoint(f"{folder / CONFIG} is unreadable: {error}") from error
    if not isinstance(config, dict):
        raise CorruptCheckpoint(f"{folder / CONFIG} is no object")
    return config


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise CorruptCheckpoint(f"{folder} has no {WEIGHTS}; pickled weights are never read")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CorruptCheckpoint(f"{path} is unreadable: {error}") from error


def _fill(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy the tensors of a file into a network; further ones in the file are ignored.

    Raises IncompatibleCheckpoint if one is missing or of another shape, CorruptCheckpoint if one is
    not finite.
    """
    own = network.state_dict()
    given = own.keys() & tensors.keys()
    tied = {own[name].data_ptr() for name in given}  # one tensor with two names is stored once
    missing = sorted(name for name in own if name not in given and own[name].data_ptr() not in tied)
    if missing:
        raise IncompatibleCheckpoint(
            f"{path} lacks {len(missing)} of {len(own)} tensors, such as {missing[0]}"
        )
    for name in sorted(given):
        if own[name].shape != tensors[name].shape:
            raise IncompatibleCheckpoint(
                f"{path}: {name} is {list(tensors[name].shape)}, "
                f"{CONFIG} says {list(own[name].shape)}"
            )
        if not torch.isfinite(tensors[name]).all():
            raise CorruptCheckpoint(f"{path}: {name} contains NaN or infinite values")
    network.load_state_dict({name: tensors[name] for name in given}, strict=False)


_Wrap = Callable[[Any], Pretrained]


def _chronos_bolt(config: dict[str, Any]) -> tuple[nn.Module, _Wrap]:
    from chronos import ChronosBoltPipeline
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    def wrap(network: Any) -> Pretrained:
        pipeline = ChronosBoltPipeline(network)

        def predict(context_BT: Tensor, horizon: int) -> Tensor:
            made_BLH: Tensor = pipeline.predict(context_BT, prediction_length=horizon)
            return made_BLH.transpose(1, 2)

        return Pretrained(tuple(pipeline.quantiles), pipeline.model_context_length, predict)

    return ChronosBoltModelForForecasting(T5Config.from_dict(config)), wrap


def _chronos_2(config: dict[str, Any]) -> tuple[nn.Module, _Wrap]:
    from chronos import Chronos2Pipeline
    from chronos.chronos2 import Chronos2Model

    def wrap(network: Any) -> Pretrained:
        pipeline = Chronos2Pipeline(network)

        def predict(context_BT: Tensor, horizon: int) -> Tensor:
            context_BVT = context_BT[:, None]  # one variate for each series: none sees another
            made = pipeline.predict(
                context_BVT, prediction_length=horizon, batch_size=len(context_BT)
            )
            return torch.stack([made_VLH[0].T for made_VLH in made])

        return Pretrained(tuple(pipeline.quantiles), pipeline.model_context_length, predict)

    return Chronos2Model(Chronos2Model.config_class.from_dict(config)), wrap


def _tirex(config: dict[str, Any]) -> tuple[nn.Module, _Wrap]:
    from tirex import TiRexZero

    def wrap(network: Any) -> Pretrained:
        def predict(context_BT: Tensor, horizon: int) -> Tensor:
            made_BHL, _ = network.forecast(
                context_BT, batch_size=len(context_BT), prediction_length=horizon
            )
            return made_BHL  # type: ignore[no-any-return]

        return Pretrained(
            tuple(network.config.quantiles), int(network.config.train_ctx_len), predict
        )

    return TiRexZero("torch", config["model_config"], config["train_ctx_len"]), wrap


_BUILDERS: Final[dict[Kind, Callable[[dict[str, Any]], tuple[nn.Module, _Wrap]]]] = {
    "chronos-bolt": _chronos_bolt,
    "chronos-2": _chronos_2,
    "tirex": _tirex,
}
