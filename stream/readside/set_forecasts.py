"""The forecast of the demand of a set of series, from the forecasts of each and of the total.

Axes: S = series of the set, H = horizon, Q = quantiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from model.quantiles.coherence import make_coherent
from model.quantiles.sums_of_series import common_variance, quantiles_of_sum, variance_of
from model.quantiles.whole_units import round_to_units
from stream.errors import ServiceUnavailable
from stream.readside.series_answers import SeriesForecast
from stream.state import keys
from stream.state.forecast_sums import ForecastSums, sums_path, unpack_sums

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SetForecast:
    """Quantiles [H, Q] and means [H] of the demand of a set, bucket by bucket and cumulative.

    `joint` is False where the variance that all series share is unknown: their errors then count as
    independent, and the band is too narrow.
    """

    origin_ms: int
    bucket_ms: int
    quantiles: tuple[float, ...]
    units_HQ: Doubles
    cumulative_HQ: Doubles
    mean_H: Doubles
    joint: bool


def forecast_of_set(
    forecasts: Sequence[SeriesForecast],
    total: SeriesForecast | None,
    partitions: Sequence[ForecastSums],
) -> SetForecast:
    """Forecast the sum of some series, all of one origin.

    `total` is the forecast of all series and `partitions` the sums of every partition; if one is
    of another origin, or there are none, nothing is known of what the series share.
    """
    first = forecasts[0]
    horizon, quantiles = len(first.mean_H), first.quantiles
    joint = total is not None and bool(partitions)
    joint = joint and all(sums.fits(first.origin_ms, horizon) for sums in partitions)
    joint = joint and total is not None and total.origin_ms == first.origin_ms
    mean_SH = np.stack([one.mean_H for one in forecasts]).astype(np.float64)
    blocks = []
    for number, name in enumerate(("units_HQ", "cumulative_HQ")):
        cumulative = number == 1
        own_SHQ = np.stack([getattr(one, name) for one in forecasts])
        own_SH = mean_SH.cumsum(axis=1) if cumulative else mean_SH
        variance_H = variance_of(own_SHQ.astype(np.float64), own_SH, quantiles).sum(axis=0)
        common_H = np.zeros(horizon)
        if joint:
            all_H = np.stack([sums.mean_GH[0] for sums in partitions]).sum(axis=0)
            all_variance_H = np.stack([sums.variance_2H[number] for sums in partitions]).sum(axis=0)
            common_H = common_variance(
                getattr(total, name), all_H.cumsum() if cumulative else all_H,
                all_variance_H, quantiles,
            )  # fmt: skip
        made_HQ = quantiles_of_sum(own_SH.sum(axis=0), variance_H, common_H, quantiles)
        blocks.append(round_to_units(made_HQ))
    if len(forecasts) == 1:  # a set of one is that one
        blocks = [first.units_HQ.astype(np.float64), first.cumulative_HQ.astype(np.float64)]
    units_HQ, cumulative_HQ = blocks
    make_coherent(units_HQ, cumulative_HQ)
    return SetForecast(
        origin_ms=first.origin_ms,
        bucket_ms=first.bucket_ms,
        quantiles=quantiles,
        units_HQ=units_HQ,
        cumulative_HQ=cumulative_HQ,
        mean_H=mean_SH.sum(axis=0),
        joint=joint or len(forecasts) == 1,
    )


class ForecastSumReads:
    """Reads the sums of all partitions, with a client that does not decode responses."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    def read(self, origin_ms: int, bucket_ms: int, *, partitions: int) -> list[ForecastSums]:
        """Sums of every partition that has any at this origin.

        Raises ServiceUnavailable if the store does not answer.
        """
        path = sums_path(origin_ms, bucket_ms)
        pipe = self._redis.pipeline(transaction=False)
        for tag in range(partitions):
            pipe.get(keys.of(tag, *path))
        try:
            found = [unpack_sums(payload) for payload in pipe.execute()]
        except RedisError as error:
            raise ServiceUnavailable(f"the store does not answer: {error}") from error
        return [sums for sums in found if sums is not None]
