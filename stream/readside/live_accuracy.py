"""Live accuracy by model, volume class and step: forecasts against actuals, from stored scores.

The workers store sums by day (`stream/scoring/live_scoring.py`); these are added up over
partitions and days.

Axes: V = volume classes, H = horizon steps, K = sums.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from model.durations import DAY_MS
from model.evaluation.score_sums import N_SUMS, ROLLUP, VOLUMES, Score, score_of
from stream.errors import ServiceUnavailable
from stream.state import keys
from stream.state.keys import Tag
from stream.state.scores import add_scores

Sums = NDArray[np.float64]

#: Volume class of all series except roll-ups.
ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class LiveAccuracy:
    """Sums [V, H, K] by model over the buckets in `[from_ms, to_ms)`: whole days of event time."""

    from_ms: int = 0
    to_ms: int = 0
    sums: Mapping[str, Sums] = field(default_factory=dict)

    def models(self) -> Iterator[tuple[str, str, Sums]]:
        """Yield model, volume class and sums [H, K]; `all` is every series except roll-ups."""
        for model_id, sums_VHK in sorted(self.sums.items()):
            yield model_id, ALL, sums_VHK[:ROLLUP].sum(axis=0)
            for at, volume in enumerate(VOLUMES):
                yield model_id, volume, sums_VHK[at]

    def overall(self) -> Score:
        """Metrics over all models, steps and series, without roll-ups."""
        return score_of(sum((sums[:ROLLUP] for sums in self.sums.values()), np.zeros(N_SUMS)))


def read_accuracy(
    redis: Any, tags: Sequence[Tag], *, horizon: int, through_ms: int, days: int
) -> LiveAccuracy:
    """Scores of the last `days` days up to the day of `through_ms`; one round trip.

    Raises ServiceUnavailable when the store does not answer.
    """
    last = (through_ms - 1) // DAY_MS * DAY_MS
    first = last - (days - 1) * DAY_MS
    pipe = redis.pipeline(transaction=False)
    for tag in tags:
        for day in range(first, last + 1, DAY_MS):
            pipe.hgetall(keys.of(tag, "scores", day))
    try:
        answers = pipe.execute()
    except RedisError as error:
        raise ServiceUnavailable(f"the store does not answer: {error}") from error
    return LiveAccuracy(first, last + DAY_MS, add_scores(answers, horizon=horizon))
