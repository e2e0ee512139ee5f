"""Means of roll-ups, from the forecasts of all partitions that were made at the same origin.

Each partition stores the sums of its series' means beside its forecast; the owner of the roll-ups
adds them up. Origins differ for a while where partitions close at different times, so the last
`KEPT` are kept, in a ring.

Axes: S = series, G = roll-ups, H = horizon.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.contract import QuantileForecast
from stream.scoring.rollup_sums import RollupMembers
from stream.state.keys import Tag
from stream.state.port import Path

#: Origins whose sums are kept.
KEPT: Final = 8
_KIND: Final = "means"

#: Reads blobs of a partition in one round trip; None where absent.
BlobReader = Callable[[Tag, Sequence[Path]], list[bytes | None]]
#: The category of each SKU of a partition, and a version that changes with them.
CategoryReader = Callable[[Tag], tuple[object, Callable[[], dict[str, str]]]]


class _Stored(msgspec.Struct):
    """The sums of one partition's means at one origin; `sums` are float32 [G, H]."""

    origin_ms: int
    names: list[str]
    sums: bytes

    def fits(self, origin_ms: int, horizon: int) -> bool:
        """True for the sums of this origin and horizon."""
        return self.origin_ms == origin_ms and len(self.sums) == 4 * len(self.names) * horizon


@dataclass(slots=True)
class _Known:
    """Members of a partition's roll-ups, of so many series at a version of the catalog."""

    version: object
    series: int
    members: RollupMembers


class RollupMeans:
    """Sums of means, written and read by the serving thread.

    `partitions` is the number of partitions of the deployment; `n_series` returns the number of
    series of a partition in the store. Reads raise ServiceUnavailable if the store does not answer.
    """

    def __init__(
        self,
        blobs: BlobReader,
        categories: CategoryReader,
        n_series: Callable[[Tag], int],
        *,
        partitions: int,
    ) -> None:
        self._blobs = blobs
        self._categories = categories
        self._n_series = n_series
        self._partitions = partitions
        self._known: dict[Tag, _Known] = {}

    def sums_of(
        self, tag: Tag, series: Sequence[str], forecast: QuantileForecast
    ) -> tuple[Path, bytes]:
        """Where the sums of a partition's forecast are stored, and their bytes.

        `series` may have more series than the forecast: those that have come since.
        """
        version, read = self._categories(tag)
        size = min(len(series), len(forecast.mean_SH))
        known = self._known.get(tag)
        if known is None or (known.version, known.series) != (version, size):
            known = _Known(version, size, RollupMembers(series[:size], read()))
            self._known[tag] = known
        sums_GH = known.members.sums(forecast.mean_SH[:size]).astype("<f4")
        stored = _Stored(forecast.origin_ms, known.members.names, sums_GH.tobytes())
        return _path(forecast.origin_ms, forecast.bucket_ms), msgspec.msgpack.encode(stored)

    def forget(self, tag: Tag) -> None:
        """Drop what is known of a partition that has moved to another worker."""
        self._known.pop(tag, None)

    def reconciled(
        self, series: Sequence[str], forecast: QuantileForecast
    ) -> QuantileForecast | None:
        """The forecast of the roll-ups with means that are the sums of their series' means.

        None while a partition that has series has not forecast at this origin yet.
        """
        horizon = forecast.mean_SH.shape[1]
        place = {name: slot for slot, name in enumerate(series)}
        mean_SH = np.zeros(forecast.mean_SH.shape, np.float64)
        path = _path(forecast.origin_ms, forecast.bucket_ms)
        for tag in range(self._partitions):
            [payload] = self._blobs(tag, [path])
            stored = None if payload is None else msgspec.msgpack.decode(payload, type=_Stored)
            if stored is None or not stored.fits(forecast.origin_ms, horizon):
                if self._n_series(tag):
                    return None
                continue
            _add(mean_SH, place, stored)
        return replace(forecast, mean_SH=mean_SH.astype(np.float32))


def _add(mean_SH: NDArray[np.float64], place: dict[str, int], stored: _Stored) -> None:
    """Add one partition's sums to the roll-ups that there are."""
    sums_GH = np.frombuffer(stored.sums, "<f4").reshape(len(stored.names), -1)
    for name, sums_H in zip(stored.names, sums_GH, strict=True):
        slot = place.get(name)
        if slot is not None and slot < len(mean_SH):
            mean_SH[slot] += sums_H


def _path(origin_ms: int, bucket_ms: int) -> Path:
    """Path of the sums of an origin.

    >>> _path(9 * 60_000, 60_000)
    ('means', 1)
    """
    return _KIND, origin_ms // bucket_ms % KEPT
