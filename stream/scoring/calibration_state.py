"""The calibration state of a partition between closes, and its stored format.

Axes: G = groups, H = horizon steps, Q = quantiles, V = volume classes, K = sums.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np

from model.contract import QuantileForecast
from model.evaluation.calibration import Calibrator
from model.evaluation.score_sums import Sums
from stream.scoring.bucket_scoring import CalibrationLevels, PendingForecast

VERSION: Final = 3


@dataclass(slots=True)
class CalibrationState:
    """Levels, pending forecasts and sums; every bucket before `through_ms` has been scored.

    `levels` is by model family: the levels of an LSTM do not fit the seasonal naive. `pending` is
    by origin, `scores` are sums [V, H, K] by day and model.
    """

    through_ms: int
    levels: dict[str, CalibrationLevels] = field(default_factory=dict)
    pending: dict[int, PendingForecast] = field(default_factory=dict)
    scores: dict[tuple[int, str], Sums] = field(default_factory=dict)


def encode(state: CalibrationState, forecast: QuantileForecast) -> bytes:
    """Encode levels and pending origins; the pending forecasts have keys of their own."""
    return msgspec.msgpack.encode(
        {
            "version": VERSION,
            "through_ms": state.through_ms,
            "horizon": forecast.units_SHQ.shape[1],
            "quantiles": [float(q) for q in forecast.quantiles],
            "waiting": sorted(state.pending),
            "families": {
                family: [levels.model_id, *_arrays(levels.units), *_arrays(levels.cumulative)]
                for family, levels in state.levels.items()
            },
        }
    )


def decode(
    payload: bytes, forecast: QuantileForecast, *, rate: float
) -> tuple[CalibrationState, list[int]] | None:
    """Decode a state and its pending origins; None if it is of another version or shape."""
    document = msgspec.msgpack.decode(payload)
    horizon = forecast.units_SHQ.shape[1]
    if (
        document.get("version") != VERSION
        or document["horizon"] != horizon
        or tuple(document["quantiles"]) != tuple(forecast.quantiles)
    ):
        return None
    state = CalibrationState(through_ms=document["through_ms"])
    for family, (model_id, *parts) in document["families"].items():
        levels = CalibrationLevels.new(horizon=horizon, quantiles=forecast.quantiles, rate=rate)
        _restore(levels.units, *parts[:3])
        _restore(levels.cumulative, *parts[3:])
        levels.model_id = model_id
        state.levels[family] = levels
    return state, document["waiting"]


def _arrays(calibrator: Calibrator) -> list[bytes]:
    return [
        calibrator.levels_GHQ.astype("<f4").tobytes(),
        calibrator.closes_GH.astype("<i8").tobytes(),
        calibrator.labels_GH.astype("<i8").tobytes(),
    ]


def _restore(calibrator: Calibrator, levels: Any, closes: Any, labels: Any) -> None:
    calibrator.levels_GHQ.flat[:] = np.frombuffer(levels, "<f4")
    calibrator.closes_GH.flat[:] = np.frombuffer(closes, "<i8")
    calibrator.labels_GH.flat[:] = np.frombuffer(labels, "<i8")
