"""Last year's demand: a carried ring of weekly sums, and last year's level of coming weeks.

Weeks are whole weeks since the epoch, so a date 52 weeks ago has the same weekday. For each week
the horizon touches, the network reads last year's level of that week relative to the weeks before
it; a series younger than a year gets zeros and a flag.

Axes: S = series, K = carried statistics (the ring follows the named ones), Y = weeks ahead.
"""

from typing import Final

import torch
from torch import Tensor

from model.config import ModelConfig
from model.durations import WEEK_MS
from model.inputs.carried_statistics import AGE, N_STATISTICS, SLOW, scale_of

YEAR_WEEKS: Final = 52
#: Weeks in the ring: a year, the four weeks before it and the current one.
RING: Final = 58
_BASE_WEEKS: Final = 4
_MAX_AHEAD: Final = 8


def weeks_ahead(config: ModelConfig) -> int:
    """Number of weeks the horizon can touch, at most 8.

    >>> weeks_ahead(ModelConfig(horizon=28, bucket_ms=86_400_000))
    5
    """
    span = -(-config.horizon * config.bucket_ms // WEEK_MS)
    return min(span + 1, _MAX_AHEAD)


def carry_year(stats_SK: Tensor, units_S: Tensor, start_ms: int, *, bucket_ms: int) -> None:
    """Add one bucket to the week it starts in, in place; a new week starts at zero."""
    week = start_ms // WEEK_MS
    column_S = stats_SK[:, N_STATISTICS + week % RING]
    if (start_ms - bucket_ms) // WEEK_MS != week:
        column_S.copy_(units_S)
    else:
        column_S.add_(units_S)


def year_inputs(stats_SK: Tensor, origin_ms: int | Tensor, config: ModelConfig) -> Tensor:
    """Inputs [S, 2 + Y]: a flag for a known year, growth over it, last year's level a week ahead.

    `origin_ms` is the end of the newest bucket, one for all series or one per row. Levels are log
    ratios, damped by a fifth of the series' own week and one unit.
    """
    ahead = weeks_ahead(config)
    first = -_BASE_WEEKS - 1
    offsets = torch.arange(first, ahead + 1, device=stats_SK.device) - YEAR_WEEKS
    if isinstance(origin_ms, int):
        columns = N_STATISTICS + (origin_ms // WEEK_MS + offsets) % RING
        weekly = stats_SK.index_select(1, columns)
    else:
        columns = N_STATISTICS + (origin_ms[:, None] // WEEK_MS + offsets) % RING
        weekly = stats_SK.gather(1, columns)
    a_week = config.buckets_per_day * 7
    damp_S1 = 0.2 * a_week * scale_of(stats_SK, floor=config.scale_floor)[:, None] + 1.0
    base_S1 = weekly[:, 1 : 1 + _BASE_WEEKS].mean(dim=1, keepdim=True)
    coming = weekly[:, _BASE_WEEKS:]
    smooth_SY = (coming[:, :-2] + 2 * coming[:, 1:-1] + coming[:, 2:]) / 4
    level_SY = torch.log((smooth_SY + damp_S1) / (base_S1 + damp_S1))
    now_S1 = stats_SK[:, SLOW, None] * a_week
    growth_S1 = torch.log((now_S1 + damp_S1) / (base_S1 + damp_S1))
    known_S1 = stats_SK[:, AGE, None] >= a_week * (YEAR_WEEKS + _BASE_WEEKS // 2)
    both = torch.cat((torch.ones_like(growth_S1), growth_S1, level_SY), dim=1)
    return both * known_S1
