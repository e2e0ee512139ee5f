"""Demand of a simulated shop: products, seasons, launches, promotions, spikes.

The demand of a product is a Poisson rate of order lines per hour: its popularity, the hour and
weekday, the season of its category, a ramp after its launch, promotions announced days ahead, and
unannounced spikes. Everything follows from the seed.

Axis: S = products.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS, HOUR_MS

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

CATEGORIES: Final = ("bags", "garden", "kitchen", "lighting", "stationery", "toys")
#: Average units per order line.
MEAN_QUANTITY: Final = 1.6

_BY_HOUR: Final = np.array(
    [3, 2, 1, 1, 1, 2, 6, 14, 26, 36, 42, 44, 46, 42, 40, 40, 42, 46, 54, 62, 66, 56, 34, 12]
)
_BY_WEEKDAY: Final = np.array([1.0, 0.95, 0.95, 1.0, 1.1, 1.25, 1.15])  # Monday first
_ANNOUNCED_DAYS: Final = 3
_PROMOTED_A_DAY: Final = 1 / 60
_SPIKING_A_DAY: Final = 1 / 120
_NEW: Final = 0.1
_RAMP_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Campaign:
    """A promotion, or a spike (no `plan_id`, no discount). `uplift` multiplies the rate."""

    plan_id: str
    product: int
    start_ms: int
    end_ms: int
    discount: float
    uplift: float


class Assortment:
    """Products of a shop that opens at `start_ms` with a demand of `orders_per_hour` lines.

    >>> shop = Assortment(seed=1, products=3, orders_per_hour=10.0, start_ms=0)
    >>> shop.skus
    ['S00000', 'S00001', 'S00002']
    >>> round(float(shop.rate_S.sum()), 6)
    10.0
    """

    def __init__(self, *, seed: int, products: int, orders_per_hour: float, start_ms: int) -> None:
        rng = np.random.default_rng([seed, 0])
        self.start_ms = start_ms
        self.skus = [f"S{number:05d}" for number in range(products)]
        popularity_S = rng.permutation(1 / np.arange(1, products + 1) ** 0.8)
        self.rate_S: Floats = popularity_S / popularity_S.sum() * orders_per_hour
        self.category_S = rng.integers(0, len(CATEGORIES), products)
        self.phase_S = rng.uniform(0, 1, len(CATEGORIES))[self.category_S]
        self.price_S: Floats = np.round(np.exp(rng.normal(2.2, 0.8, products)) + 0.01, 2)
        days_S = np.where(rng.random(products) < _NEW, rng.integers(1, 120, products), 0)
        self.launched_ms_S = start_ms + days_S * DAY_MS

    def launched(self, hour_ms: int) -> list[int]:
        """Products launched in the hour; at the opening, all launched by then."""
        if hour_ms == self.start_ms:
            return np.flatnonzero(self.launched_ms_S <= hour_ms).tolist()
        return np.flatnonzero(self.launched_ms_S == hour_ms).tolist()

    def catalog(self, product: int) -> dict[str, Any]:
        """Catalog entry of a product."""
        return {
            "sku": self.skus[product],
            "category": CATEGORIES[self.category_S[product]],
            "price": float(self.price_S[product]),
            "launched_at": int(self.launched_ms_S[product]),
        }

    def usual_rate(self, hour_ms: int) -> Floats:
        """Expected order lines of the hour [S], without campaigns."""
        day = hour_ms // DAY_MS
        clock = _BY_HOUR[hour_ms // HOUR_MS % 24] / _BY_HOUR.mean()
        weekday = _BY_WEEKDAY[(day + 3) % 7] / _BY_WEEKDAY.mean()  # day 0 was a Thursday
        season_S = 1 + 0.4 * np.sin(2 * np.pi * (day / 365.25 + self.phase_S))
        age_days_S = (hour_ms - self.launched_ms_S) / DAY_MS
        ramp_S = 1 - np.exp(-np.maximum(age_days_S + 1, 0) / _RAMP_DAYS)
        ramp_S[self.launched_ms_S <= self.start_ms] = 1.0
        rate_S: Floats = self.rate_S * clock * weekday * season_S * ramp_S * (age_days_S >= 0)
        return rate_S


class Campaigns:
    """Promotions and spikes, drawn day by day."""

    def __init__(self, assortment: Assortment) -> None:
        self._assortment = assortment
        self.known: list[Campaign] = []

    def draw_day(self, rng: np.random.Generator, day_ms: int) -> list[dict[str, Any]]:
        """Draw a day's spikes and newly announced promotions; return the promotions as plans."""
        n = len(self._assortment.skus)
        plans = []
        for product in np.flatnonzero(rng.random(n) < _PROMOTED_A_DAY).tolist():
            start_ms = day_ms + _ANNOUNCED_DAYS * DAY_MS + int(rng.integers(0, 24)) * HOUR_MS
            discount = float(rng.choice([0.1, 0.2, 0.3]))
            sku = self._assortment.skus[product]
            campaign = Campaign(
                plan_id=f"promotion-{sku}-{start_ms // HOUR_MS}",
                product=product,
                start_ms=start_ms,
                end_ms=start_ms + int(rng.integers(1, 6)) * DAY_MS,
                discount=discount,
                uplift=(1 - discount) ** -float(rng.uniform(2, 4)),
            )
            self.known.append(campaign)
            plans.append(
                {
                    "plan_id": campaign.plan_id,
                    "kind": "promotion",
                    "start": start_ms,
                    "end": campaign.end_ms,
                    "sku": sku,
                    "value": discount,
                }
            )
        for product in np.flatnonzero(rng.random(n) < _SPIKING_A_DAY).tolist():
            start_ms = day_ms + int(rng.integers(0, 24)) * HOUR_MS
            end_ms = start_ms + int(rng.integers(2, 9)) * HOUR_MS
            self.known.append(
                Campaign("", product, start_ms, end_ms, 0.0, float(rng.uniform(5, 15)))
            )
        return plans

    def apply(self, hour_ms: int, rate_S: Floats) -> tuple[Floats, Floats, Flags]:
        """Rates under the campaigns of the hour, discounts (shares), and spikes; each [S]."""
        self.known = [campaign for campaign in self.known if campaign.end_ms > hour_ms]
        lifted_S = rate_S.copy()
        discount_S = np.zeros(len(rate_S))
        spike_S = np.zeros(len(rate_S), np.bool_)
        for campaign in self.known:
            if campaign.start_ms <= hour_ms:
                product = campaign.product
                lifted_S[product] *= campaign.uplift
                discount_S[product] = max(discount_S[product], campaign.discount)
                spike_S[product] |= not campaign.plan_id
        return lifted_S, discount_S, spike_S
