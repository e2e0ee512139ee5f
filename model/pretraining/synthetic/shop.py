"""A synthetic shop: the demand of all its series in one history, from a seed.

A shop has a kind, and a random character within it: how dense and how noisy its series are, when it
is open, its seasons, holidays and promotions, how its levels move, what it records. Networks learn
from thousands of such shops before they see a real one. No real data set was used for the priors.

Axes: C = cells, T = buckets, S = series, F = stored features, G = categories, P = plan columns.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from model.contract import STOCK_NAMES
from model.history import History
from model.inputs.plans import Plans
from model.inputs.static_features import N_STATIC, row_of, static_row
from model.pretraining.synthetic.campaigns import draw_campaigns, plans_by_bucket
from model.pretraining.synthetic.clock import make_clock
from model.pretraining.synthetic.demand import draw_demand
from model.pretraining.synthetic.draws import Floats, Ints, magnitude, normal, some
from model.pretraining.synthetic.features import stored_features
from model.pretraining.synthetic.kinds import Kind, draw_kind
from model.pretraining.synthetic.level import level_log, life, noise_log
from model.pretraining.synthetic.week import weekly_rate
from model.pretraining.synthetic.year import annual_log, holiday_effect, month_log

#: Least and greatest expected units of a series in a bucket.
DENSITY: Final = (0.01, 10_000.0)
_LOG_LIMIT: Final = 6.0


@dataclass(frozen=True, slots=True)
class SyntheticShop:
    """One shop; the series of `history` end with its roll-ups, if it has any.

    `country` is a code of the `holidays` package, or None if it is not known or has no effect.
    """

    history: History
    country: str | None
    steady: bool = False


def synthetic_shop(*, bucket_ms: int, buckets: int, series: int, seed: int) -> SyntheticShop:
    """Draw the shop of a seed, with `series` series (roll-ups included) in `buckets` buckets.

    Buckets are whole minutes that divide a day, whole days, or nominal months
    (`model.durations.MONTH_MS`). Raises InvalidValues for other widths, or fewer
    than 2 buckets or 1 series.

    >>> shop = synthetic_shop(bucket_ms=3_600_000, buckets=336, series=5, seed=1)
    >>> shop.history.values_TSF.shape, len(shop.history.series)
    ((336, 5, 11), 5)
    >>> again = synthetic_shop(bucket_ms=3_600_000, buckets=336, series=5, seed=1)
    >>> bool((again.history.values_TSF == shop.history.values_TSF).all())
    True
    """
    rng = np.random.default_rng(seed)
    clock = make_clock(rng, bucket_ms=bucket_ms, buckets=buckets)
    kind = draw_kind(rng)
    categories, rollups = _layout(rng, series)
    plain = series - rollups
    category_S = np.sort(rng.integers(0, categories, plain))
    price_S = np.round(magnitude(rng, (0.5, 200.0)) * np.exp(0.7 * normal(rng, (plain,))), 2)
    price_S = np.maximum(price_S, 0.01)

    holidays = holiday_effect(rng, kind, clock, plain)
    campaigns = draw_campaigns(rng, kind, clock, category_S, price_S)
    month_CS = month_log(rng, clock, plain) * (0.3 if kind.steady else 1.0)
    season_CS = np.exp(annual_log(rng, kind, clock, category_S) + month_CS)
    season_CS *= weekly_rate(rng, kind, clock, plain, holidays.off_C)
    season_CS *= holidays.rate_CS * campaigns.rate_CS
    log_TS = level_log(rng, kind, clock, plain) + noise_log(rng, kind, clock, plain)
    rate_TS = np.exp(np.clip(log_TS, -_LOG_LIMIT, _LOG_LIMIT)) * life(rng, kind, clock, plain)
    rate_TS *= clock.mean(season_CS) * _density(rng, kind, plain)

    demand = draw_demand(rng, kind, rate_TS, days=1.0 / clock.buckets_per_day)
    cells_T1 = clock.mean(np.ones((clock.cells, 1), np.float32))
    paid_TS = price_S * clock.mean(campaigns.paid_CS) / cells_T1
    values_TSF = stored_features(rng, demand, rate_TS, paid_TS)
    plan_TSP = plans_by_bucket(clock, campaigns.plan_CSP)
    names = [f"S{number:05d}" for number in range(plain)]
    static_SX = _static(rng, seed, category_S, price_S)
    if rollups:
        sums_TRF = _sums(values_TSF, category_S, rollups)
        values_TSF = np.concatenate((values_TSF, sums_TRF), axis=1)
        wider_CRP = np.concatenate(
            (campaigns.total_CP[:, None], campaigns.category_CGP[:, : rollups - 1]), axis=1
        )
        plan_TSP = np.concatenate((plan_TSP, plans_by_bucket(clock, wider_CRP)), axis=1)
        names += ["total", *(f"category:{_name(seed, c)}" for c in range(rollups - 1))]
        wider_RX = np.zeros((rollups, N_STATIC), np.float32)
        if static_SX[:, 0].any():
            wider_RX[1:, 0] = [row_of("category", _name(seed, c)) for c in range(rollups - 1)]
        static_SX = np.concatenate((static_SX, wider_RX))
    history = History(
        values_TSF, clock.start_ms, bucket_ms, names, static_SX, Plans.from_dense(plan_TSP)
    )
    return SyntheticShop(history, holidays.country, kind.steady)


def _layout(rng: np.random.Generator, series: int) -> tuple[int, int]:
    """Number of categories, and of the roll-ups among `series`: none, the total, or all."""
    categories = int(rng.integers(1, 2 + min(series // 4, 12)))
    if series < 4 or some(rng, 0.25):
        return categories, 0
    return categories, 1 if some(rng, 0.3) else 1 + categories


def _density(rng: np.random.Generator, kind: Kind, series: int) -> Floats:
    """Expected units of each series [S] in a bucket: the shop's median, times a wide spread."""
    median = 10.0 ** rng.uniform(*kind.density)
    spread_S = 10.0 ** (rng.uniform(0.15, 0.8) * normal(rng, (series,)))
    density_S: Floats = np.clip(median * spread_S, *DENSITY).astype(np.float32)
    return density_S


def _name(seed: int, category: int) -> str:
    """Name of a category; shops share none, but embeddings may."""
    return f"c{seed}-{category}"


def _static(rng: np.random.Generator, seed: int, category_S: Ints, price_S: Floats) -> Floats:
    """Static features [S, X]: category and list price, where the catalog has them."""
    named, priced = some(rng, 0.7), some(rng, 0.6)
    return np.stack(
        [
            static_row(
                category=_name(seed, category) if named else None,
                list_price=price if priced else None,
            )
            for category, price in zip(category_S.tolist(), price_S.tolist(), strict=True)
        ]
    )


def _sums(values_TSF: Floats, category_S: Ints, rollups: int) -> Floats:
    """Roll-ups [T, R, F], `total` first: sums of series; the stock of a roll-up is unknown."""
    member_RS = np.ones((rollups, len(category_S)), np.float32)
    member_RS[1:] = category_S == np.arange(rollups - 1)[:, None]
    sums_TRF: Floats = np.matmul(member_RS, values_TSF)
    sums_TRF[:, :, -len(STOCK_NAMES) :] = 0.0
    return sums_TRF
