"""A simulated shop, hour by hour: records of the input topics, and the true demand behind them.

Combines demand (`stream.jobs.simulate.demand`) with stock (`stream.jobs.simulate.stock`). The truth
is the rate of each product and the units demanded, sold and lost. The same arguments give the same
hours.

Axes: S = products, K = order lines or clicks of one hour.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.durations import DAY_MS, HOUR_MS
from stream.jobs.simulate.demand import MEAN_QUANTITY, Assortment, Campaigns
from stream.jobs.simulate.stock import Return, Stock

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_VIEWS: Final = 3.0  # people who view but do not buy, per order line of demand


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour: events sorted by time, records of the compacted topics, truth per product.

    Truth columns: `start_ms, sku, rate` (order lines per hour), `demand, sold, lost, returned,
    on_hand` (units, the last at the end of the hour), `price, discount, spike`.
    """

    start_ms: int
    orders: pl.DataFrame
    clicks: pl.DataFrame
    catalog: list[dict[str, Any]]
    inventory: list[dict[str, Any]]
    plans: list[dict[str, Any]]
    truth: pl.DataFrame


@dataclass(frozen=True, slots=True)
class _Lines:
    """Order lines [K], sorted by time."""

    ts_K: Ints
    product_K: Ints
    quantity_K: Ints

    def where(self, chosen_K: NDArray[np.bool_]) -> "_Lines":
        return _Lines(self.ts_K[chosen_K], self.product_K[chosen_K], self.quantity_K[chosen_K])

    def units(self, products: int) -> Ints:
        total_S = np.zeros(products, np.int64)
        np.add.at(total_S, self.product_K, self.quantity_K)
        return total_S


class Shop:
    """A shop of `products` products that opens at `start_ms`, rounded down to the hour."""

    def __init__(self, *, seed: int, products: int, orders_per_hour: float, start_ms: int) -> None:
        self.clock_ms = start_ms // HOUR_MS * HOUR_MS
        self._seed = seed
        self.assortment = Assortment(
            seed=seed, products=products, orders_per_hour=orders_per_hour, start_ms=self.clock_ms
        )
        self.stock = Stock(np.random.default_rng([seed, 1]), self.assortment)
        self.campaigns = Campaigns(self.assortment)

    def next_hour(self) -> Hour:
        """Simulate the next hour."""
        start_ms, shop, stock = self.clock_ms, self.assortment, self.stock
        rng = np.random.default_rng([self._seed, 2, start_ms // HOUR_MS])
        opening = start_ms == shop.start_ms
        plans = []
        if opening or start_ms % DAY_MS == 0:
            plans = self.campaigns.draw_day(rng, start_ms)
        stock.receive(start_ms)
        rate_S, discount_S, spike_S = self.campaigns.apply(start_ms, shop.usual_rate(start_ms))
        price_S = np.round(shop.price_S * (1 - discount_S), 2)
        demand = _draw_demand(rng, rate_S, start_ms)
        sold = demand.where(stock.serve(demand.product_K, demand.quantity_K))
        stock.plan_returns(rng, sold.ts_K, sold.product_K, sold.quantity_K, price_S[sold.product_K])
        stock.reorder(rng, start_ms)
        back = stock.returned(start_ms + HOUR_MS)
        self.clock_ms = start_ms + HOUR_MS
        n = len(shop.skus)
        demand_S, sold_S = demand.units(n), sold.units(n)
        back_S = np.bincount([r.product for r in back], [r.quantity for r in back], n)
        truth = pl.DataFrame(
            {
                "start_ms": np.full(n, start_ms),
                "sku": shop.skus,
                "rate": rate_S,
                "demand": demand_S,
                "sold": sold_S,
                "lost": demand_S - sold_S,
                "returned": back_S.astype(np.int64),
                "on_hand": stock.on_hand_S.copy(),  # polars may keep the array itself
                "price": price_S,
                "discount": discount_S,
                "spike": spike_S,
            }
        )
        return Hour(
            start_ms=start_ms,
            orders=self._orders(sold, price_S, back, start_ms),
            clicks=self._clicks(rng, sold, rate_S, price_S, start_ms),
            catalog=[shop.catalog(product) for product in shop.launched(start_ms)],
            inventory=stock.changes(self.clock_ms),
            plans=plans,
            truth=truth,
        )

    def _orders(
        self, sold: _Lines, price_S: Floats, back: list[Return], start_ms: int
    ) -> pl.DataFrame:
        lines = pl.DataFrame(
            {
                "ts": np.concatenate([sold.ts_K, np.array([r.at_ms for r in back], np.int64)]),
                "sku": self._named([*sold.product_K.tolist(), *(r.product for r in back)]),
                "quantity": np.concatenate(
                    [sold.quantity_K, np.array([-r.quantity for r in back], np.int64)]
                ),
                "unit_price": np.concatenate(
                    [price_S[sold.product_K], np.array([r.price for r in back], np.float64)]
                ),
            }
        )
        return _numbered(lines, f"o-{start_ms // HOUR_MS}-")

    def _clicks(
        self, rng: np.random.Generator, sold: _Lines, rate_S: Floats, price_S: Floats,
        start_ms: int,
    ) -> pl.DataFrame:  # fmt: skip
        """Buyers view, fill the cart and purchase; others only view, even sold-out products."""
        viewed_K = np.repeat(np.arange(len(rate_S)), rng.poisson(rate_S * _VIEWS))
        viewed_at_K = start_ms + rng.integers(0, HOUR_MS, len(viewed_K))
        n_sold, hour = len(sold.ts_K), start_ms // HOUR_MS
        cart_at_K = np.maximum(sold.ts_K - rng.integers(5_000, 120_000, n_sold), start_ms)
        view_at_K = np.maximum(cart_at_K - rng.integers(10_000, 900_000, n_sold), start_ms)
        product_K = np.concatenate([sold.product_K, viewed_K, sold.product_K, sold.product_K])
        buyers = [f"v-{hour}-b{row}" for row in range(n_sold)]
        others = [f"v-{hour}-o{row}" for row in range(len(viewed_K))]
        views = ["view"] * (n_sold + len(viewed_K))
        clicks = pl.DataFrame(
            {
                "ts": np.concatenate([view_at_K, viewed_at_K, cart_at_K, sold.ts_K]),
                "sku": self._named(product_K.tolist()),
                "action": _text([*views, *["cart"] * n_sold, *["purchase"] * n_sold]),
                "visitor_id": _text([*buyers, *others, *buyers, *buyers]),
                "price": price_S[product_K],
            }
        )
        return _numbered(clicks, f"k-{hour}-")

    def _named(self, products: list[int]) -> pl.Series:
        return _text([self.assortment.skus[product] for product in products])


def _draw_demand(rng: np.random.Generator, rate_S: Floats, start_ms: int) -> _Lines:
    """Draw the hour's demand: Poisson numbers of lines, geometric quantities."""
    product_K = np.repeat(np.arange(len(rate_S)), rng.poisson(rate_S))
    ts_K = start_ms + rng.integers(0, HOUR_MS, len(product_K))
    quantity_K = rng.geometric(1 / MEAN_QUANTITY, len(product_K))
    order_K = np.argsort(ts_K, kind="stable")
    return _Lines(ts_K[order_K], product_K[order_K], quantity_K[order_K])


def _numbered(events: pl.DataFrame, prefix: str) -> pl.DataFrame:
    """Sort events by time and add an `event_id`."""
    ids = _text([f"{prefix}{row}" for row in range(events.height)])
    return events.sort("ts", maintain_order=True).insert_column(0, ids.alias("event_id"))


def _text(values: list[str]) -> pl.Series:
    return pl.Series(values=values, dtype=pl.String)
