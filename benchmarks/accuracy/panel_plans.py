"""Columns of a panel that are known in advance, as plans of the product.

A roll-up has the mean of its series' plans, without prices.

Axes: T = buckets, S = series, N = rows, P = plan columns.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.accuracy.panel_list import Panel
from model.inputs.plans import CLOSURE, EVENT, N_PLANS, PRICE, PROMOTION, Plans


def plans_of(
    panel: Panel,
    rows: pl.DataFrame,
    cell_N: tuple[NDArray[np.int64], NDArray[np.int64]],
    *,
    members: list[NDArray[np.int64]],
    order: NDArray[np.int64],
) -> Plans:
    """Plans of the series and of the roll-ups of `members`, in `order`.

    `cell_N` are bucket and series of each row.
    """
    place_N, slot_N = cell_N
    buckets, size = int(place_N.max()) + 1, order.size - len(members)
    values_TSP = np.zeros((buckets, size, N_PLANS), np.float32)
    present_TS = np.zeros((buckets, size), np.float32)
    present_TS[place_N, slot_N] = 1
    shares = ((PROMOTION, panel.promotion), (EVENT, panel.event), (CLOSURE, panel.closure))
    for column, factors in shares:
        values_TSP[place_N, slot_N, column] = _largest(rows, factors)
    if panel.price is not None:
        values_TSP[place_N, slot_N, PRICE] = rows[panel.price].to_numpy()
    rollups = []
    for slots in members:
        count_T1 = np.maximum(present_TS[:, slots].sum(axis=1), 1)[:, None]
        mean_TP = values_TSP[:, slots].sum(axis=1) / count_T1
        mean_TP[:, PRICE] = 0
        rollups.append(mean_TP)
    return Plans.from_dense(
        np.concatenate((values_TSP, np.stack(rollups, axis=1)), axis=1)[:, order]
    )


def _largest(rows: pl.DataFrame, factors: dict[str, float]) -> NDArray[np.float32]:
    """Largest of the columns times their factors [N], in [0, 1]; missing values are 0."""
    largest_N = np.zeros(rows.height, np.float32)
    for name, factor in factors.items():
        column_N = rows[name].cast(pl.Float32).fill_null(0).to_numpy()
        largest_N = np.maximum(largest_N, np.clip(column_N * factor, 0, 1))
    return largest_N
