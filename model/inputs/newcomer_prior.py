"""Cold start: the level of a newcomer from its category, price and first clicks.

The prior is a Poisson regression, fitted at the start of a training on the first days of the series
that began within the history: mean demand of the next four weeks against category, price, views and
sales so far, and age. It corrects a selection effect that biases a plain mean: the day on which a
series first sells is better than those that follow. The scale of a newcomer lies between the two,

    scale = prior · w + mean · (1 − w),   w = n₀ / (n₀ + age) · max(0, 1 − age / 56 days),

with n₀, the days of plain mean the prior is worth, fitted as well. A series older than 56 days uses
its own mean as scale. The heads learn the width of the forecast: they read the age, the prior and
the mean in multiples of the scale.

Axes: N = samples (series × ages), S = series, K = carried statistics, T = buckets.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.config import ModelConfig
from model.inputs import carried_statistics as at
from model.inputs.static_features import CATEGORY, LIST_PRICE, PRIOR, ROWS, SCALE

Reals = NDArray[np.float64]

#: Age in days at which a series is no longer a newcomer.
YOUNG_DAYS: Final = 56
#: Ages in days at which the regression samples a series, and how far ahead.
_AGES: Final = (1, 2, 4, 7, 14, 28)
_AHEAD_DAYS: Final = 28
_MIN_AHEAD_DAYS: Final = 7
#: A series with an earlier start may be an old one that sells rarely; at most 1/3 of the history.
TRUNCATED_DAYS: Final = 84
_MIN_NEWCOMERS: Final = 20
#: Candidates for the days of own sales the prior is worth.
_WORTH_DAYS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
#: Ridge of a category's effect, in units of expected demand.
_RIDGE: Final = 10.0
_N_COMMON: Final = 8


def _common(price: Tensor, views: Tensor, sold: Tensor, age_days: Tensor) -> Tensor:
    """Regressors besides the category, [..., 8]; price and views 0 = unknown.

    Views and units sold are daily means so far. The first day is selected for having sold, so the
    regression learns the weight of early sales by age.
    """
    priced, clicked = price > 0, views > 0
    log_price = torch.where(priced, torch.log(price.clamp(1e-2, 1e5)), 0.0)
    log_sold, log_age = torch.log1p(sold), torch.log1p(age_days)
    return torch.stack(
        (
            torch.ones_like(price),
            priced.to(price.dtype),
            log_price,
            clicked.to(price.dtype),
            torch.log1p(views),
            log_sold,
            log_age,
            log_sold * log_age,
        ),
        dim=-1,
    )


class NewcomerPrior(nn.Module):
    """The fitted regression, stored as buffers of the network in its checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.common: Tensor
        self.category_R: Tensor
        self.worth_days: Tensor
        self.register_buffer("common", torch.zeros(_N_COMMON))
        self.register_buffer("category_R", torch.zeros(ROWS))
        self.register_buffer("worth_days", torch.zeros(()))

    def write(self, stats_SK: Tensor) -> None:
        """Derive prior and scale from the carried statistics, in place; 0 before the start."""
        per_day, floor = self.config.buckets_per_day, self.config.scale_floor
        paid_S, listed_S = stats_SK[:, at.PRICE], stats_SK[:, LIST_PRICE]
        price_S = torch.where(paid_S > 0, paid_S, listed_S)
        age_S, views_S = stats_SK[:, at.AGE] / per_day, stats_SK[:, at.M_VIEWS] * per_day
        common = _common(price_S, views_S, stats_SK[:, at.SLOW] * per_day, age_S)
        log_S = common @ self.common + self.category_R[stats_SK[:, CATEGORY].long()]
        begun_S = at.started(stats_SK)
        prior_S = torch.where(begun_S, torch.exp(log_S.clamp(-10.0, 12.0)).clamp(min=floor), 0.0)
        weight_S = young(stats_SK, self.config) * self.worth_days
        weight_S = weight_S / (self.worth_days + age_S).clamp(min=1e-6)
        stats_SK[:, PRIOR] = prior_S
        stats_SK[:, SCALE] = torch.lerp(stats_SK[:, at.SLOW], prior_S, weight_S)


def young(stats_SK: Tensor, config: ModelConfig) -> Tensor:
    """Weight [S] of a newcomer's prior: 1 at the start, 0 from 56 days on.

    >>> young(torch.zeros(1, 24), ModelConfig(horizon=2, bucket_ms=3_600_000)).item()
    1.0
    """
    days_S = stats_SK[:, at.AGE] / config.buckets_per_day
    return (1.0 - days_S / YOUNG_DAYS).clamp(min=0.0)


def scale_of(stats_SK: Tensor, config: ModelConfig) -> Tensor:
    """Scale [S] of each series in units per bucket: its forecast is in multiples of it."""
    return level_of(stats_SK, config).clamp(min=config.scale_floor)


def level_of(stats_SK: Tensor, config: ModelConfig) -> Tensor:
    """Mean demand [S] of each series in units per bucket: the scale without its floor.

    The floor is a day's demand of many products where buckets are short.
    """
    return stats_SK[:, SCALE if config.prior else at.SLOW]


@dataclass(frozen=True, slots=True)
class _Samples:
    """Newcomers at several ages: regressors, and the actual demand per bucket."""

    common: Reals
    category_N: NDArray[np.int64]
    age_days_N: Reals
    mean_N: Reals
    coming_N: Reals


def fit_prior(
    prior: NewcomerPrior, values_TSF: NDArray[np.float32], static_SX: NDArray[np.float32]
) -> None:
    """Fit the prior on the first days of the series of a history, in place.

    With too few newcomers in the history, all series count. Without demand the prior stays at one
    unit per bucket with weight zero.
    """
    samples = _samples(values_TSF, static_SX, prior.config)
    if samples is None:
        return
    coefficients, category_R = poisson(
        samples.common, samples.category_N, samples.coming_N, share=1.0 / len(_AGES)
    )
    log_N = samples.common @ coefficients + category_R[samples.category_N]
    expected_N = np.exp(np.clip(log_N, -10, 12))
    young_N = np.clip(1 - samples.age_days_N / YOUNG_DAYS, 0, None)

    def deviance(worth: float) -> float:
        weight_N = young_N * worth / (worth + samples.age_days_N)
        scale_N = weight_N * expected_N + (1 - weight_N) * samples.mean_N
        scale_N = np.maximum(scale_N, prior.config.scale_floor)
        return float((scale_N - samples.coming_N * np.log(scale_N)).mean())

    worth = min(_WORTH_DAYS, key=deviance)
    with torch.no_grad():
        prior.common.copy_(torch.from_numpy(coefficients))
        prior.category_R.copy_(torch.from_numpy(category_R))
        prior.worth_days.fill_(worth)


def _samples(
    values_TSF: NDArray[np.float32], static_SX: NDArray[np.float32], config: ModelConfig
) -> _Samples | None:
    per_day, buckets = config.buckets_per_day, len(values_TSF)
    units_TS = values_TSF[:, :, at.UNITS]
    active_TS = (units_TS > 0) | (values_TSF[:, :, at.VIEWS] > 0)
    first_S = np.where(active_TS.any(axis=0), active_TS.argmax(axis=0), buckets)
    latest = buckets - (_AGES[0] + _MIN_AHEAD_DAYS) * per_day
    earliest = min(TRUNCATED_DAYS * per_day, buckets // 3)
    began = np.flatnonzero((first_S >= earliest) & (first_S <= latest))
    if began.size < _MIN_NEWCOMERS:
        began = np.flatnonzero(first_S <= latest)
    rows = []
    for slot in began.tolist():
        first = int(first_S[slot])
        part = values_TSF[first : first + (_AGES[-1] + _AHEAD_DAYS) * per_day, slot]
        for age in _AGES:
            past, ahead = part[: age * per_day], part[age * per_day :][: _AHEAD_DAYS * per_day]
            if len(ahead) < _MIN_AHEAD_DAYS * per_day:
                break
            sold = past[:, at.UNITS].sum()
            paid = past[:, at.REVENUE].clip(0).sum() / sold if sold > 0 else 0.0
            views = past[-7 * per_day :, at.VIEWS].mean() * per_day
            price = paid or static_SX[slot, 3]
            known = (price, views, static_SX[slot, 0], age)
            rows.append((*known, past[:, at.UNITS].mean(), ahead[:, at.UNITS].mean()))
    if not rows:
        return None
    price_N, views_N, category_N, age_N, mean_N, coming_N = np.array(rows, np.float64).T
    if not coming_N.sum() > 0:
        return None
    most = np.quantile(coming_N, 0.99)  # limits outliers
    regressors = (price_N, views_N, mean_N * per_day, age_N)
    common = _common(*(torch.from_numpy(part_N) for part_N in regressors)).numpy()
    coming_N = np.minimum(coming_N, most)
    return _Samples(common, category_N.astype(np.int64), age_N, mean_N, coming_N)


def poisson(
    common_NC: Reals,
    category_N: NDArray[np.int64],
    target_N: Reals,
    *,
    share: float,
    ridge_of: float = _RIDGE,
) -> tuple[Reals, Reals]:
    """Coefficients and category effects [R] of the log of expected demand, by Newton's method.

    `common_NC` starts with a column of ones. A sample has weight `share`: samples of one series are
    nearly the same. A category's effect is shrunk to zero as by `ridge_of` mean samples.
    """
    n_common = common_NC.shape[1]
    seen, place_N = np.unique(category_N, return_inverse=True)
    columns = np.zeros((len(place_N), n_common + len(seen)))
    columns[:, :n_common] = common_NC
    columns[np.arange(len(place_N)), n_common + place_N] = seen[place_N] > 0
    ridge = np.full(columns.shape[1], ridge_of * target_N.mean())
    ridge[:n_common] = 1e-3
    weights = np.zeros(columns.shape[1])
    weights[0] = np.log(target_N.mean())
    for _ in range(25):
        expected_N = np.exp(np.clip(columns @ weights, -10, 12))
        slope = share * columns.T @ (target_N - expected_N) - ridge * weights * (ridge > 1e-3)
        curve = share * (columns * expected_N[:, None]).T @ columns + np.diag(ridge)
        step = np.linalg.solve(curve, slope)
        weights = weights + np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-6:
            break
    category_R = np.zeros(ROWS)
    category_R[seen] = np.where(seen > 0, weights[n_common:], 0.0)
    return weights[:n_common], category_R
