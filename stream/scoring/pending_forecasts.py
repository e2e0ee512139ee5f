"""Forecasts that were sent and wait for what comes: rows of a sample of the series, packed.

A forecast waits for as many buckets as it has steps. All series of it would be 10 kB a series at 24
steps and 9 quantiles, so a sample of each volume class waits; each row carries how many series it
stands for. Kept are the model's own quantiles and the levels they were published at: from both
follows what was published, and what another level would have been worth.

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
_TOP: Final = 65_535
#: Levels of all groups [G, H, Q], of units and of cumulative units.
Levels = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class PackedQuantiles:
    """Quantiles [N, H, Q] in 16 bits a number, as a share of the largest of each row."""

    shares_NHQ: NDArray[np.uint16]
    top_N: NDArray[np.float32]

    @classmethod
    def of(cls, values_NHQ: NDArray[np.float32]) -> "PackedQuantiles":
        """Round quantiles to 1/65,535 of the largest in their row; zeros stay zeros.

        >>> PackedQuantiles.of(np.array([[[0.0, 3.0, 9.0]]], np.float32)).at(0)
        array([[0., 3., 9.]], dtype=float32)
        """
        top_N = values_NHQ.max(axis=(1, 2))
        safe_N = np.where(top_N > 0, top_N, 1).astype(np.float32)
        shares_NHQ = np.rint(values_NHQ * (_TOP / safe_N)[:, None, None]).astype(np.uint16)
        return cls(shares_NHQ, safe_N)

    def at(self, step: int) -> NDArray[np.float32]:
        """Quantiles [N, Q] of a step."""
        shares_NQ = self.shares_NHQ[:, step].astype(np.float32)
        values: NDArray[np.float32] = shares_NQ * (self.top_N / np.float32(_TOP))[:, None]
        return values


@dataclass(frozen=True, slots=True)
class ForecastSample:
    """One forecast of a partition that was sent, cut down to the sample."""

    origin_ms: int
    model_id: str
    slot_N: NDArray[np.int32]
    volume_N: NDArray[np.uint8]
    weight_N: NDArray[np.float32]
    busy_NH: NDArray[np.bool_]
    units: PackedQuantiles
    cumulative: PackedQuantiles
    levels: Levels


def sampled(
    forecast: QuantileForecast, volume_S: NDArray[np.uint8], levels: Levels, *, most: int
) -> ForecastSample:
    """What is kept of a forecast as the model made it: up to `most` series a volume class.

    Which ones depends on their slots alone, so a series that is in stays in.
    """
    slots, weights = [], []
    order_S = np.arange(len(volume_S), dtype=np.uint32) * np.uint32(2_654_435_761)
    for volume in np.unique(volume_S):
        slot_X = np.flatnonzero(volume_S == volume)
        n = len(slot_X)
        if n > most:
            slot_X = np.sort(slot_X[np.argpartition(order_S[slot_X], most)[:most]])
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
        busy_NH=busy(units_NHQ),
        units=PackedQuantiles.of(units_NHQ),
        cumulative=PackedQuantiles.of(forecast.cumulative_SHQ[slot_N]),
        levels=levels,
    )


def pack(sent: ForecastSample) -> bytes:
    """Bytes of a forecast that waits; `unpack` is the inverse."""
    n, horizon, q = sent.units.shares_NHQ.shape
    arrays: Sequence[NDArray[Any]] = (
        sent.slot_N, sent.volume_N, sent.weight_N, sent.busy_NH,
        sent.units.shares_NHQ, sent.units.top_N,
        sent.cumulative.shares_NHQ, sent.cumulative.top_N, *sent.levels,
    )  # fmt: skip
    groups = [len(levels) for levels in sent.levels]
    document = {
        "version": VERSION,
        "origin_ms": sent.origin_ms,
        "model_id": sent.model_id,
        "shape": [n, horizon, q, *groups],
        "arrays": [array.tobytes() for array in arrays],
    }
    return zstandard.compress(msgspec.msgpack.encode(document), 1)


def unpack(payload: bytes) -> ForecastSample | None:
    """The forecast in the bytes; None for those of another version."""
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
    slot, volume, weight, active, units, units_top, sums, sums_top, *levels = (
        np.frombuffer(part, dtype).reshape(shape)
        for part, (dtype, shape) in zip(document["arrays"], shapes, strict=True)
    )
    return ForecastSample(
        origin_ms=document["origin_ms"],
        model_id=document["model_id"],
        slot_N=slot,
        volume_N=volume,
        weight_N=weight,
        busy_NH=active,
        units=PackedQuantiles(units, units_top),
        cumulative=PackedQuantiles(sums, sums_top),
        levels=(levels[0], levels[1]),
    )
