"""A sparse history that fits in memory: rows only for buckets and series with an event.

Most series sell nothing in most buckets. Dense blocks are made only of the span and the series that
are needed.

Axes: R = rows (bucket and series with an event), T = buckets, S = series, F = features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stream.decoding.catalog import Listing
from stream.features.definitions import N_FEATURES, UNITS, closed_block
from stream.series_ids import TOTAL, category_id, location_id, split_sku

if TYPE_CHECKING:
    from model.training.dataset import History

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SparseHistory:
    """Integer sums of every bucket and series with an event in ``[start_ms, end_ms)``.

    Row r has the sums `sums_RF[r]` (money in ticks) of series `slot_R[r]` in the bucket that starts
    at ``start_ms + bucket_R[r] · bucket_ms``; rows are sorted by bucket, then slot. `series` is in
    order of first appearance, roll-ups last; `skus` are their SKUs (empty for a roll-up).
    """

    bucket_ms: int
    start_ms: int
    end_ms: int
    series: list[str]
    skus: list[str]
    bucket_R: Ints
    slot_R: Ints
    sums_RF: Ints
    categories: dict[str, str] = field(default_factory=dict)
    listings: dict[str, Listing] = field(default_factory=dict)

    @property
    def buckets(self) -> int:
        """Number of buckets T."""
        return (self.end_ms - self.start_ms) // self.bucket_ms

    def units(self) -> Ints:
        """Units sold [S] over the whole history."""
        total_S = np.zeros(len(self.series), np.int64)
        np.add.at(total_S, self.slot_R, self.sums_RF[:, UNITS])
        return total_S

    def largest(self, n: int) -> list[int]:
        """Slots of all roll-ups and of the `n` other series with most units, in slot order."""
        units_S = self.units()
        plain = [slot for slot, sku in enumerate(self.skus) if sku]
        order = sorted(plain, key=lambda slot: (-int(units_S[slot]), slot))[:n]
        return sorted([*order, *(slot for slot, sku in enumerate(self.skus) if not sku)])

    def dense(
        self,
        slots: Sequence[int] | None = None,
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> Floats:
        """Closed blocks [T, S, F], float32, of a span and of some series (default: all)."""
        first = 0 if start_ms is None else (start_ms - self.start_ms) // self.bucket_ms
        stop = self.buckets if end_ms is None else (end_ms - self.start_ms) // self.bucket_ms
        chosen = np.arange(len(self.series)) if slots is None else np.asarray(slots, np.int64)
        place_S = np.full(len(self.series), -1, np.int64)
        place_S[chosen] = np.arange(len(chosen))
        values_TSF = np.zeros((max(stop - first, 0), len(chosen), N_FEATURES), np.float32)
        low, high = np.searchsorted(self.bucket_R, [first, stop])
        place_R = place_S[self.slot_R[low:high]]
        here = place_R >= 0
        values_TSF[self.bucket_R[low:high][here] - first, place_R[here]] = closed_block(
            self.sums_RF[low:high][here]
        )
        return values_TSF

    def for_training(self, n: int, *, start_ms: int | None = None) -> "History":
        """Dense history of the `n` largest series and the roll-ups from `start_ms` on."""
        from model.training.dataset import History  # torch is slow to import
        from stream.serving.static_features import static_features

        slots = self.largest(n)
        names = [self.series[slot] for slot in slots]
        return History(
            values_TSF=self.dense(slots, start_ms=start_ms),
            start_ms=self.start_ms if start_ms is None else start_ms,
            bucket_ms=self.bucket_ms,
            series=names,
            static_SX=static_features(names, self.categories, self.listings),
        )


def with_rollups(history: SparseHistory) -> SparseHistory:
    """Add the roll-ups `total`, `category:*` and `location:*`: sums over their members."""
    category_S = [_rollup(category_id, history.categories.get(sku)) for sku in history.skus]
    location_S = [_rollup(location_id, split_sku(name)[1]) for name in history.series]
    names = [TOTAL, *sorted({name for name in category_S + location_S if name is not None})]
    n_series = len(history.series)
    place = {name: n_series + i for i, name in enumerate(names)}
    parts = [(history.bucket_R, history.slot_R, history.sums_RF)]
    for parent_S in ([TOTAL] * n_series, category_S, location_S):
        code_S = np.array([-1 if name is None else place[name] for name in parent_S], np.int64)
        parts.append(_summed(history, code_S[history.slot_R]))
    bucket_R, slot_R, sums_RF = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order_R = np.argsort(bucket_R * (n_series + len(names)) + slot_R, kind="stable")
    return SparseHistory(
        bucket_ms=history.bucket_ms,
        start_ms=history.start_ms,
        end_ms=history.end_ms,
        series=[*history.series, *names],
        skus=[*history.skus, *([""] * len(names))],
        bucket_R=bucket_R[order_R],
        slot_R=slot_R[order_R],
        sums_RF=sums_RF[order_R],
        categories=history.categories,
        listings=history.listings,
    )


def _rollup(series_id: Callable[[str], str], name: str | None) -> str | None:
    return series_id(name) if name else None


def _summed(history: SparseHistory, parent_R: Ints) -> tuple[Ints, Ints, Ints]:
    """Bucket, slot and sums of each roll-up: rows summed by bucket and parent (-1: none)."""
    chosen = np.flatnonzero(parent_R >= 0)
    if not len(chosen):
        return parent_R[:0], parent_R[:0], history.sums_RF[:0]
    key_R = history.bucket_R[chosen] * (int(parent_R.max()) + 1) + parent_R[chosen]
    order_R = np.argsort(key_R, kind="stable")
    key_R, rows = key_R[order_R], chosen[order_R]
    firsts = np.flatnonzero(np.concatenate([[True], key_R[1:] != key_R[:-1]]))
    sums_RF = np.add.reduceat(history.sums_RF[rows], firsts, axis=0)
    return history.bucket_R[rows[firsts]], parent_R[rows[firsts]], sums_RF
