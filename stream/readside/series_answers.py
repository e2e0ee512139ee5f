"""Closed buckets, open buckets and forecast of one series, decoded, with the age of each.

Pure functions on stored rows, whose layout `stream/state/keys.py` documents.

Axes: T = buckets, F = features in the order of `model.contract.FEATURE_NAMES`, H = horizon,
Q = quantiles.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.features.definitions import MONEY_TICKS, N_FEATURES, N_SUMS, REVENUE
from stream.features.packed_block import ROW_BYTES
from stream.readside.deployment import Deployment
from stream.state.forecasts import named_targets, unpack_forecast, unpack_target

Floats = NDArray[np.float32]

#: A worker without a report for this long counts as gone (it reports twice a second).
STALE_AFTER_MS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Age:
    """Age of an answer: time since the worker of its partition last reported.

    `age_ms` is None if no worker has ever reported.
    """

    age_ms: int | None
    stale: bool

    @classmethod
    def since(cls, reported_ms: int | None, *, now_ms: int) -> "Age":
        """Return the age at `now_ms` of a report made at `reported_ms`.

        >>> Age.since(1_000, now_ms=1_300), Age.since(None, now_ms=5).stale
        (Age(age_ms=300, stale=False), True)
        """
        if reported_ms is None:
            return cls(None, stale=True)
        age_ms = max(0, now_ms - reported_ms)
        return cls(age_ms, stale=age_ms > STALE_AFTER_MS)


@dataclass(frozen=True, slots=True)
class SeriesHistory:
    """Closed buckets of a series, oldest first; a bucket without events is a row of zeros."""

    series_id: str
    start_T: NDArray[np.int64]
    values_TF: Floats
    age: Age


@dataclass(frozen=True, slots=True)
class OpenSums:
    """Sums so far of an open bucket; money in units of the currency."""

    start_ms: int
    values_F: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SeriesForecast:
    """The newest forecast of a series: quantiles of each bucket and of the cumulative sum.

    `mean_H` is the expected demand of each bucket.
    `targets` has the quantiles [H, Q] of revenue and visitors by name, if the model forecasts them.
    """

    series_id: str
    origin_ms: int
    bucket_ms: int
    quantiles: tuple[float, ...]
    units_HQ: Floats
    cumulative_HQ: Floats
    mean_H: Floats
    model_id: str
    calibrated: bool
    watermark_ms: int
    emitted_ms: int
    age: Age
    targets: dict[str, Floats] = field(default_factory=dict)


def open_row(raw: bytes) -> NDArray[np.float64]:
    """Decode one series' row of an open block: float64 [F], money in units of the currency."""
    if len(raw) != ROW_BYTES:
        return np.zeros(N_FEATURES)
    return open_values(np.frombuffer(raw, "<i8"))


def open_values(sums: NDArray[np.int64]) -> NDArray[np.float64]:
    """Convert integer sums to values [F]; stock stays 0 (unknown) until the bucket closes.

    >>> float(open_values(np.full(N_SUMS, 25_000))[REVENUE])
    2.5
    """
    values_F = np.zeros(N_FEATURES)
    values_F[:N_SUMS] = sums
    values_F[REVENUE] /= MONEY_TICKS
    return values_F


def parse_forecast(
    series_id: str,
    header: Mapping[bytes, bytes],
    *,
    row: bytes,
    shape: Deployment,
    age: Age,
    targets: Mapping[str, bytes] | None = None,
) -> SeriesForecast | None:
    """Decode a series' forecast; None if the partition has none for it yet.

    A forecast that a build or settings with another layout have written counts as none.
    `targets` has the rows of further targets; those missing from the header are skipped.
    """
    size = {"horizon": shape.horizon, "n_quantiles": len(shape.quantiles)}
    values = unpack_forecast(row, **size)
    if not header or values is None or int(header.get(b"row", b"0")) != len(row):
        return None
    named = set(named_targets(header))
    further = {
        name: unpack_target(row, **size) for name, row in (targets or {}).items() if name in named
    }
    return SeriesForecast(
        series_id=series_id,
        origin_ms=int(header[b"origin_ms"]),
        bucket_ms=shape.bucket_ms,
        quantiles=shape.quantiles,
        units_HQ=values[0],
        cumulative_HQ=values[1],
        mean_H=values[2],
        model_id=header[b"model_id"].decode(),
        calibrated=header.get(b"calibrated", b"0").lower() in {b"1", b"true"},
        watermark_ms=int(header.get(b"watermark_ms", header[b"origin_ms"])),
        emitted_ms=int(header.get(b"emitted_ms", b"0")),
        age=age,
        targets={name: block for name, block in further.items() if block is not None},
    )
