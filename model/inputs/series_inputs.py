"""Inputs of the network for one series at a closed bucket.

Every input is a pure function of the carried statistics (already updated by the bucket) and of the
bucket itself, so stepping bucket by bucket and re-reading the history give the same numbers. Demand
is divided by the carried scale and compressed by log1p; without any clicks so far the click inputs
are zero and a flag is off. For a censored bucket demand is at least the carried mean, and
`availability` is the share of time in stock. Plans of the bucket are inputs if the network uses
plans.

Axes: S = series, F = stored features, K = carried statistics, I = inputs, P = plan columns.
"""

import math
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from model.config import ModelConfig
from model.errors import InvalidValues
from model.inputs import carried_statistics as at
from model.inputs.anchors import error_of
from model.inputs.newcomer_prior import NewcomerPrior, scale_of, young
from model.inputs.plans import N_PLANS, PLAN_INPUT_NAMES, plan_features
from model.inputs.seasons.season_layout import BucketPhases, layout_of
from model.inputs.seasons.special_profile import carry_special, special_log_of
from model.inputs.seasons.week_profile import carry_profiles, factor_of
from model.inputs.seasons.year_profile import (
    carry_year,
    year_ahead,
    year_growth,
    year_known,
    year_weights,
)
from model.inputs.static_features import N_CARRIED, PRIOR

#: Inputs of a series, in order.
INPUT_NAMES: Final = (
    "demand", "demand_log", "sold", "returns", "orders", "revenue", "views", "carts", "visitors",
    "conversion", "has_clicks", "price", "price_last", "scale_log", "age_log", "week_ratio",
    "day_ratio", "rate", "size_ratio", "since_log", "returns_share", "started", "availability",
    "stock_known", "quarter_ratio", "year_ratio", "robust_ratio", "spread_log",
    "season_now", "surprise", "day_surprise", "week_surprise", "error_log", "year_known",
    "year_growth", "surprise_score", "day_score", "week_score", "growth_score", "local_error",
    "year_weight", "above", "log_error",
)  # fmt: skip
#: Inputs of a network with a prior; zero once a series is no longer a newcomer.
_PRIOR_NAMES: Final = ("prior_ratio", "shrunk_ratio")


def input_names(config: ModelConfig) -> tuple[str, ...]:
    """Names of all inputs of a network, in order.

    >>> input_names(ModelConfig(horizon=24, bucket_ms=3_600_000, prior=True))[-2:]
    ('prior_ratio', 'shrunk_ratio')
    """
    names = INPUT_NAMES + (_PRIOR_NAMES if config.prior else ())
    return (*names, *PLAN_INPUT_NAMES) if config.plans else names


@lru_cache(maxsize=64)
def places_of(names: tuple[str, ...], config: ModelConfig) -> list[int]:
    """Columns of some inputs. Raises InvalidValues for an unknown name.

    >>> places_of(("sold", "demand"), ModelConfig(horizon=24, bucket_ms=3_600_000))
    [2, 0]
    """
    known = input_names(config)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InvalidValues(
            f"inputs_off: {', '.join(unknown)} unknown; known inputs are {', '.join(known)}"
        )
    return [known.index(name) for name in names]


def carried_width(config: ModelConfig) -> int:
    """Carried numbers per series: statistics, seasonal profiles, then static features if used."""
    profiles = layout_of(config.bucket_ms).end
    return profiles + (N_CARRIED if config.uses_static else 0)


def new_carried(size: int, config: ModelConfig, device: torch.device | str = "cpu") -> Tensor:
    """Carried statistics [S, K] of new series: all zero.

    The values of one statistic are adjacent in memory, since it is carried for all series at once.

    >>> new_carried(5, ModelConfig(horizon=2, bucket_ms=3_600_000))[:, 0].is_contiguous()
    True
    """
    return torch.zeros(carried_width(config), size, device=device).t()


def _log_ratio(a: Tensor, b: Tensor, floor: float) -> Tensor:
    return torch.log((a + floor) / (b + floor))


def series_inputs(
    stats_SK: Tensor,
    values_SF: Tensor,
    config: ModelConfig,
    plans_SP: Tensor | None = None,
) -> Tensor:
    """Inputs [S, I] of one closed bucket already part of `stats_SK`.

    `plans_SP` are the plans in force during the bucket, None for none; a network without plans
    ignores them.

    >>> config = ModelConfig(horizon=2, bucket_ms=3_600_000)
    >>> tuple(series_inputs(new_carried(3, config), torch.zeros(3, 11), config).shape)
    (3, 43)
    """
    floor = config.scale_floor
    scale_S = scale_of(stats_SK, config)
    units_S = values_SF[:, at.UNITS]
    short_S = at.censored(values_SF, share=config.censored_share)
    known_S = values_SF[:, at.STOCK] > 0
    demand_S = at.demand_of(stats_SK, values_SF, share=config.censored_share) / scale_S
    visitors_S = values_SF[:, at.VISITORS]
    price_S = stats_SK[:, at.PRICE].clamp(min=1e-3)
    money_S = values_SF[:, at.REVENUE].clamp(min=0.0) / (price_S * scale_S)
    has_clicks_S = (stats_SK[:, at.M_VIEWS] > 0).to(units_S.dtype)
    priced_S = stats_SK[:, at.PRICE] > 0
    last_S = stats_SK[:, at.PRICE_LAST].clamp(min=1e-3)
    relative_S = torch.where(priced_S, torch.log(last_S / price_S), 0.0).clamp(-2.0, 2.0)
    sold_S = units_S > 0
    week_S = stats_SK[:, at.WEEK]
    columns = (
        demand_S.clamp(max=20.0) * 0.1,
        torch.log1p(demand_S),
        torch.where(short_S & ~sold_S, stats_SK[:, at.RATE], sold_S.to(units_S.dtype)),
        torch.log1p(values_SF[:, at.RETURNS] / scale_S),
        torch.log1p(values_SF[:, at.ORDERS]),
        torch.where(priced_S, torch.log1p(money_S), 0.0),
        torch.log1p(values_SF[:, at.VIEWS] / (stats_SK[:, at.M_VIEWS] + floor)),
        torch.log1p(values_SF[:, at.CARTS]),
        torch.log1p(visitors_S / (stats_SK[:, at.M_VISITORS] + floor)),
        torch.where(
            visitors_S > 0, values_SF[:, at.PURCHASES] / visitors_S.clamp(min=1.0), 0.0
        ).clamp(max=3.0)
        - stats_SK[:, at.CONV],
        has_clicks_S,
        torch.where(sold_S, relative_S, 0.0),
        relative_S,
        torch.log(scale_S) * 0.25,
        torch.log1p(stats_SK[:, at.AGE] / config.buckets_per_day) * 0.25,
        _log_ratio(week_S, stats_SK[:, at.SLOW], floor),
        _log_ratio(stats_SK[:, at.DAY], week_S, floor),
        stats_SK[:, at.RATE],
        _log_ratio(stats_SK[:, at.SIZE], stats_SK[:, at.SLOW], floor) * 0.25,
        torch.log1p(stats_SK[:, at.SINCE]) * 0.25,
        stats_SK[:, at.M_RETURNS] / scale_S,
        (stats_SK[:, at.AGE] > 0).to(units_S.dtype),
        torch.where(known_S, 1.0 - values_SF[:, at.STOCKOUT_SHARE], 1.0),
        known_S.to(units_S.dtype),
        _log_ratio(stats_SK[:, at.QUARTER], stats_SK[:, at.SLOW], floor),
        _log_ratio(stats_SK[:, at.YEAR], stats_SK[:, at.SLOW], floor),
        _log_ratio(torch.expm1(stats_SK[:, at.LOG_QUARTER]), scale_S, floor) * 0.5,
        _log_ratio(stats_SK[:, at.SQUARE_QUARTER].sqrt(), scale_S, floor) * 0.5,
        *_season_inputs(stats_SK, demand_S * scale_S, scale_S, config),
    )
    if config.prior:
        young_S = young(stats_SK, config)
        levels = (stats_SK[:, PRIOR], stats_SK[:, at.SLOW])
        ratios = (_log_ratio(level_S, scale_S, floor) * young_S for level_S in levels)
        columns = (*columns, *ratios)
    inputs_SI = torch.stack(columns).t()
    if config.plans:
        inputs_SI = torch.cat((inputs_SI, _plan_inputs(stats_SK, plans_SP)), dim=1)
    if config.inputs_off:
        for place in places_of(config.inputs_off, config):
            inputs_SI[:, place] = 0.0  # one by one: a list would be copied to the device
    return inputs_SI


def _plan_inputs(stats_SK: Tensor, plans_SP: Tensor | None) -> Tensor:
    if plans_SP is None:
        plans_SP = stats_SK.new_zeros(stats_SK.shape[0], N_PLANS)
    return plan_features(plans_SP, stats_SK[:, at.PRICE])


def _season_inputs(
    stats_SK: Tensor, demand_S: Tensor, scale_S: Tensor, config: ModelConfig
) -> tuple[Tensor, ...]:
    """The newest bucket, day and week against what level and season let expect."""
    layout = layout_of(config.bucket_ms)
    floor_S = 0.1 * scale_S + config.scale_floor
    expected_S = stats_SK[:, at.EXPECTED]

    error_S = error_of(stats_SK, scale_S)
    spans = at.Spans.of(bucket_ms=config.bucket_ms, memory_days=config.memory_days)

    def score(value_S: Tensor, mean_S: Tensor, span: float) -> Tensor:
        """Deviation of a mean over `span` buckets in units of the series' error."""
        score_S = (value_S - mean_S) * math.sqrt(min(span, 7.0)) / (error_S * scale_S)
        return score_S.clamp(-8.0, 8.0) * 0.25

    def ratio(a: int, b: int) -> Tensor:
        return torch.log((stats_SK[:, a] + floor_S) / (stats_SK[:, b] + floor_S))

    return (
        torch.log((expected_S + floor_S) / (scale_S + floor_S)),
        torch.log((demand_S + floor_S) / (expected_S + floor_S)),
        ratio(at.DAY, at.EXPECTED_DAY),
        ratio(at.WEEK, at.EXPECTED_WEEK),
        torch.log(error_S) * 0.5,
        year_known(stats_SK, layout).to(stats_SK.dtype),
        year_growth(stats_SK, layout),
        score(demand_S, expected_S, 1.0),
        score(stats_SK[:, at.DAY], stats_SK[:, at.EXPECTED_DAY], spans.day),
        score(stats_SK[:, at.WEEK], stats_SK[:, at.EXPECTED_WEEK], spans.week),
        score(stats_SK[:, at.SLOW], stats_SK[:, at.QUARTER], spans.slow),
        ratio(at.LOCAL_ERROR, at.ERROR),
        year_weights(stats_SK, layout)[0],
        2.0 * stats_SK[:, at.ABOVE] - 1.0,
        stats_SK[:, at.LOG_ERROR].clamp(-3.0, 3.0),
    )


def carry_statistics(
    stats_SK: Tensor, values_SF: Tensor, phases: BucketPhases, config: ModelConfig
) -> None:
    """Carry statistics and profiles over one bucket, in place."""
    layout = layout_of(config.bucket_ms)
    spans = at.Spans.of(bucket_ms=config.bucket_ms, memory_days=config.memory_days)
    year_S1, _ = year_ahead(stats_SK, phases.ahead(layout), layout)
    usual_S = stats_SK[:, at.SLOW] * factor_of(stats_SK, phases, layout) * year_S1[:, 0].exp()
    stats_SK[:, at.EXPECTED] = usual_S
    special = any(phases.holiday_T) or any(phases.special_T)
    if special:
        level_S = at.recent_level(stats_SK)
        stats_SK[:, at.EXPECTED] *= special_log_of(stats_SK, phases, layout).exp()
    known_S = at.informative(stats_SK, values_SF, censored_share=config.censored_share)
    at.update_statistics(stats_SK, values_SF, known_S, spans, usual_S=usual_S if special else None)
    demand_S = at.demand_of(stats_SK, values_SF, share=config.censored_share)
    carry_profiles(stats_SK, demand_S, known_S, phases, layout)
    if special:
        usual_S = usual_S * level_S
        carry_special(stats_SK, demand_S, usual_S, known_S, phases, layout=layout)
        demand_S = torch.where(phases.holiday | (phases.special >= 0), usual_S, demand_S)
    carry_year(stats_SK, demand_S, known_S, phases, layout, slow=spans.slow)


def observe(
    stats_SK: Tensor,
    values_SF: Tensor,
    phases: BucketPhases,
    config: ModelConfig,
    *,
    prior: NewcomerPrior | None = None,
    plans_SP: Tensor | None = None,
) -> Tensor:
    """Carry the statistics over a bucket with these phases, in place; return its inputs [S, I].

    `prior` is the network's, if it has one; `plans_SP` are the plans in force during the bucket.
    """
    carry_statistics(stats_SK, values_SF, phases, config)
    if prior is not None:
        prior.write(stats_SK)
    return series_inputs(stats_SK, values_SF, config, plans_SP)
