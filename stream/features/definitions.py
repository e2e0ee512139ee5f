"""Feature sums of a bucket: how events add to them, and how they are stored once it closes.

Sums are whole numbers (units; money in 1/10,000), so the order of arrival, a split or a merge
cannot change a bit. A closed bucket is the float32 image of its sums, plus two stock
columns.

Axes: N = events, S = series slots, R = rows, F = sums in the order of `model.contract.SUM_NAMES`;
of a closed bucket, features in the order of `FEATURE_NAMES`.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.contract import FEATURE_NAMES, SUM_NAMES

MONEY_TICKS: Final = 10_000
N_SUMS: Final = len(SUM_NAMES)
N_FEATURES: Final = len(FEATURE_NAMES)

UNITS, RETURNS, REVENUE, ORDERS, VIEWS, CARTS, REMOVES, PURCHASES, VISITORS = range(N_SUMS)
STOCK, STOCKOUT_SHARE = range(N_SUMS, N_FEATURES)

#: Action of a click → the column that counts it.
ACTION_COLUMNS: Final = {"view": VIEWS, "cart": CARTS, "remove": REMOVES, "purchase": PURCHASES}

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def money_ticks(quantity_N: Ints, unit_price_N: Floats) -> Ints:
    """Return line values `quantity × unit_price` in 1/10,000 of the currency, rounded half to even.

    >>> money_ticks(np.array([2, -1]), np.array([1.25, 0.5])).tolist()
    [25000, -5000]
    """
    return np.rint(quantity_N * unit_price_N * MONEY_TICKS).astype(np.int64)


def add_orders(sums_SF: Ints, slot_N: Ints, quantity_N: Ints, unit_price_N: Floats) -> None:
    """Add order lines to the sums of one bucket, in place.

    >>> sums = np.zeros((1, N_SUMS), np.int64)
    >>> add_orders(sums, np.array([0, 0]), np.array([3, -1]), np.array([2.0, 2.0]))
    >>> sums[0, :4].tolist()
    [3, 1, 40000, 2]
    """
    np.add.at(sums_SF[:, UNITS], slot_N, np.maximum(quantity_N, 0))
    np.add.at(sums_SF[:, RETURNS], slot_N, np.maximum(-quantity_N, 0))
    np.add.at(sums_SF[:, REVENUE], slot_N, money_ticks(quantity_N, unit_price_N))
    np.add.at(sums_SF[:, ORDERS], slot_N, 1)


def add_clicks(sums_SF: Ints, slot_N: Ints, column_N: Ints) -> None:
    """Add clicks to the sums of one bucket, in place; `column_N` has values of `ACTION_COLUMNS`."""
    flat = sums_SF.reshape(-1)
    np.add.at(flat, slot_N * N_SUMS + column_N, 1)


def closed_block(sums_RF: Ints, stock_RC: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return the float32 image [R, F] of a closed bucket's sums; money in units of the currency.

    `stock_RC` holds the two stock columns; without it, the stock is unknown.

    >>> sums = np.zeros((1, N_SUMS), np.int64)
    >>> sums[0, REVENUE] = 12_500
    >>> float(closed_block(sums)[0, REVENUE])
    1.25
    """
    values_RF = np.zeros((len(sums_RF), N_FEATURES), np.float32)
    values_RF[:, :N_SUMS] = sums_RF
    values_RF[:, REVENUE] = sums_RF[:, REVENUE] / MONEY_TICKS
    if stock_RC is not None:
        values_RF[:, N_SUMS:] = stock_RC
    return values_RF
