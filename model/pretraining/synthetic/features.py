"""The stored feature columns of a synthetic shop: stock, orders, money, returns, clicks.

Axes: T = buckets, S = series, F = stored features, L = lags.
"""

import numpy as np

from model.contract import FEATURE_NAMES
from model.inputs.carried_statistics import (
    CARTS,
    ORDERS,
    PURCHASES,
    RETURNS,
    REVENUE,
    STOCK,
    STOCKOUT_SHARE,
    UNITS,
    VIEWS,
    VISITORS,
)
from model.pretraining.synthetic.demand import Demand
from model.pretraining.synthetic.draws import Floats, log_uniform, magnitude, normal, some

_REMOVES = FEATURE_NAMES.index("removes")


def stored_features(
    rng: np.random.Generator, demand: Demand, rate_TS: Floats, paid_TS: Floats
) -> Floats:
    """Features [T, S, F] of a demand with the expected units `rate_TS`, at the prices `paid_TS`.

    Many shops have units alone; some have orders, revenue and returns, some clicks, some stock.
    """
    values_TSF = np.zeros((*rate_TS.shape, len(FEATURE_NAMES)), np.float32)
    units_TS = demand.units_TS
    sells, clicks = some(rng, 0.6), some(rng, 0.35)
    if demand.whole and some(rng, 0.35 if sells else 0.1):
        units_TS, stock_TS, share_TS = _sold(rng, units_TS)
        if some(rng, 0.8):  # else the stock is not known
            values_TSF[:, :, STOCK], values_TSF[:, :, STOCKOUT_SHARE] = stock_TS, share_TS
    values_TSF[:, :, UNITS] = units_TS
    orders_TS = np.where(units_TS > 0, np.minimum(demand.orders_TS, np.ceil(units_TS)), 0.0)
    if sells:
        _money(rng, values_TSF, orders_TS, paid_TS, whole=demand.whole)
    if clicks:
        _clicks(rng, values_TSF, orders_TS, rate_TS * _share(orders_TS, units_TS))
    return values_TSF


def _share(orders_TS: Floats, units_TS: Floats) -> Floats:
    """Orders a unit [S]."""
    share_S: Floats = orders_TS.sum(axis=0) / np.maximum(units_TS.sum(axis=0), 1e-6)
    return share_S


def _sold(rng: np.random.Generator, wanted_TS: Floats) -> tuple[Floats, Floats, Floats]:
    """Units sold from a stock that is ordered in time or late, stock plus one, share sold out.

    The reorder point follows the sales, so a stock-out is likelier when the demand rises.
    """
    steps, series = wanted_TS.shape
    lead_S = np.rint(log_uniform(rng, (1.0, max(steps / 40, 2.0)), series)).astype(np.int64)
    cover_S = magnitude(rng, (1.0, 6.0)) * log_uniform(rng, (0.5, 3.0), series)
    late_TS = rng.random(wanted_TS.shape, dtype=np.float32) < rng.uniform(0.0, 0.3)
    due_TS = np.zeros((steps + 4 * int(lead_S.max()) + 2, series), np.float32)
    sold_TS, share_TS = wanted_TS.copy(), np.zeros_like(wanted_TS)
    stock_TS = np.empty_like(wanted_TS)
    usual_S = wanted_TS[: max(steps // 10, 1)].mean(axis=0)
    hand_S = np.ceil(usual_S * lead_S * (1.0 + cover_S)) + 1.0
    coming_S = np.zeros(series, np.float32)
    every = np.arange(series)
    for t in range(steps):
        hand_S += due_TS[t]
        coming_S -= due_TS[t]
        wanted_S = wanted_TS[t]
        short_S = np.maximum(wanted_S - hand_S, 0.0)
        share_TS[t] = np.where(hand_S > 0, short_S / np.maximum(wanted_S, 1.0), 1.0)
        sold_TS[t] = wanted_S - short_S
        hand_S -= sold_TS[t]
        stock_TS[t] = hand_S
        usual_S += (sold_TS[t] - usual_S) * 0.05
        point_S = np.maximum(usual_S * lead_S * np.minimum(cover_S, 1.5), 0.5)
        amount_S = np.where(
            hand_S + coming_S < point_S, np.ceil(usual_S * lead_S * (1.0 + cover_S)) + 1.0, 0.0
        )
        coming_S += amount_S
        due_TS[t + lead_S * np.where(late_TS[t], 4, 1), every] += amount_S
    return sold_TS, stock_TS + 1.0, share_TS


def _money(
    rng: np.random.Generator,
    values_TSF: Floats,
    orders_TS: Floats,
    paid_TS: Floats,
    *,
    whole: bool,
) -> None:
    """Orders, returns some time after the sales, revenue net of them; in place."""
    units_TS = values_TSF[:, :, UNITS]
    values_TSF[:, :, ORDERS] = orders_TS
    returned_TS = np.zeros_like(units_TS)
    if whole and some(rng, 0.5):
        rate_S = magnitude(rng, (0.005, 0.3)) * log_uniform(rng, (0.5, 2.0), units_TS.shape[1])
        lag = int(rng.integers(1, max(len(units_TS) // 20, 2) + 1))
        back_TS = (_later(units_TS, lag) + _later(units_TS, lag // 2) + _later(units_TS, 1)) / 3.0
        returned_TS = rng.poisson(np.minimum(rate_S, 0.5) * back_TS).astype(np.float32)
    values_TSF[:, :, RETURNS] = returned_TS
    if some(rng, 0.85):
        # revenue is net, and the store's columns are never negative in a bucket of sales
        values_TSF[:, :, REVENUE] = np.maximum(units_TS - returned_TS, 0.0) * paid_TS


def _later(values_TS: Floats, lag: int) -> Floats:
    """The values `lag` buckets before each."""
    moved_TS = np.zeros_like(values_TS)
    moved_TS[lag:] = values_TS[: len(values_TS) - lag]
    return moved_TS


def _clicks(
    rng: np.random.Generator, values_TSF: Floats, orders_TS: Floats, lines_TS: Floats
) -> None:
    """Visitors, views, carts, removes and purchases around the order lines expected; in place.

    The interest leads the orders by some buckets, so clicks say more than past sales do.
    """
    steps, series = lines_TS.shape
    lead = int(magnitude(rng, (1.0, max(steps / 60, 1.5))))
    ahead_TS = np.concatenate((lines_TS[lead:], np.repeat(lines_TS[-1:], lead, axis=0)))
    share = rng.uniform(0.1, 0.8)
    error = rng.uniform(0.02, 0.3) * normal(rng, lines_TS.shape)
    converts_S = magnitude(rng, (0.01, 0.3)) * log_uniform(rng, (0.5, 2.0), series)
    looks_TS = ((1.0 - share) * lines_TS + share * ahead_TS) * np.exp(error) / converts_S
    visitors_TS = rng.poisson(np.minimum(looks_TS, 1e7)).astype(np.float32)
    visitors_TS = np.maximum(visitors_TS, orders_TS)
    again = rng.uniform(0.0, 1.5)
    values_TSF[:, :, VISITORS] = visitors_TS
    values_TSF[:, :, VIEWS] = visitors_TS + rng.poisson(again * visitors_TS)
    carts_TS = orders_TS + rng.poisson(rng.uniform(0.02, 0.15) * visitors_TS).astype(np.float32)
    values_TSF[:, :, CARTS] = carts_TS
    values_TSF[:, :, _REMOVES] = rng.poisson(rng.uniform(0.05, 0.4) * (carts_TS - orders_TS))
    values_TSF[:, :, PURCHASES] = orders_TS
