"""Explanations of forecasts: asking the workers for them, and matching them with the forecast.

Axes: H = horizon.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from redis.exceptions import RedisError

from model.contributions import CONTRIBUTIONS, Reals
from stream.errors import ServiceUnavailable
from stream.readside.series_answers import Floats, SeriesForecast
from stream.state import keys
from stream.state.explanations import ASKED_S, Missing, StoredExplanation
from stream.state.keys import Tag

#: Contribution of what follows the model: calibration, the cut at zero, coherent sums.
ADJUSTMENT: Final = "adjustment"


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one contribution adds to the median of each bucket [H], and to that of the sums [H].

    `factors_H` are given for those that multiply the level; `recent` also contains what the network
    adds for the newest sales.
    """

    name: str
    units_H: Reals
    cumulative_H: Reals
    factors_H: Reals | None = None


@dataclass(frozen=True, slots=True)
class SeriesExplanation:
    """Contributions that sum to the published medians of a forecast; empty if `missing` says why.

    `quantile` is the published level nearest to 0.5.
    """

    forecast: SeriesForecast
    missing: Missing
    quantile: float
    median_H: Floats
    cumulative_H: Floats
    contributions: tuple[Contribution, ...]
    special_days: tuple[str, ...]


def matched(stored: StoredExplanation | None, forecast: SeriesForecast) -> SeriesExplanation | None:
    """The explanation of this very forecast; None if the stored one is of another origin or model.

    >>> from stream.readside.series_answers import Age
    >>> ones = np.ones((1, 1), np.float32)
    >>> row = ones, ones, ones[0]
    >>> forecast = SeriesForecast("A", 0, 60, (0.5,), *row, "m", True, 0, 0, Age(0, False))
    >>> stored = StoredExplanation(0, "m", units={"level": [0.75]}, cumulative={"level": [1.0]})
    >>> [(part.name, part.units_H.tolist()) for part in matched(stored, forecast).contributions]
    [('level', [0.75]), ('adjustment', [0.25])]
    >>> matched(StoredExplanation(60, "m"), forecast) is None
    True
    """
    if stored is None or (stored.origin_ms, stored.model_id) != (
        forecast.origin_ms,
        forecast.model_id,
    ):
        return None
    middle = int(np.argmin(np.abs(np.asarray(forecast.quantiles) - 0.5)))
    median_H, sums_H = forecast.units_HQ[:, middle], forecast.cumulative_HQ[:, middle]
    parts = []
    if not stored.missing:
        parts = [
            Contribution(
                name,
                np.asarray(stored.units[name]),
                np.asarray(stored.cumulative[name]),
                np.asarray(stored.factors[name]) if name in stored.factors else None,
            )
            for name in CONTRIBUTIONS
            if name in stored.units
        ]
        units_H = _rest(median_H, [part.units_H for part in parts])
        cumulative_H = _rest(sums_H, [part.cumulative_H for part in parts])
        parts.append(Contribution(ADJUSTMENT, units_H, cumulative_H))
    return SeriesExplanation(
        forecast=forecast,
        missing=stored.missing,
        quantile=forecast.quantiles[middle],
        median_H=median_H,
        cumulative_H=sums_H,
        contributions=tuple(parts),
        special_days=tuple(stored.special_days),
    )


def _rest(total_H: Floats, parts: Sequence[Reals]) -> Reals:
    """What the parts leave of the total, to a thousandth of a unit."""
    rest_H: Reals = np.round(total_H - np.sum(parts, axis=0), 3)
    return rest_H


class ExplanationReads:
    """Asks for explanations and reads them, with a client that does not decode responses.

    Its methods raise ServiceUnavailable if the store does not answer.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    def ask(self, found: Sequence[tuple[Tag, int]]) -> None:
        """Ask the workers to explain the newest forecasts of these slots."""
        pipe = self._redis.pipeline(transaction=False)
        for tag, slot in found:
            pipe.sadd(keys.of(tag, "asked"), slot)
            pipe.expire(keys.of(tag, "asked"), ASKED_S)
        self._execute(pipe)

    def read(self, found: Sequence[tuple[Tag, int]]) -> list[StoredExplanation | None]:
        """The newest answers for these slots, None where there is none."""
        pipe = self._redis.pipeline(transaction=False)
        for tag, slot in found:
            pipe.mget([keys.of(tag, "explained", slot)])
        return [
            None if payload is None else StoredExplanation.decode(payload)
            for (payload,) in self._execute(pipe)
        ]

    def _execute(self, pipe: Any) -> list[Any]:
        try:
            answers: list[Any] = pipe.execute()
        except RedisError as error:
            raise ServiceUnavailable(f"the store does not answer: {error}") from error
        return answers
