"""Stock of a simulated shop: serves orders, reorders at a low level, and schedules returns.

Deliveries take the supplier's lead time, and one in five is late, so that products sell out.

Axes: S = products, K = order lines of one hour, sorted by time.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS
from stream.jobs.simulate.demand import MEAN_QUANTITY, Assortment

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_REORDER_BELOW: Final = 0.6
_LATE: Final = 0.2
_RETURNED: Final = 0.05


@dataclass(frozen=True, slots=True)
class Return:
    """Returned units, at the price of the sale."""

    at_ms: int
    product: int
    quantity: int
    price: float


class Stock:
    """Units on hand and on order for every product."""

    def __init__(self, rng: np.random.Generator, assortment: Assortment) -> None:
        self._skus = assortment.skus
        self.lead_days_S = rng.integers(2, 15, len(self._skus))
        daily_S = assortment.rate_S * MEAN_QUANTITY * 24
        self._target_S = np.ceil(daily_S * (self.lead_days_S + 7) + 3).astype(np.int64)
        self.on_hand_S = self._target_S.copy()
        self._on_order_S = np.zeros(len(self._skus), np.int64)
        self._deliveries: list[tuple[int, int, int]] = []
        self._returns: list[Return] = []
        self._published_SX = np.full((len(self._skus), 2), -1, np.int64)

    def receive(self, hour_ms: int) -> None:
        """Add the deliveries due by this hour to the stock."""
        later = []
        for delivery in self._deliveries:
            due_ms, product, units = delivery
            if due_ms > hour_ms:
                later.append(delivery)
            else:
                self.on_hand_S[product] += units
                self._on_order_S[product] -= units
        self._deliveries = later

    def serve(self, product_K: Ints, quantity_K: Ints) -> Flags:
        """Take order lines from the stock in order; True for each line served in full."""
        left = self.on_hand_S.tolist()
        served = []
        for product, quantity in zip(product_K.tolist(), quantity_K.tolist(), strict=True):
            enough = left[product] >= quantity
            left[product] -= quantity * enough
            served.append(enough)
        self.on_hand_S = np.array(left, np.int64)
        return np.array(served, np.bool_)

    def reorder(self, rng: np.random.Generator, hour_ms: int) -> None:
        """Order products up to the target if stock and open orders are below the threshold."""
        low_S = self.on_hand_S + self._on_order_S < self._target_S * _REORDER_BELOW
        for product in np.flatnonzero(low_S).tolist():
            have = self.on_hand_S[product] + self._on_order_S[product]
            units = int(self._target_S[product] - have)
            days = int(self.lead_days_S[product])
            if rng.random() < _LATE:
                days += int(rng.integers(3, 15))
            self._on_order_S[product] += units
            self._deliveries.append((hour_ms + days * DAY_MS, product, units))

    def plan_returns(
        self, rng: np.random.Generator, ts_K: Ints, product_K: Ints, quantity_K: Ints,
        price_K: NDArray[np.float64],
    ) -> None:  # fmt: skip
        """Schedule returns of some sold lines within ten days."""
        for row in np.flatnonzero(rng.random(len(ts_K)) < _RETURNED).tolist():
            at_ms = int(ts_K[row]) + int(rng.uniform(1, 10) * DAY_MS)
            back = Return(at_ms, int(product_K[row]), int(quantity_K[row]), float(price_K[row]))
            self._returns.append(back)

    def returned(self, before_ms: int) -> list[Return]:
        """Pop the returns due before a time, oldest first; they are not sold again."""
        due = sorted((r for r in self._returns if r.at_ms < before_ms), key=lambda r: r.at_ms)
        self._returns = [r for r in self._returns if r.at_ms >= before_ms]
        return due

    def changes(self, at_ms: int) -> list[dict[str, Any]]:
        """Inventory records of products whose stock or open orders changed since the last call."""
        now_SX = np.stack([self.on_hand_S, self._on_order_S], axis=1)
        changed = np.flatnonzero((now_SX != self._published_SX).any(axis=1)).tolist()
        self._published_SX = now_SX
        return [
            {
                "sku": self._skus[product],
                "ts": at_ms,
                "on_hand": int(self.on_hand_S[product]),
                "on_order": int(self._on_order_S[product]),
                "lead_time_days": int(self.lead_days_S[product]),
            }
            for product in changed
        ]
