"""Plans of a bucket: promotion, price, closure, event; of the past and the future.

Plans have their own columns next to the closed buckets, because those of the horizon are known in
advance. Most series have none, so only those with plans are stored. The network reads the result of
`plan_features`, in which a price is relative to the series' mean price.

Axes: T = buckets, N = series with a plan, S = all series, M = series that are forecast with a plan,
P = plan columns, E = plan inputs, K = carried statistics.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import InvalidValues
from model.inputs.carried_statistics import PRICE as MEAN_PRICE

Floats = NDArray[np.float32]

#: Columns of a bucket's plans: discount share in [0, 1], new price (0 = unchanged), closure, event;
#: the last two are shares of the bucket in [0, 1].
PLAN_NAMES: Final = ("promotion", "price", "closure", "event")
PROMOTION, PRICE, CLOSURE, EVENT = range(len(PLAN_NAMES))
N_PLANS: Final = len(PLAN_NAMES)
#: Inputs of the network derived from plans.
PLAN_INPUT_NAMES: Final = (
    "plan_promotion",
    "plan_promoted",
    "plan_price",
    "plan_closure",
    "plan_event",
)
#: Input of the closed share of a bucket.
CLOSURE_INPUT: Final = PLAN_INPUT_NAMES.index("plan_closure")
#: Limit of the log price ratio: a factor e up or down.
_MAX_LOG_PRICE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Plans:
    """Plans `values_TNP` of some series in T consecutive buckets.

    `rows_N` are the series with plans, rising; all others have none. Raises InvalidValues for other
    shapes, series out of order, or values that are negative or not finite.

    >>> plans = Plans(np.array([1]), np.full((2, 1, 4), 0.25, np.float32))
    >>> plans.dense(3)[:, :, PROMOTION].tolist()
    [[0.0, 0.25, 0.0], [0.0, 0.25, 0.0]]
    """

    rows_N: NDArray[np.int64]
    values_TNP: Floats

    def __post_init__(self) -> None:
        """Check shape, order and values."""
        shape = self.values_TNP.shape
        if len(shape) != 3 or shape[1:] != (self.rows_N.size, N_PLANS):
            raise InvalidValues(
                f"plans of {self.rows_N.size} series have shape {shape}, not [T, N, {N_PLANS}]"
            )
        if self.rows_N.size and (self.rows_N[0] < 0 or (np.diff(self.rows_N) <= 0).any()):
            raise InvalidValues("rows_N of plans must rise")
        if not np.isfinite(self.values_TNP).all() or (self.values_TNP < 0).any():
            raise InvalidValues("plans contain NaN, infinite or negative values")

    @classmethod
    def from_dense(cls, values_TSP: Floats) -> "Plans":
        """Plans from a dense block of all series, without the series that have none.

        >>> Plans.from_dense(np.eye(4, dtype=np.float32)[None, :2]).rows_N.tolist()
        [0, 1]
        """
        rows_N = np.flatnonzero(values_TSP.any(axis=(0, 2)))
        return cls(rows_N, np.ascontiguousarray(values_TSP[:, rows_N]))

    @property
    def buckets(self) -> int:
        """Number of buckets T."""
        return len(self.values_TNP)

    def between(self, first: int, last: int) -> "Plans":
        """Plans of buckets `first` (included) to `last` (excluded); none beyond the end.

        >>> Plans(np.array([1]), np.ones((2, 1, 4), np.float32)).between(1, 4).values_TNP[:, 0, 0]
        array([1., 0., 0.], dtype=float32)
        """
        part_TNP = self.values_TNP[first:last]
        missing = last - first - len(part_TNP)
        if missing:
            part_TNP = np.pad(part_TNP, ((0, missing), (0, 0), (0, 0)))
        return Plans(self.rows_N, part_TNP)

    def dense(self, size: int) -> Floats:
        """Plans [T, S, P] of `size` series."""
        values_TSP = np.zeros((self.buckets, size, N_PLANS), np.float32)
        kept = self.rows_N < size
        values_TSP[:, self.rows_N[kept]] = self.values_TNP[:, kept]
        return values_TSP

    def chosen(self, index_S: NDArray[np.int64]) -> "Plans":
        """The plans of some series (rising), renumbered.

        >>> plans = Plans(np.array([1, 4]), np.ones((1, 2, 4), np.float32))
        >>> plans.chosen(np.array([0, 4, 5])).rows_N.tolist()
        [1]
        """
        kept = np.isin(self.rows_N, index_S)
        return Plans(np.searchsorted(index_S, self.rows_N[kept]), self.values_TNP[:, kept])


def plan_features(plans_P: Tensor, price: Tensor) -> Tensor:
    """Inputs [..., E] of plans [..., P] of series whose mean price is `price`.

    A new price has no effect while the mean price is unknown.

    >>> half = torch.tensor([0.3, 2.0, 0.0, 0.0])
    >>> plan_features(half, torch.tensor(4.0)).tolist()
    [0.3, 1.0, -0.693, 0.0, 0.0]
    """
    new = plans_P[..., PRICE]
    ratio = torch.log(new.clamp(min=1e-3) / price.clamp(min=1e-3))
    log_ratio = torch.where((new > 0) & (price > 0), ratio, 0.0)
    promotion = plans_P[..., PROMOTION]
    columns = (
        promotion,
        (promotion > 0).to(plans_P.dtype),
        log_ratio.clamp(-_MAX_LOG_PRICE, _MAX_LOG_PRICE),
        plans_P[..., CLOSURE],
        plans_P[..., EVENT],
    )
    return torch.stack(columns, dim=-1)


def plans_at(plans: Plans | None, t: int, rows: slice) -> Tensor | None:
    """Plans [S, P] of bucket `t` for the series `rows`; None if none of them has any.

    >>> plans = Plans(np.array([5]), np.ones((1, 1, 4), np.float32))
    >>> plans_at(plans, 0, slice(0, 5)), plans_at(plans, 0, slice(4, 6))[:, PROMOTION]
    (None, tensor([0., 1.]))
    """
    if plans is None:
        return None
    first, last = np.searchsorted(plans.rows_N, (rows.start, rows.stop))
    if first == last:
        return None
    plans_SP = torch.zeros(rows.stop - rows.start, N_PLANS)
    places_N = torch.from_numpy(plans.rows_N[first:last] - rows.start)
    plans_SP[places_N] = torch.from_numpy(plans.values_TNP[t, first:last])
    return plans_SP


def plans_ahead(plans: Plans | None) -> Plans | None:
    """Plans after the first bucket, of series that have any there; None for none.

    >>> plans = Plans(np.array([5]), np.ones((2, 1, 4), np.float32))
    >>> plans_ahead(plans).rows_N.tolist(), plans_ahead(plans.between(1, 3))
    ([5], None)
    """
    if plans is None:
        return None
    any_N = plans.values_TNP[1:].any(axis=(0, 2))
    return Plans(plans.rows_N[any_N], plans.values_TNP[1:, any_N]) if any_N.any() else None


def planned_rows(
    plans: Plans | None, stats_SK: Tensor, rows: slice
) -> tuple[Tensor, Tensor] | None:
    """Rows [M] among the series `rows` that have plans, and their inputs [M, T, E].

    `stats_SK` are the statistics of the series `rows`.
    """
    if plans is None:
        return None
    first, last = np.searchsorted(plans.rows_N, (rows.start, rows.stop))
    if first == last:
        return None
    device = stats_SK.device
    places_M = torch.from_numpy(plans.rows_N[first:last] - rows.start).to(device)
    plans_MTP = torch.from_numpy(plans.values_TNP[:, first:last].swapaxes(0, 1).copy())
    price_M1 = stats_SK[places_M, MEAN_PRICE, None]
    return places_M, plan_features(plans_MTP.to(device), price_M1)
