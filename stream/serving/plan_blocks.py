"""Plans as model inputs: which series a plan applies to, and its value in each bucket.

- A plan of a SKU applies to its series at all locations, or at the one it names; to no roll-up.
- A plan of a category applies to the series of its SKUs, and to the category's roll-up.
- A plan of everything applies to every series and roll-up; at one location, to the series there and
  the location's roll-up.
- A plan of a category at one location applies to the category's series there, and to no roll-up. A
  new price never applies to a roll-up, which has no price of its own.

A discount, closure or event counts by the share of the bucket it covers, a new price if it covers
half of it. Where plans overlap, the strongest applies: the largest share, the lowest price.

Cost is proportional to the plans that overlap the span, and to the series they apply to.

Axes: T = buckets, N = series with a plan, P = plan columns.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.inputs.plans import CLOSURE, EVENT, N_PLANS, PRICE, PROMOTION
from model.inputs.plans import Plans as PlanBlock
from stream.decoding.plans import Plan
from stream.series_ids import category_id, is_rollup, join_series, location_id, split_sku
from stream.state.keys import Tag

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

#: Reads the plans of a partition's series: (tag, series in slot order, start_ms, buckets). Returns
#: None if no series has a plan.
PlanReader = Callable[[Tag, Sequence[str], int, int], PlanBlock | None]

_COLUMN: Final = {"promotion": PROMOTION, "price": PRICE, "closure": CLOSURE, "event": EVENT}
_NO_ROWS: Final = np.zeros(0, np.int64)


def no_plans(tag: Tag, series: Sequence[str], start_ms: int, buckets: int) -> None:
    """Read the plans of a deployment without any."""


class PlanScopes:
    """The slots of series by SKU and location; grows with the series.

    >>> scopes = PlanScopes()
    >>> scopes.grow(["A", "B@Bonn", "A@Bonn", "total"])
    >>> scopes.rows(Plan("p", "event", 0, 1, sku="A"), {}).tolist()
    [0, 2]
    >>> members = scopes.members({"B": "Bags"})
    >>> scopes.rows(Plan("p", "event", 0, 1, category="Bags", location="Bonn"), members)
    array([1])
    """

    def __init__(self) -> None:
        self.series: list[str] = []
        self._slots: dict[str, int] = {}
        self._by_sku: dict[str, list[int]] = {}
        self._by_location: dict[str, list[int]] = {}
        self._rollups: list[int] = []

    def extends(self, series: Sequence[str]) -> bool:
        """True if the known series are the first of these."""
        return list(series[: len(self.series)]) == self.series

    def grow(self, series: Sequence[str]) -> None:
        """Add the new series at the end."""
        known = len(self.series)
        for slot, name in enumerate(series[known:], start=known):
            self.series.append(name)
            self._slots[name] = slot
            if is_rollup(name):
                self._rollups.append(slot)
                continue
            sku, location = split_sku(name)
            self._by_sku.setdefault(sku, []).append(slot)
            if location:
                self._by_location.setdefault(location, []).append(slot)

    def members(self, categories: Mapping[str, str]) -> dict[str, list[int]]:
        """Slots of the series of each category; `categories` maps SKUs to categories."""
        members: dict[str, list[int]] = {}
        for sku, category in categories.items():
            members.setdefault(category, []).extend(self._by_sku.get(sku, ()))
        return members

    def rows(self, plan: Plan, members: Mapping[str, Sequence[int]]) -> Ints:
        """Slots, rising, of the series a plan applies to; `members` maps categories to slots."""
        rollup = None
        if plan.sku is not None:
            found = self._by_sku.get(plan.sku, [])
            if plan.location is not None:
                slot = self._slots.get(join_series(plan.sku, plan.location))
                found = [] if slot is None else [slot]
        elif plan.category is not None:
            found = list(members.get(plan.category, ()))
            if plan.location is None:
                rollup = category_id(plan.category)
            else:
                there = set(self._by_location.get(plan.location, ()))
                found = [slot for slot in found if slot in there]
        elif plan.location is not None:
            found = self._by_location.get(plan.location, [])
            rollup = location_id(plan.location)
        else:
            return self._all(rollups=plan.kind != "price")
        if rollup in self._slots and plan.kind != "price":
            found = [*found, self._slots[rollup]]
        return np.array(sorted(found), np.int64) if found else _NO_ROWS

    def _all(self, *, rollups: bool) -> Ints:
        all_slots = np.arange(len(self.series), dtype=np.int64)
        return all_slots if rollups else np.delete(all_slots, self._rollups)


def plan_block(
    plans: Iterable[Plan],
    scopes: PlanScopes,
    categories: Mapping[str, str],
    *,
    start_ms: int,
    bucket_ms: int,
    buckets: int,
) -> PlanBlock | None:
    """Plans of some series in `buckets` buckets from `start_ms` on; None if there are none.

    `categories` maps SKUs to categories.

    >>> scopes = PlanScopes()
    >>> scopes.grow(["A", "B"])
    >>> plans = [Plan("p", "promotion", 10, 25, sku="B", value=0.4)]
    >>> block = plan_block(plans, scopes, {}, start_ms=0, bucket_ms=10, buckets=4)
    >>> block.rows_N.tolist(), block.values_TNP[:, 0, PROMOTION].tolist()
    ([1], [0.0, 0.4, 0.2, 0.0])
    """
    end_ms = start_ms + buckets * bucket_ms
    overlapping = [plan for plan in plans if plan.start_ms < end_ms and plan.end_ms > start_ms]
    by_category = any(plan.category is not None for plan in overlapping)
    members = scopes.members(categories) if by_category else {}
    applied = [(plan, scopes.rows(plan, members)) for plan in overlapping]
    applied = [(plan, rows) for plan, rows in applied if rows.size]
    if not applied:
        return None
    rows_N = np.unique(np.concatenate([rows for _, rows in applied]))
    values_TNP = np.zeros((buckets, rows_N.size, N_PLANS), np.float32)
    for plan, rows in applied:
        first = max(0, (plan.start_ms - start_ms) // bucket_ms)
        last = min(buckets, -(-(plan.end_ms - start_ms) // bucket_ms))
        begin_T = start_ms + bucket_ms * np.arange(first, last, dtype=np.int64)
        until_T = np.minimum(begin_T + bucket_ms, plan.end_ms)
        share_T1 = ((until_T - np.maximum(begin_T, plan.start_ms)) / bucket_ms)[:, None]
        columns = np.searchsorted(rows_N, rows)
        before = values_TNP[first:last, columns, _COLUMN[plan.kind]]
        values_TNP[first:last, columns, _COLUMN[plan.kind]] = _stronger(plan, before, share_T1)
    return PlanBlock(rows_N, values_TNP)


def _stronger(plan: Plan, before: Floats, share_T1: NDArray[np.float64]) -> NDArray[np.floating]:
    """Values where a plan joins the earlier plans [T, N]."""
    if plan.kind == "price":
        lower = np.where(before > 0, np.minimum(before, plan.value), plan.value)
        return np.where(share_T1 >= 0.5, lower, before)
    strength = plan.value if plan.kind == "promotion" else 1.0
    return np.maximum(before, strength * share_T1)
