"""Features derived from closed buckets, and the published names of all features.

Used by the `features` topic, `/v1/history` and `/v1/features`. Derived values are computed on
demand and never stored. Unknown values and ratios with a zero denominator are left out.

Axes: T = buckets, F = features in the order of `model.contract.FEATURE_NAMES`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.contract import SUM_NAMES
from model.training.outliers import winsorise
from stream.features.definitions import (
    N_SUMS,
    PURCHASES,
    RETURNS,
    REVENUE,
    STOCK,
    STOCKOUT_SHARE,
    UNITS,
    VIEWS,
)

Floats = NDArray[np.float32]


def share(part: float, whole: float) -> float | None:
    """Return `part / whole`; None if `whole` is not positive.

    >>> share(1, 4), share(0, 0)
    (0.25, None)
    """
    return part / whole if whole > 0 else None


def conversion(sums_F: Sequence[float]) -> float | None:
    """Return purchases per view; both are clicks, so no orders are needed. None without views.

    >>> conversion([0, 0, 0, 0, 8, 0, 0, 2, 0])
    0.25
    """
    return share(sums_F[PURCHASES], sums_F[VIEWS])


def mean_price(sums_F: Sequence[float]) -> float | None:
    """Return revenue per unit, both net of returns; None if net units are not positive.

    >>> mean_price([10, 2, 40, 6, 0, 0, 0, 0, 0])
    5.0
    """
    return share(sums_F[REVENUE], sums_F[UNITS] - sums_F[RETURNS])


def relative_price(sums_F: Sequence[float], trailing_F: Sequence[float]) -> float | None:
    """Return the mean price relative to that of a longer trailing span; 1.0 is the usual price.

    >>> relative_price([2, 0, 8, 1, 0, 0, 0, 0, 0], [10, 0, 50, 6, 0, 0, 0, 0, 0])
    0.8
    """
    now, usual = mean_price(sums_F), mean_price(trailing_F)
    return None if now is None or usual is None else share(now, usual)


def units_winsorised(values_TF: Any) -> float:
    """Return the units of the newest bucket of a trailing span, winsorised as in training.

    `model.training.outliers` derives the cap from median and median absolute deviation of the span.

    >>> units_winsorised(np.array([[2.0]] * 30 + [[80_000.0]])).__round__()
    1209
    """
    units_T1 = np.asarray(values_TF, np.float32)[:, UNITS, None]
    return float(winsorise(units_T1)[0][-1, 0])


def stock_of(values_F: Sequence[float]) -> dict[str, float]:
    """Return `on_hand` at a bucket's end and `stockout_share`; empty if the stock is unknown.

    >>> stock_of([0.0] * 9 + [4.0, 0.5]), stock_of([0.0] * 11)
    ({'on_hand': 3.0, 'stockout_share': 0.5}, {})
    """
    if values_F[STOCK] <= 0:
        return {}
    return {"on_hand": values_F[STOCK] - 1, "stockout_share": values_F[STOCKOUT_SHARE]}


def named_sums(values_F: Any) -> dict[str, float]:
    """Return the sums of a row by name; further columns are ignored.

    >>> named_sums(np.zeros(11))["visitors"]
    0.0
    """
    return dict(zip(SUM_NAMES, map(float, values_F[:N_SUMS]), strict=True))


def named_values(values_F: Any) -> dict[str, float]:
    """Return a closed bucket's values by name: sums, stock if known, `conversion`, `mean_price`.

    >>> values = named_values([2, 0, 8, 1, 0, 0, 0, 0, 0, 0, 0])
    >>> values["mean_price"], "conversion" in values, "on_hand" in values
    (4.0, False, False)
    """
    row = list(map(float, values_F))
    values = named_sums(row) | stock_of(row)
    for name, value in (("conversion", conversion(row)), ("mean_price", mean_price(row))):
        if value is not None:
            values[name] = round(value, 6)
    return values
