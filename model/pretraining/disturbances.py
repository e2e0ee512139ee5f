"""What the real world adds to a synthetic shop: shocks, events, and causes nobody recorded.

A network that learned from shops whose every promotion and holiday is known would be too sure of
itself in a shop that records none. Demand is multiplied, for all series alike and for each alone,
by noise with heavy tails and by rare events of a few days; plans and country are often hidden.

Axes: T = buckets, D = days or buckets, S = series, F = stored features.
"""

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.contract import SUM_NAMES
from model.durations import DAY_MS
from model.inputs.carried_statistics import REVENUE, UNITS
from model.pretraining.synthetic.shop import SyntheticShop

#: Share of the shops whose plans, and whose country, are unknown.
_NO_PLANS: Final = 0.6
_NO_COUNTRY: Final = 0.4
#: Greatest standard deviation of the log of a shock, of the whole shop and of one series.
_COMMON: Final = 0.10
_OWN: Final = 0.10
_FREEDOM: Final = 4
#: Share of the days on which an event begins, and the deviation of its log factor.
_EVENTS: Final = 0.01
_EVENT: Final = 0.35
_EVENT_DAYS: Final = 4
#: Shocks and events of a steady shop, as a share of those of another.
_STEADY: Final = 0.4


def disturbed(shop: SyntheticShop, seed: int) -> SyntheticShop:
    """The shop with shocks and events, and with its plans or country hidden by chance.

    >>> from model.pretraining.synthetic.shop import synthetic_shop
    >>> shop = synthetic_shop(bucket_ms=DAY_MS, buckets=60, series=4, seed=1)
    >>> first, again = disturbed(shop, 2), disturbed(shop, 2)
    >>> bool((first.history.values_TSF == again.history.values_TSF).all())
    True
    """
    rng = np.random.default_rng([seed, 1])
    history = shop.history
    values_TSF = history.values_TSF.copy()
    share = _STEADY if shop.steady else 1.0
    factor_TS = _factors(rng, len(values_TSF), values_TSF.shape[1], history.bucket_ms, share=share)
    sums = len(SUM_NAMES)
    units_TS = values_TSF[:, :, UNITS].copy()
    values_TSF[:, :, :sums] *= factor_TS[:, :, None]
    if bool((units_TS % 1 == 0).all()):
        counts = [place for place, name in enumerate(SUM_NAMES) if name != "revenue"]
        values_TSF[:, :, counts] = np.floor(
            values_TSF[:, :, counts] + rng.random((*factor_TS.shape, 1), np.float32)
        )
    # prices stay as they are
    made_TS = values_TSF[:, :, UNITS] / np.maximum(units_TS, 1e-6)
    revenue_TS = history.values_TSF[:, :, REVENUE] * np.where(units_TS > 0, made_TS, 1.0)
    values_TSF[:, :, REVENUE] = revenue_TS
    plans = None if rng.random() < _NO_PLANS else history.plans
    country = None if rng.random() < _NO_COUNTRY else shop.country
    disturbed_history = replace(history, values_TSF=values_TSF, plans=plans)
    return SyntheticShop(disturbed_history, country, shop.steady)


def _factors(
    rng: np.random.Generator, buckets: int, series: int, bucket_ms: int, *, share: float
) -> NDArray[np.float32]:
    """Factors [T, S] of shocks by day (by bucket, if that is longer) and of events.

    `share` scales the shocks, and the number of the events.
    """
    per_day = max(1, DAY_MS // bucket_ms)
    days = -(-buckets // per_day)
    heavy = np.sqrt((_FREEDOM - 2) / _FREEDOM)
    common_D = share * rng.uniform(0, _COMMON) * heavy * rng.standard_t(_FREEDOM, days)
    for start in np.flatnonzero(rng.random(days) < share * _EVENTS).tolist():
        common_D[start : start + int(rng.integers(1, _EVENT_DAYS))] += rng.normal(0, _EVENT)
    own_S = share * rng.uniform(0, _OWN, series)
    own_DS = own_S * heavy * rng.standard_t(_FREEDOM, (days, series))
    log_DS = np.clip(common_D[:, None] + own_DS, -2.5, 2.5)
    factor_TS: NDArray[np.float32] = np.exp(log_DS).astype(np.float32).repeat(per_day, axis=0)
    return factor_TS[:buckets]
