"""Small, seeded, synthetic order lines and catalogs for tests."""

import numpy as np
import polars as pl

from model.durations import HOUR_MS

#: A Monday, 2011-10-03T00:00Z.
START_MS = 1_317_600_000_000


def small_orders(
    n: int, *, seed: int = 0, skus: int = 20, hours: int = 48, start_ms: int = START_MS
) -> pl.DataFrame:
    """`n` order lines sorted by time over `hours`; one in twelve is a return."""
    rng = np.random.default_rng(seed)
    quantity = rng.geometric(0.3, n) * np.where(rng.random(n) < 1 / 12, -1, 1)
    names = np.array([f"{10_000 + i}{'AB'[i % 2]}" for i in range(skus)])
    popularity = 1 / np.arange(1, skus + 1)
    sku = rng.choice(names, n, p=popularity / popularity.sum())
    return pl.DataFrame(
        {
            "event_id": [f"o{seed}-{i}" for i in range(n)],
            "ts": np.sort(start_ms + rng.integers(0, hours * HOUR_MS, n)),
            "sku": sku,
            "quantity": quantity.astype(np.int64),
            "unit_price": rng.integers(1, 2_000, n) / 100,
            "order_id": [f"{100_000 + i // 5}" for i in range(n)],
            "customer_id": [f"{i}" if i % 4 else None for i in rng.integers(1, 60, n).tolist()],
        }
    )


def small_catalog(orders: pl.DataFrame) -> pl.DataFrame:
    """Three categories for the SKUs of the orders; every seventh SKU has none."""
    skus = orders["sku"].unique().sort().to_list()
    names = ("bags", "kitchen", "garden")
    categories = [None if i % 7 == 6 else names[i % 3] for i in range(len(skus))]
    return pl.DataFrame(
        {"sku": skus, "category": categories}, schema={"sku": pl.String, "category": pl.String}
    )
