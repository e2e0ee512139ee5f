"""Demand of products with no events yet: in the catalog, launched, but not yet seen.

Such a product has no carried statistics for the network to read. Its demand is Poisson around a
level that is constant over the horizon. The mean level is a Poisson regression on category, list
price and days since the launch, fitted on the actuals, over four weeks, of other products while
they were unseen. From 56 days on a product that never sold is forecast by the network, as zero. The
dispersion of levels, and the share that stays at zero, come from the same samples: separately for
the first days and for later ones, for single buckets and for the four weeks. The forecast before
the launch is zero.

A product without a launch date is never unseen: it may be an old one that is no longer sold.

Axes: N = samples or products, S = series, H = horizon, Q = quantiles, M = means of a table.
"""

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.config import ModelConfig
from model.durations import DAY_MS
from model.inputs import carried_statistics as at
from model.inputs.newcomer_prior import TRUNCATED_DAYS, YOUNG_DAYS, poisson
from model.inputs.static_features import CATEGORY, LAUNCH, LIST_PRICE, ROWS
from model.quantiles.coherence import make_coherent

Floats = NDArray[np.float32]
Reals = NDArray[np.float64]

#: Days after a launch at which products that are still unseen are sampled, or days before their
#: first event if the launch is unknown.
_AFTER: Final = (0, 1, 2, 4, 7, 14, 28)
_BEFORE: Final = (0, 1, 2, 4)
#: Up to this age the dispersion of levels is that of the first day; of products still unseen later,
#: span never sell and a few sell well.
_EARLY_DAYS: Final = 2
_AHEAD_DAYS: Final = 28
_MIN_AHEAD_DAYS: Final = 7
#: Means of the quantile table, which is interpolated linearly.
_MEANS_M: Final = np.geomspace(1e-3, 1e5, 49)
_LEVELS: Final = 64


class UnseenProductDemand(nn.Module):
    """Fitted levels and quantiles, stored as buffers; all zero (older checkpoints): no forecast."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.fitted: Tensor
        self.common: Tensor
        self.category_R: Tensor
        self.table_4MQ: Tensor
        self.register_buffer("fitted", torch.zeros(()))
        self.register_buffer("common", torch.zeros(4))
        self.register_buffer("category_R", torch.zeros(ROWS))
        shape = (4, len(_MEANS_M), len(config.quantiles))
        self.register_buffer("table_4MQ", torch.zeros(shape))

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *rest: Any
    ) -> None:  # fmt: skip
        for name, buffer in self.named_buffers():
            state_dict.setdefault(prefix + name, torch.zeros_like(buffer))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def write(
        self,
        stats_SK: Tensor,
        launch_day_S: Floats,
        *,
        origin_ms: int,
        units_SHQ: Floats,
        sums_SHQ: Floats,
        mean_SH: Floats,
        weights_LQ: Floats,
    ) -> None:
        """Replace the network's forecasts of unseen products, in place; sums are coherent.

        `weights_LQ` derive the published quantiles from the network's L own ones. `launch_day_S`
        are the launches of the first series in days since 1970, 0 = unknown.
        """
        launch_S = launch_day_S.astype(np.float64)
        age_S = origin_ms / DAY_MS - launch_S
        rows = np.flatnonzero((launch_S > 0) & (age_S < YOUNG_DAYS))
        if not rows.size or not self.fitted.item():
            return
        stats_NK = stats_SK[torch.from_numpy(rows).to(stats_SK.device)]
        unseen = (~at.started(stats_NK)).cpu().numpy()
        rows, age_N = rows[unseen], age_S[rows[unseen]]
        if not rows.size:
            return
        static_N2 = stats_NK[:, (CATEGORY, LIST_PRICE)].cpu().numpy()[unseen]
        level_N = self.level(static_N2[:, 0], static_N2[:, 1], age_N)
        ends_H = (1 + np.arange(self.config.horizon)) / self.config.buckets_per_day
        on_sale_NH = ends_H > -age_N[:, None] + 1e-3  # the day of a launch is a float32
        late_N = age_N > _EARLY_DAYS
        mean_SH[rows] = mean_NH = level_N[:, None] * on_sale_NH
        units_NHQ = self._quantiles(late_N, 0, mean_NH)
        passed_NH = on_sale_NH.cumsum(axis=1)
        sums_NHQ = self._quantiles(late_N, 1, level_N[:, None] * passed_NH)
        sums_NHQ = np.where(passed_NH[..., None] <= 1, units_NHQ, sums_NHQ)
        units_SHQ[rows] = published_NHQ = (units_NHQ @ weights_LQ).clip(min=0.0)
        sums_NHQ = sums_NHQ @ weights_LQ
        make_coherent(published_NHQ, sums_NHQ)
        sums_SHQ[rows] = sums_NHQ

    def level(self, category_N: Floats, list_price_N: Floats, age_days_N: Reals) -> Reals:
        """Mean demand [N] a bucket of products by category, list price and days since launch."""
        category_R, common = (part.cpu().numpy() for part in (self.category_R, self.common))
        log_N = (
            _regressors(list_price_N, age_days_N) @ common + category_R[category_N.astype(np.int64)]
        )
        level_N: Reals = np.exp(np.clip(log_N, -10.0, 12.0)) * _fade(age_days_N)
        return level_N

    def _quantiles(self, late_N: NDArray[np.bool_], which: int, mean_NH: Reals) -> Reals:
        quantiles_NHQ = np.zeros((*mean_NH.shape, len(self.config.quantiles)))
        for late, of_N in enumerate((~late_N, late_N)):
            table_MQ = self.table_4MQ[2 * late + which].cpu().numpy().astype(np.float64)
            columns = [np.interp(mean_NH[of_N], _MEANS_M, table_M) for table_M in table_MQ.T]
            quantiles_NHQ[of_N] = np.stack(columns, axis=-1)
        return np.where(mean_NH[..., None] > 0, quantiles_NHQ, 0.0)


def fit_unseen(
    unseen: UnseenProductDemand,
    values_TSF: Floats,
    static_SX: Floats,
    start_ms: int,
) -> None:
    """Fit on the days before the first events of the series of a history, in place.

    Without samples of unseen products, or without demand, it stays unfitted and forecasts nothing.
    """
    config = unseen.config
    slot_N, start_N, age_N = _sample_points(values_TSF, static_SX, start_ms, config)
    if not slot_N.size:
        return
    per_day = int(config.buckets_per_day)
    span = _AHEAD_DAYS * per_day
    ahead = [
        values_TSF[start : start + span, slot, at.UNITS].astype(np.float64)
        for slot, start in zip(slot_N.tolist(), start_N.tolist(), strict=True)
    ]
    total_N = np.array([part.sum() for part in ahead])
    length_N = np.array([len(part) for part in ahead])
    if not total_N.sum() > 0:
        return
    mean_N = total_N / length_N
    mean_N = np.minimum(mean_N, np.quantile(mean_N, 0.99)) / _fade(age_N)
    category_N = static_SX[slot_N, 0].astype(np.int64)
    price_N = static_SX[slot_N, 3]
    common, category_R = poisson(
        _regressors(price_N, age_N), category_N, mean_N, share=1.0 / len(_AFTER), ridge_of=0.5
    )
    with torch.no_grad():
        unseen.common.copy_(torch.from_numpy(common))
        unseen.category_R.copy_(torch.from_numpy(category_R))
    level_N = unseen.level(static_SX[slot_N, 0], price_N, age_N)
    near = min(config.horizon, _MIN_AHEAD_DAYS * per_day)
    near_N = np.concatenate([part[:near] for part in ahead])
    tables: list[Tensor] = []
    for of_age_N in (age_N <= _EARLY_DAYS, age_N > _EARLY_DAYS):
        if of_age_N.any():
            near_M = of_age_N.repeat(near)
            single_L = _levels(near_N[near_M], level_N.repeat(near)[near_M])
            whole_L = _levels(total_N[of_age_N], (level_N * length_N)[of_age_N])
            pair = [_table(levels_L, config.quantiles) for levels_L in (single_L, whole_L)]
        tables += pair
    with torch.no_grad():
        unseen.fitted.fill_(1.0)
        unseen.table_4MQ.copy_(torch.stack(tables))


def _regressors(list_price_N: Floats, age_days_N: Reals) -> Reals:
    """Regressors [N, 4] besides the category; price 0 = unknown."""
    priced_N = list_price_N > 0
    log_N = np.where(priced_N, np.log(np.clip(list_price_N, 1e-2, 1e5)), 0.0)
    return np.stack(
        (np.ones_like(log_N), priced_N, log_N, np.log1p(age_days_N.clip(0))),
        axis=-1, dtype=np.float64,
    )  # fmt: skip


def _fade(age_days_N: Reals) -> Reals:
    faded: Reals = np.clip(1 - age_days_N / YOUNG_DAYS, 0.0, 1.0)
    return faded


def _sample_points(
    values_TSF: Floats, static_SX: Floats, start_ms: int, config: ModelConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], Reals]:
    """Slot, bucket and days since launch of each sample of an unseen product."""
    buckets, per_day = len(values_TSF), int(config.buckets_per_day)
    active_TS = (values_TSF[:, :, at.UNITS] > 0) | (values_TSF[:, :, at.VIEWS] > 0)
    first_S = np.where(active_TS.any(axis=0), active_TS.argmax(axis=0), buckets)
    launch_S = np.round((static_SX[:, LAUNCH] * DAY_MS - start_ms) / config.bucket_ms)
    latest = buckets - _MIN_AHEAD_DAYS * per_day
    earliest = min(TRUNCATED_DAYS * per_day, buckets // 3)
    rows = []
    for slot, (first, launch) in enumerate(zip(first_S.tolist(), launch_S.tolist(), strict=True)):
        if 0 <= launch <= first:
            rows += [(slot, int(launch) + days * per_day, days, first) for days in _AFTER]
        elif static_SX[slot, LAUNCH] == 0 and earliest <= first < buckets:
            rows += [(slot, first - days * per_day, 0, first) for days in _BEFORE]
    kept = [row[:3] for row in rows if 0 <= row[1] <= min(row[3], latest)]
    columns = np.array(kept, np.int64).reshape(-1, 3).T
    return columns[0], columns[1], columns[2].astype(np.float64)


def _table(levels_L: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """Quantiles [M, Q] of Poisson counts around levels, by mean; linear between counts.

    >>> _table(_levels(np.ones(9), np.ones(9)), (0.5,))[[0, 30, -1], 0].round().tolist()
    [0.0, 99.0, 99999.0]
    """
    mean_M = torch.from_numpy(_MEANS_M)
    rate_ML = mean_M[:, None] * levels_L
    wanted_Q = torch.tensor(quantiles, dtype=torch.float64)
    low = torch.zeros(len(mean_M), len(quantiles), dtype=torch.float64)
    high = (rate_ML.max() + 10.0) * torch.ones_like(low)
    for _ in range(48):
        middle = (low + high) / 2
        grown_MQL = (middle[..., None] + 1.0).expand(-1, -1, _LEVELS)
        below = torch.special.gammaincc(grown_MQL, rate_ML[:, None].expand_as(grown_MQL))
        reached = below.mean(dim=-1) >= wanted_Q
        high, low = torch.where(reached, middle, high), torch.where(reached, low, middle)
    return high.where(high > 1e-6, 0.0).float()


def _levels(counts_N: Reals, mean_N: Reals) -> Tensor:
    """Equally likely levels [L] with mean 1: actuals in multiples of the expectation.

    Samples with an expectation below one unit have less weight: nearly all of them are zero.

    >>> _levels(np.array([0.0, 4.0]), np.array([2.0, 2.0]))[[0, -1]].tolist()
    [0.0, 2.0]
    """
    ratio_N = counts_N / np.maximum(mean_N, 1e-9)
    order = np.argsort(ratio_N, kind="stable")
    share_N = np.minimum(mean_N[order], 1.0).cumsum()
    wanted_L = (np.arange(_LEVELS) + 0.5) / _LEVELS * share_N[-1]
    at_L = np.searchsorted(share_N, wanted_L).clip(max=len(order) - 1)
    level_L = ratio_N[order][at_L]
    return torch.from_numpy(level_L / max(level_L.mean(), 1e-9))
