"""What calibration carries of a partition from close to close, and its bytes in the store.

Axes: H = horizon steps, Q = quantiles, V = volume classes, K = sums.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.contract import QuantileForecast
from model.evaluation.calibration import Calibrator
from model.evaluation.score_sums import N_SUMS, VOLUMES
from stream.scoring.bucket_scoring import CalibrationLevels, PendingForecast

VERSION: Final = 3

Sums = NDArray[np.float64]


@dataclass(slots=True)
class CalibrationState:
    """Levels, forecasts that wait and sums; every bucket before `through_ms` has been scored.

    `families` is by kind of model: an LSTM's levels say nothing about the seasonal naive's.
    `scores` are sums [V, H, K] by day and model.
    """

    through_ms: int
    families: dict[str, CalibrationLevels] = field(default_factory=dict)
    waiting: dict[int, PendingForecast] = field(default_factory=dict)
    scores: dict[tuple[int, str], Sums] = field(default_factory=dict)


def encode(life: CalibrationState, forecast: QuantileForecast) -> bytes:
    """Levels and places of a partition's life; what waits lies under keys of its own."""
    return msgspec.msgpack.encode(
        {
            "version": VERSION,
            "through_ms": life.through_ms,
            "horizon": forecast.units_SHQ.shape[1],
            "quantiles": [float(q) for q in forecast.quantiles],
            "waiting": sorted(life.waiting),
            "families": {
                name: [family.model_id, *_of(family.units), *_of(family.cumulative)]
                for name, family in life.families.items()
            },
        }
    )


def decode(
    payload: bytes, forecast: QuantileForecast, *, rate: float
) -> tuple[CalibrationState, list[int]] | None:
    """The life in the bytes, and the origins that wait; None where it is of another shape."""
    document = msgspec.msgpack.decode(payload)
    horizon = forecast.units_SHQ.shape[1]
    if (
        document.get("version") != VERSION
        or document["horizon"] != horizon
        or tuple(document["quantiles"]) != tuple(forecast.quantiles)
    ):
        return None
    life = CalibrationState(through_ms=document["through_ms"])
    for name, (model_id, *parts) in document["families"].items():
        family = CalibrationLevels.new(horizon=horizon, quantiles=forecast.quantiles, rate=rate)
        _into(family.units, *parts[:3])
        _into(family.cumulative, *parts[3:])
        family.model_id = model_id
        life.families[name] = family
    return life, document["waiting"]


def decode_scores(
    day: int, fields: Mapping[bytes, bytes], forecast: QuantileForecast
) -> dict[tuple[int, str], Sums]:
    """Sums by day and model out of a day's hash; those of another shape are left out."""
    shape = (len(VOLUMES), forecast.units_SHQ.shape[1], N_SUMS)
    size = 8 * int(np.prod(shape))
    return {
        (day, name.decode()): np.frombuffer(payload, "<f8").reshape(shape)
        for name, payload in fields.items()
        if len(payload) == size
    }


def _of(calibrator: Calibrator) -> list[bytes]:
    return [
        calibrator.levels_GHQ.astype("<f4").tobytes(),
        calibrator.closes_GH.astype("<i8").tobytes(),
        calibrator.labels_GH.astype("<i8").tobytes(),
    ]


def _into(calibrator: Calibrator, levels: Any, closes: Any, labels: Any) -> None:
    calibrator.levels_GHQ.flat[:] = np.frombuffer(levels, "<f4")
    calibrator.closes_GH.flat[:] = np.frombuffer(closes, "<i8")
    calibrator.labels_GH.flat[:] = np.frombuffer(labels, "<i8")
