"""Means of roll-ups, from the forecasts of all partitions that were made at the same origin.

Each partition stores the sums of its series' means beside its forecast; the owner of the roll-ups
adds them up. Origins differ for a while where partitions close at different times, so the last ones
are kept (`stream/state/forecast_sums.py`).

Axes: S = series, G = roll-ups, H = horizon.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.contract import QuantileForecast
from model.quantiles.sums_of_series import variance_of
from stream.scoring.rollup_sums import RollupMembers
from stream.state.forecast_sums import ForecastSums, pack_sums, sums_path, unpack_sums
from stream.state.keys import Tag
from stream.state.port import Path

#: Reads blobs of a partition in one round trip; None where absent.
BlobReader = Callable[[Tag, Sequence[Path]], list[bytes | None]]
#: The category of each SKU of a partition, and a version that changes with them.
CategoryReader = Callable[[Tag], tuple[object, Callable[[], dict[str, str]]]]

#: Series whose variances are read, about.
_READ: Final = 2_048


@dataclass(slots=True)
class _Known:
    """Members of a partition's roll-ups, of so many series at a version of the catalog."""

    version: object
    series: int
    members: RollupMembers


class RollupMeans:
    """Sums of means, written and read by the serving thread.

    `partitions` is the number of partitions of the deployment; `n_series` returns the number of
    series of a partition in the store, `versions` something that changes with any forecast. Reads
    raise ServiceUnavailable if the store does not answer.
    """

    def __init__(
        self,
        blobs: BlobReader,
        categories: CategoryReader,
        n_series: Callable[[Tag], int],
        versions: Callable[[], object],
        *,
        partitions: int,
    ) -> None:
        self._blobs = blobs
        self._categories = categories
        self._n_series = n_series
        self._versions = versions
        self._partitions = partitions
        self._known: dict[Tag, _Known] = {}
        self._seen: object = None

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
        sums = ForecastSums.of(
            forecast.origin_ms,
            known.members.names,
            known.members.sums(forecast.mean_SH[:size]),
            _variances(forecast, size),
        )
        return sums_path(forecast.origin_ms, forecast.bucket_ms), pack_sums(sums)

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
        path = sums_path(forecast.origin_ms, forecast.bucket_ms)
        for tag in range(self._partitions):
            [payload] = self._blobs(tag, [path])
            stored = unpack_sums(payload)
            if stored is None or not stored.fits(forecast.origin_ms, horizon):
                if self._n_series(tag):
                    return None
                continue
            _add(mean_SH, place, stored)
        return replace(forecast, mean_SH=mean_SH.astype(np.float32))

    def changed(self, series: Sequence[str], forecast: QuantileForecast) -> QuantileForecast | None:
        """The forecast with other means, if its partitions have been forecast again; else None."""
        seen = self._versions()
        if seen == self._seen:
            return None
        found = self.reconciled(series, forecast)
        self._seen = seen
        if found is None or np.allclose(found.mean_SH, forecast.mean_SH, rtol=1e-5, atol=1e-9):
            return None
        return found


def _add(mean_SH: NDArray[np.float64], place: dict[str, int], stored: ForecastSums) -> None:
    """Add one partition's sums to the roll-ups that there are."""
    for name, mean_H in zip(stored.names, stored.mean_GH, strict=True):
        slot = place.get(name)
        if slot is not None and slot < len(mean_SH):
            mean_SH[slot] += mean_H


def _variances(forecast: QuantileForecast, size: int) -> NDArray[np.float64]:
    """Variances [2, H] summed over the first series: of buckets, and of cumulative demand.

    Of many series every n-th is read: beside the variance that all share, that of a sum of many is
    small.
    """
    every = max(1, size // _READ)
    rows = slice(0, size, every)
    mean_NH = forecast.mean_SH[rows]
    blocks = (
        (forecast.units_SHQ[rows], mean_NH),
        (forecast.cumulative_SHQ[rows], mean_NH.cumsum(axis=1)),
    )
    variances = [
        variance_of(block_NHQ, of_NH, forecast.quantiles).sum(axis=0) for block_NHQ, of_NH in blocks
    ]
    return np.stack(variances) * (size / max(len(mean_NH), 1))
