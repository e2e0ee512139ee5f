"""Checkpoints: weights as safetensors, everything else as a JSON manifest; bytes in, bytes out.

Nothing is ever unpickled. A checkpoint that has other features or another format, is truncated or
contains NaN is refused with a reason. Storing the bytes is up to the registry.
"""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from model.config import ModelConfig
from model.contract import FeatureSpec
from model.errors import CorruptCheckpoint, IncompatibleCheckpoint
from model.inputs.carried_statistics import STATISTICS
from model.inputs.seasons.calendar import N_CALENDAR
from model.inputs.series_inputs import input_names
from model.inputs.static_features import N_STATIC_CARRIED, ROWS, STATIC_NAMES
from model.networks.quantile_network import QuantileNetwork
from model.training.train import Trained

FORMAT_VERSION: Final = 1


def input_hash(config: ModelConfig) -> str:
    """Sixteen hex digits that change with the inputs, statistics or calendar of the network."""
    names = [*input_names(config), *STATISTICS, str(N_CALENDAR)]
    if config.uses_static:
        names += [*STATIC_NAMES[:N_STATIC_CARRIED], str(config.static), str(ROWS)]
    return sha256("\0".join(names).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Metadata of a checkpoint; `span_ms` is the half-open span of its training data.

    `parent` is the model whose weights the training started from, `code_version` the build it ran
    in.
    """

    format_version: int
    model_id: str
    architecture: str
    model: dict[str, Any]
    training: dict[str, Any]
    feature_hash: str
    input_hash: str
    bucket_ms: int
    horizon: int
    quantiles: tuple[float, ...]
    span_ms: tuple[int, int]
    seed: int
    metrics: dict[str, float]
    weights_sha256: str
    weights_bytes: int
    parent: str | None = None
    code_version: str = ""

    def to_json(self) -> bytes:
        """Indented JSON."""
        return json.dumps(asdict(self), indent=2, sort_keys=True).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Manifest":
        """Read a manifest. Raises CorruptCheckpoint; IncompatibleCheckpoint for another format."""
        try:
            fields = json.loads(text)
            version = fields["format_version"]
            if version != FORMAT_VERSION:
                raise IncompatibleCheckpoint(
                    f"checkpoint format {version}, this build reads {FORMAT_VERSION}"
                )
            fields["quantiles"] = tuple(fields["quantiles"])
            fields["span_ms"] = tuple(fields["span_ms"])
            return cls(**fields)
        except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
            if isinstance(error, IncompatibleCheckpoint):
                raise
            raise CorruptCheckpoint(f"unreadable manifest: {error}") from error


def dump(trained: Trained, *, code_version: str = "") -> tuple[bytes, Manifest]:
    """Weights and manifest of a trained network; the model id is derived from the content.

    Raises CorruptCheckpoint for NaN or infinite weights.
    """
    weights = {name: part.contiguous() for name, part in trained.network.state_dict().items()}
    _require_finite(weights)
    payload = save_tensors(weights)
    digest = sha256(payload).hexdigest()
    config = trained.config.model
    day = _day(trained.span_ms[1])
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        model_id=f"{config.architecture}-{day}-{digest[:8]}",
        architecture=config.architecture,
        model=config.as_dict(),
        training={k: v for k, v in trained.config.as_dict().items() if k != "model"},
        feature_hash=FeatureSpec().hash,
        input_hash=input_hash(config),
        bucket_ms=config.bucket_ms,
        horizon=config.horizon,
        quantiles=config.quantiles,
        span_ms=trained.span_ms,
        seed=trained.config.seed,
        metrics=trained.metrics,
        weights_sha256=digest,
        weights_bytes=len(payload),
        parent=trained.parent,
        code_version=code_version,
    )
    return payload, manifest


def restore(payload: bytes, manifest: Manifest) -> QuantileNetwork:
    """Rebuild the network of a checkpoint, ready to serve.

    Raises IncompatibleCheckpoint for other features or another shape, CorruptCheckpoint for weights
    that are truncated, changed or not finite.
    """
    if manifest.feature_hash != FeatureSpec().hash:
        raise IncompatibleCheckpoint(
            f"checkpoint {manifest.model_id} expects features {manifest.feature_hash}, "
            f"this build makes {FeatureSpec().hash}"
        )
    try:
        config = ModelConfig.from_dict(manifest.model)
    except (TypeError, ValueError, KeyError) as error:
        raise IncompatibleCheckpoint(
            f"checkpoint {manifest.model_id} has a configuration unknown to this build: {error}"
        ) from error
    if manifest.input_hash != input_hash(config):
        raise IncompatibleCheckpoint(
            f"checkpoint {manifest.model_id} expects inputs {manifest.input_hash}, "
            f"this build makes {input_hash(config)}"
        )
    if len(payload) != manifest.weights_bytes:
        raise CorruptCheckpoint(
            f"the weights of {manifest.model_id} have {len(payload)} bytes, "
            f"expected {manifest.weights_bytes}"
        )
    if sha256(payload).hexdigest() != manifest.weights_sha256:
        raise CorruptCheckpoint(
            f"the weights of {manifest.model_id} do not match the checksum in its manifest"
        )
    try:
        weights = load_tensors(payload)
    except SafetensorError as error:
        raise CorruptCheckpoint(f"the weights of {manifest.model_id}: {error}") from error
    _require_finite(weights)
    try:
        network = QuantileNetwork(config)
        network.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        raise IncompatibleCheckpoint(
            f"checkpoint {manifest.model_id} does not fit this build: {error}"
        ) from error
    return network.eval()


def _require_finite(weights: dict[str, torch.Tensor]) -> None:
    for name, part in weights.items():
        if not bool(torch.isfinite(part).all()):
            raise CorruptCheckpoint(f"weight {name} contains NaN or infinite numbers")


def _day(at_ms: int) -> str:
    """Date of a time as YYYYMMDD.

    >>> _day(86_400_000)
    '19700102'
    """
    return str(np.datetime64(at_ms, "ms").astype("datetime64[D]")).replace("-", "")
