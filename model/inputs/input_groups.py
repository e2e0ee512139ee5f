"""Groups of the network's inputs, and what they would be if nothing unusual had happened.

An explanation sets a group to its **neutral** value: that of a newest bucket that was as expected,
at the usual price, in stock and without a plan. Inputs that describe a series, such as its age, its
error or how often it sells, have no neutral value and belong to no group.

Axes: S = series, F = stored features, K = carried statistics, I = inputs.
"""

from typing import Final

import torch
from torch import Tensor

from model.config import ModelConfig
from model.inputs import carried_statistics as at
from model.inputs.newcomer_prior import scale_of
from model.inputs.plans import PLAN_INPUT_NAMES
from model.inputs.series_inputs import input_names, places_of

_PROMOTION, _PROMOTED, _PLAN_PRICE, _CLOSURE, _EVENT = PLAN_INPUT_NAMES
#: Named inputs of each group; those of plans are also read for the buckets ahead.
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "recent": (
        "demand", "demand_log", "sold", "returns", "orders", "revenue", "week_ratio", "day_ratio",
        "since_log", "surprise", "day_surprise", "week_surprise", "surprise_score", "day_score",
        "week_score",
    ),
    "trend": ("quarter_ratio", "year_ratio", "growth_score", "year_growth"),
    "clicks": ("views", "carts", "visitors", "conversion"),
    "price": ("price", "price_last", _PLAN_PRICE),
    "promotion": (_PROMOTION, _PROMOTED),
    "closure": (_CLOSURE,),
    "event": (_EVENT,),
    "stock": ("availability",),
}  # fmt: skip


def columns_of(group: str, config: ModelConfig) -> list[int]:
    """Columns of a group among the inputs of a network; those it does not read are left out.

    >>> columns_of("price", ModelConfig(horizon=2, bucket_ms=3_600_000))
    [11, 12]
    """
    known = input_names(config)
    return places_of(tuple(name for name in GROUPS[group] if name in known), config)


def neutral_inputs(
    inputs_SI: Tensor, stats_SK: Tensor, values_SF: Tensor, config: ModelConfig
) -> Tensor:
    """Inputs [S, I] with every group at its neutral value; the others as in `inputs_SI`.

    `stats_SK` contain the newest bucket `values_SF`, as for `series_inputs`. Sales, orders and
    revenue are those expected, views and visitors the mean of a week, carts in proportion to them.

    >>> from model.inputs.series_inputs import new_carried, series_inputs
    >>> config = ModelConfig(horizon=2, bucket_ms=3_600_000)
    >>> stats, values = new_carried(1, config), torch.zeros(1, 11)
    >>> stats[:, [at.SLOW, at.EXPECTED, at.AGE]], values[:, at.UNITS] = 2.0, 6.0
    >>> inputs = series_inputs(stats, values, config)
    >>> neutral = neutral_inputs(inputs, stats, values, config)
    >>> inputs[0, :2].tolist(), neutral[0, :2].tolist()
    ([0.3, 1.38...], [0.1, 0.69...])
    """
    scale_S, floor = scale_of(stats_SK, config), config.scale_floor
    expected_S, rate_S = stats_SK[:, at.EXPECTED], stats_SK[:, at.RATE]
    units_S, orders_S = values_SF[:, at.UNITS], values_SF[:, at.ORDERS]
    views_S, mean_views_S = values_SF[:, at.VIEWS], stats_SK[:, at.M_VIEWS]
    mean_visitors_S = stats_SK[:, at.M_VISITORS]
    demand_S = expected_S / scale_S
    per_unit_S = torch.where(units_S > 0, orders_S / units_S.clamp(min=1e-6), 0.0)
    expected_orders_S = torch.where(units_S > 0, expected_S * per_unit_S, rate_S)
    carts_S = values_SF[:, at.CARTS] * mean_views_S / views_S.clamp(min=1e-6)
    pause_S = (1.0 - rate_S).clamp(min=0.0) / rate_S.clamp(min=1e-3)
    neutral = {
        "demand": demand_S.clamp(max=20.0) * 0.1,
        "demand_log": torch.log1p(demand_S),
        "sold": rate_S,
        "returns": torch.log1p(stats_SK[:, at.M_RETURNS] / scale_S),
        "orders": torch.log1p(expected_orders_S),
        "revenue": torch.where(stats_SK[:, at.PRICE] > 0, torch.log1p(demand_S), 0.0),
        "since_log": torch.log1p(pause_S) * 0.25,
        "views": torch.log1p(mean_views_S / (mean_views_S + floor)),
        "carts": torch.where(views_S > 0, torch.log1p(carts_S), 0.0),
        "visitors": torch.log1p(mean_visitors_S / (mean_visitors_S + floor)),
        "availability": torch.ones_like(scale_S),
    }
    neutral_SI = inputs_SI.clone()
    for group in GROUPS:
        neutral_SI[:, columns_of(group, config)] = 0.0
    for name, value_S in neutral.items():
        if name not in config.inputs_off:
            neutral_SI[:, places_of((name,), config)] = value_S[:, None]
    return neutral_SI
