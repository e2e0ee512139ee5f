"""Published forecasts that await their actuals: a packed sample of their series.

A forecast is pending for as many buckets as it has steps. All its series would take 10 kB per
series at 24 steps and 9 quantiles, so only a sample of each volume class is kept; each row has a
weight, the number of series it represents. The sample holds the model's own quantiles and the
levels they were published at: both give the published quantiles, and the score of any other level.

Axes: S = series slots, N = series of the sample, H = horizon steps, Q = quantiles, G = groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from model.contract import QuantileForecast
from model.evaluation.calibration import busy

VERSION: Final = 1
_FULL_SCALE: Final = 65_535
#: Levels of all groups [G, H, Q], of units and of cumulative units.
Levels = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class PackedQuantiles:
    """Quantiles [N, H, Q] in 16 bits per number, as a share of the maximum of each row."""

    shares_NHQ: NDArray[np.uint16]
    max_N: NDArray[np.float32]

    @classmethod
    def of(cls, values_NHQ: NDArray[np.float32]) -> "PackedQuantiles":
        """Round quantiles to 1/65,535 of the maximum of their row; zeros stay zeros.

        >>> PackedQuantiles.of(np.array([[[0.0, 3.0, 9.0]]], np.float32)).at(0)
        array([[0., 3., 9.]], dtype=float32)
        """
        max_N = values_NHQ.max(axis=(1, 2))
        safe_N = np.where(max_N > 0, max_N, 1).astype(np.float32)
        shares_NHQ = np.rint(values_NHQ * (_FULL_SCALE / safe_N)[:, None, None]).astype(np.uint16)
        return cls(shares_NHQ, safe_N)

    def at(self, step: int) -> NDArray[np.float32]:
        """Quantiles [N, Q] of a step."""
        shares_NQ = self.shares_NHQ[:, step].astype(np.float32)
        values: NDArray[np.float32] = shares_NQ * (self.max_N / np.float32(_FULL_SCALE))[:, None]
        return values


@dataclass(frozen=True, slots=True)
class ForecastSample:
    """A published forecast of a partition, reduced to the sample."""

    origin_ms: int
    model_id: str
    slot_N: NDArray[np.int32]
    volume_N: NDArray[np.uint8]
    weight_N: NDArray[np.float32]
    busy_NH: NDArray[np.bool_]
    units: PackedQuantiles
    cumulative: PackedQuantiles
    levels: Levels


def sample_forecast(
    forecast: QuantileForecast, volume_S: NDArray[np.uint8], levels: Levels, *, max_per_class: int
) -> ForecastSample:
    """Sample a model's uncorrected forecast: up to `max_per_class` series a volume class.

    The choice depends on the slots alone, so a series in one sample is in the next one too.
    """
    slots, weights = [], []
    order_S = np.arange(len(volume_S), dtype=np.uint32) * np.uint32(2_654_435_761)
    for volume in np.unique(volume_S):
        slot_X = np.flatnonzero(volume_S == volume)
        n = len(slot_X)
        if n > max_per_class:
            slot_X = np.sort(
                slot_X[np.argpartition(order_S[slot_X], max_per_class)[:max_per_class]]
            )
        slots.append(slot_X)
        weights.append(np.full(len(slot_X), n / max(len(slot_X), 1), np.float32))
    slot_N = np.concatenate(slots) if slots else np.zeros(0, np.int64)
    units_NHQ = forecast.units_SHQ[slot_N]
    return ForecastSample(
        origin_ms=forecast.origin_ms,
        model_id=forecast.model_id,
        slot_N=slot_N.astype(np.int32),
        volume_N=volume_S[slot_N],
        weight_N=np.concatenate(weights) if weights else np.zeros(0, np.float32),
        busy_NH=busy(units_NHQ, forecast.quantiles),
        units=PackedQuantiles.of(units_NHQ),
        cumulative=PackedQuantiles.of(forecast.cumulative_SHQ[slot_N]),
        levels=levels,
    )


def pack(sample: ForecastSample) -> bytes:
    """Bytes of a sample; `unpack` is the inverse."""
    n, horizon, q = sample.units.shares_NHQ.shape
    arrays: Sequence[NDArray[Any]] = (
        sample.slot_N, sample.volume_N, sample.weight_N, sample.busy_NH,
        sample.units.shares_NHQ, sample.units.max_N,
        sample.cumulative.shares_NHQ, sample.cumulative.max_N, *sample.levels,
    )  # fmt: skip
    groups = [len(levels) for levels in sample.levels]
    document = {
        "version": VERSION,
        "origin_ms": sample.origin_ms,
        "model_id": sample.model_id,
        "shape": [n, horizon, q, *groups],
        "arrays": [array.tobytes() for array in arrays],
    }
    return zstandard.compress(msgspec.msgpack.encode(document), 1)


def unpack(payload: bytes) -> ForecastSample | None:
    """Read a sample from its bytes; None if they are of another version."""
    document = msgspec.msgpack.decode(zstandard.decompress(payload))
    if document.get("version") != VERSION:
        return None
    n, horizon, q, *groups = document["shape"]
    block = (n, horizon, q)
    shapes: list[tuple[str, tuple[int, ...]]] = [
        ("<i4", (n,)), ("u1", (n,)), ("<f4", (n,)), ("?", (n, horizon)),
        ("<u2", block), ("<f4", (n,)), ("<u2", block), ("<f4", (n,)),
        *(("<f4", (g, horizon, q)) for g in groups),
    ]  # fmt: skip
    slot, volume, weight, busy_rows, units, units_max, sums, sums_max, *levels = (
        np.frombuffer(part, dtype).reshape(shape)
        for part, (dtype, shape) in zip(document["arrays"], shapes, strict=True)
    )
    return ForecastSample(
        origin_ms=document["origin_ms"],
        model_id=document["model_id"],
        slot_N=slot,
        volume_N=volume,
        weight_N=weight,
        busy_NH=busy_rows,
        units=PackedQuantiles(units, units_max),
        cumulative=PackedQuantiles(sums, sums_max),
        levels=(levels[0], levels[1]),
    )
