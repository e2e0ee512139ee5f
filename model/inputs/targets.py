"""Further targets of a network besides units: revenue and visitors of a bucket.

Each target is one more block of the heads, which share all but their last matrix. Revenue is **cut
at zero**: a bucket with more returns than sales counts as one without revenue. A forecast is in
multiples of a scale derived from the carried statistics, so states and snapshots are the same with
and without targets:

    revenue: the series' scale in units times its mean price paid
    visitors: its mean visitors of a week, with the same floor as units

Revenue of a bucket without stock is as censored as its sales, so training ignores it; visitors are
not censored.

Axes: S = series, K = carried statistics, N = lanes, L = buckets of a chunk, X = buckets ahead.
"""

from dataclasses import dataclass, fields
from typing import Final

import torch
from torch import Tensor

from model.config import ModelConfig, Target
from model.contract import FeatureSpec
from model.inputs import carried_statistics as at
from model.inputs.newcomer_prior import scale_of
from model.inputs.static_features import LIST_PRICE

_COLUMN: Final[dict[Target, int]] = {
    "revenue": FeatureSpec().index("revenue"),
    "visitors": FeatureSpec().index("visitors"),
}


@dataclass(frozen=True, slots=True)
class TargetAhead:
    """Training data of one target in a chunk; see the fields of the same name in `Chunk`."""

    scale_NL: Tensor
    weight_NL: Tensor
    ahead_NX: Tensor
    known_NX: Tensor

    def of_rows(self, rows: slice) -> "TargetAhead":
        """Some of the lanes."""
        return TargetAhead(*(getattr(self, field.name)[rows] for field in fields(self)))


def target_of(values: Tensor, target: Target) -> Tensor:
    """A target [...] of closed buckets [..., F]; never negative.

    >>> target_of(torch.tensor([2.0, 0, -8.0, 1, 0, 0, 0, 0, 3, 0, 0]), "revenue").item()
    0.0
    """
    return values[..., _COLUMN[target]].clamp(min=0.0)


def scales_of(stats_SK: Tensor, config: ModelConfig) -> tuple[Tensor, ...]:
    """Scale [S] of each block of a forecast: units, their running sum, then each target.

    >>> from model.inputs.series_inputs import new_carried
    >>> config = ModelConfig(horizon=2, bucket_ms=3_600_000, targets=("revenue",))
    >>> stats = new_carried(1, config)
    >>> stats[0, at.SLOW], stats[0, at.PRICE] = 3.0, 2.5
    >>> [scale_S.item() for scale_S in scales_of(stats, config)]
    [3.0, 3.0, 7.5]
    """
    units_S = scale_of(stats_SK, config)
    blocks = [units_S, units_S]
    for target in config.targets:
        if target == "revenue":
            blocks.append(units_S * _price_of(stats_SK, config))
        else:
            blocks.append(stats_SK[:, at.M_VISITORS].clamp(min=config.scale_floor))
    return tuple(blocks)


def _price_of(stats_SK: Tensor, config: ModelConfig) -> Tensor:
    """Mean price paid [S]; before the first sale the list price, or 1 if unknown."""
    paid_S = stats_SK[:, at.PRICE]
    listed_S = stats_SK[:, LIST_PRICE] if config.uses_static else torch.zeros_like(paid_S)
    listed_S = torch.where(listed_S > 0, listed_S, 1.0)
    return torch.where(paid_S > 0, paid_S, listed_S)
