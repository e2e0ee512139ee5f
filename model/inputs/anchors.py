"""What the carried statistics let expect of the buckets ahead: factors, and the error as a unit.

Axes: S = series, K = carried statistics, H = horizon.
"""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from torch import Tensor

from model.config import ModelConfig
from model.inputs import carried_statistics as at
from model.inputs.newcomer_prior import scale_of
from model.inputs.seasons.season_layout import HorizonPhases, layout_of
from model.inputs.seasons.special_profile import special_log
from model.inputs.seasons.week_profile import log_factors
from model.inputs.seasons.year_profile import year_ahead

#: Log factors of the horizon, in order: time of week, season of the year, its remainder, special
#: days, and the last week over what was expected of it.
FACTORS: Final = ("week", "year", "year_rest", "special", "recent")
#: Limits of a series' error in multiples of its scale.
_LEAST_ERROR: Final = 0.02
_MOST_ERROR: Final = 5.0
#: Relative error of the level of a new series, and the buckets for which that counts.
_UNKNOWN: Final = 0.25
_YOUNG: Final = 5.0


def error_of(stats_SK: Tensor, scale_S: Tensor) -> Tensor:
    """Mean absolute error [S] of what was expected of a bucket, in multiples of the scale.

    That of a young series is shrunk to the error of a Poisson count whose mean is not quite known,

        √(u² + 2 / (π · scale)).

    >>> stats = Tensor(2, at.N_STATISTICS).zero_()
    >>> stats[:, at.AGE], stats[:, at.ERROR] = Tensor([1.0, 500.0]), 4.0
    >>> [round(error, 2) for error in error_of(stats, Tensor([100.0, 100.0])).tolist()]
    [0.23, 0.04]
    """
    prior_S = (_UNKNOWN**2 + (2.0 / math.pi) / scale_S.clamp(min=1e-6)).sqrt()
    age_S = stats_SK[:, at.AGE]
    error_S = (age_S * stats_SK[:, at.ERROR] / scale_S + _YOUNG * prior_S) / (age_S + _YOUNG)
    return error_S.clamp(_LEAST_ERROR, _MOST_ERROR)


class Anchors(NamedTuple):
    """What the carried statistics let expect of the horizon.

    `logs` are log factors, each [..., H] or [..., 1] (the same for all buckets), in the order of
    `FACTORS`; `error` [...] is the mean absolute error of one bucket, in multiples of the scale.
    """

    logs: tuple[Tensor, ...]
    error: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "Anchors":
        """The same after a change of each tensor."""
        return Anchors(tuple(change(log) for log in self.logs), change(self.error))


def anchors_of(stats_SK: Tensor, ahead: HorizonPhases, config: ModelConfig) -> Anchors:
    """Anchors of the buckets ahead: logs [S, H], error [S]."""
    layout = layout_of(config.bucket_ms)
    scale_S = scale_of(stats_SK, config)
    year_SH, rest_SH = year_ahead(stats_SK, ahead, layout)
    damp_S = 0.1 * scale_S + config.scale_floor
    week_S = (stats_SK[:, at.WEEK] + damp_S) / (stats_SK[:, at.EXPECTED_WEEK] + damp_S)
    return Anchors(
        logs=(
            log_factors(stats_SK, ahead, layout),
            year_SH,
            rest_SH,
            special_log(stats_SK, ahead, layout),
            week_S.log().clamp(-2.0, 2.0)[:, None],
        ),
        error=error_of(stats_SK, scale_S),
    )
