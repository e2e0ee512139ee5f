"""Closed buckets of files: the features the live path would have stored, computed in one pass.

Sums go through `stream.features.definitions`, as the worker's do, and events are admitted by the
rules of `stream.codecs`, so a closed bucket here equals the live one bit for bit. An `event_id`
counts once in a whole file. Most series sell nothing in most buckets, so rows are kept for what
happened only; a dense block is made of a window, or of the series that matter, when one is needed.

Axes: N = events, R = rows (bucket and series with an event), T = buckets, S = series, F = features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream.codecs import MAX_LINE_VALUE, MAX_QUANTITY, series_id
from stream.errors import UnreadableEvent, UsageError
from stream.features.definitions import (
    ACTION_COLUMNS,
    N_FEATURES,
    UNITS,
    VISITORS,
    add_clicks,
    add_orders,
    closed_block,
)

if TYPE_CHECKING:
    from model.dataset import History

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SparseHistory:
    """Integer sums of every bucket and series with an event in ``[start_ms, end_ms)``.

    Row r holds `sums_RF[r]` (money in ticks) of series `slot_R[r]` in the bucket that starts at
    ``start_ms + bucket_R[r] · bucket_ms``; rows are sorted by bucket, then slot. `series` lists the
    series in order of first appearance, roll-ups last; `skus` their SKUs (empty for a roll-up).
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
        """Closed blocks [T, S, F], float32, of a window and of some series (default: all)."""
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
        """Dense history of the roll-ups and the `n` largest series from `start_ms` on."""
        from model.dataset import History  # torch is slow to import

        slots = self.largest(n)
        return History(
            values_TSF=self.dense(slots, start_ms=start_ms),
            start_ms=self.start_ms if start_ms is None else start_ms,
            bucket_ms=self.bucket_ms,
            series=[self.series[slot] for slot in slots],
        )


def build_history(
    orders: pl.DataFrame,
    clicks: pl.DataFrame | None = None,
    catalog: pl.DataFrame | None = None,
    *,
    bucket_ms: int,
    start_ms: int | None = None,
    end_ms: int | None = None,
    rollups: bool = True,
) -> SparseHistory:
    """Sum events into the buckets of ``[start_ms, end_ms)``, by default those the orders touch.

    Frames are as `stream.jobs.tables` reads them. Bounds must lie on bucket edges. With `rollups`,
    `total` and `category:*` are series too: sums over their members. Raises UsageError when there
    is no order to count or a bound is off.
    """
    start_ms, end_ms = _bounds(orders, bucket_ms, start_ms, end_ms)
    lines = _counted_orders(orders, start_ms, end_ms)
    seen = _counted_clicks(clicks, start_ms, end_ms) if clicks is not None else lines.clear()
    names = pl.concat([lines.select("series", "sku", "ts"), seen.select("series", "sku", "ts")])
    firsts = names.group_by("series").agg(pl.col("sku").first(), pl.col("ts").min())
    firsts = firsts.sort("ts", "series").with_row_index("slot")
    slot_of = firsts.select("series", pl.col("slot").cast(pl.Int64))
    lines = _placed(lines, slot_of, start_ms, bucket_ms)
    seen = _placed(seen, slot_of, start_ms, bucket_ms)
    width = max(firsts.height, 1)
    keys_R, row_N = np.unique(
        np.concatenate([_key(lines, width), _key(seen, width)]), return_inverse=True
    )
    sums_RF = np.zeros((len(keys_R), N_FEATURES), np.int64)
    add_orders(
        sums_RF,
        row_N[: lines.height],
        lines["quantity"].to_numpy(),
        lines["unit_price"].to_numpy(),
    )
    if clicks is not None:
        _add_clicks(sums_RF, row_N[lines.height :], seen)
    history = SparseHistory(
        bucket_ms=bucket_ms,
        start_ms=start_ms,
        end_ms=end_ms,
        series=firsts["series"].to_list(),
        skus=firsts["sku"].to_list(),
        bucket_R=keys_R // width,
        slot_R=keys_R % width,
        sums_RF=sums_RF,
        categories=_categories(catalog),
    )
    return _with_rollups(history) if rollups else history


def _bounds(
    orders: pl.DataFrame, bucket_ms: int, start_ms: int | None, end_ms: int | None
) -> tuple[int, int]:
    if not orders.height:
        raise UsageError("there is no order line to build a history from")
    times = orders["ts"].to_numpy()
    if start_ms is None:
        start_ms = int(times.min()) // bucket_ms * bucket_ms
    if end_ms is None:
        end_ms = (int(times.max()) // bucket_ms + 1) * bucket_ms
    for bound in (start_ms, end_ms):
        if bound % bucket_ms:
            raise UsageError(f"{bound} is not on the edge of a bucket of {bucket_ms} ms")
    if end_ms <= start_ms:
        raise UsageError(f"no bucket lies between {start_ms} and {end_ms}")
    return start_ms, end_ms


def _counted_orders(orders: pl.DataFrame, start_ms: int, end_ms: int) -> pl.DataFrame:
    quantity, price = pl.col("quantity"), pl.col("unit_price")
    value = quantity.abs() * price
    counted = _inside(orders, start_ms, end_ms).filter(
        (quantity != 0)
        & (quantity.abs() <= MAX_QUANTITY)
        & price.is_not_nan()
        & (price >= 0)
        & (value <= MAX_LINE_VALUE)
    )
    return _named(counted)


def _counted_clicks(clicks: pl.DataFrame, start_ms: int, end_ms: int) -> pl.DataFrame:
    known = pl.col("action").cast(pl.String).is_in(list(ACTION_COLUMNS))
    return _named(_inside(clicks, start_ms, end_ms).filter(known))


def _inside(events: pl.DataFrame, start_ms: int, end_ms: int) -> pl.DataFrame:
    """Events of the window with an id and a SKU, each id once."""
    return events.filter(
        (pl.col("ts") >= start_ms)
        & (pl.col("ts") < end_ms)
        & (pl.col("event_id").str.len_bytes() > 0)
        & pl.col("sku").is_not_null()
    ).unique("event_id", keep="first", maintain_order=True)


def _named(events: pl.DataFrame) -> pl.DataFrame:
    """Events with their series; those whose names the worker refuses are left out."""
    if "location" not in events.columns:
        events = events.with_columns(location=pl.lit(None, pl.String))
    pairs = events.select("sku", "location").unique()
    names = pairs.with_columns(
        series=pl.Series([_series(*row) for row in pairs.iter_rows()], dtype=pl.String)
    )
    joined = events.join(
        names, on=["sku", "location"], how="left", nulls_equal=True, maintain_order="left"
    )
    return joined.filter(pl.col("series").is_not_null())


def _series(sku: str, location: str | None) -> str | None:
    try:
        return series_id(sku, location)
    except UnreadableEvent:
        return None


def _placed(
    events: pl.DataFrame, slot_of: pl.DataFrame, start_ms: int, bucket_ms: int
) -> pl.DataFrame:
    """Events with the slot of their series and the index of their bucket."""
    return events.join(slot_of, on="series", how="left", maintain_order="left").with_columns(
        bucket=(pl.col("ts") - start_ms) // bucket_ms
    )


def _key(events: pl.DataFrame, width: int) -> Ints:
    """One number for bucket and slot, rising in that order."""
    key_N: Ints = events["bucket"].to_numpy() * width + events["slot"].to_numpy()
    return key_N


def _add_clicks(sums_RF: Ints, row_N: Ints, clicks: pl.DataFrame) -> None:
    columns = clicks["action"].cast(pl.String).replace_strict(ACTION_COLUMNS, return_dtype=pl.Int64)
    add_clicks(sums_RF, row_N, columns.to_numpy())
    if "visitor_id" not in clicks.columns:
        return
    pairs = pl.DataFrame({"row": row_N, "visitor": clicks["visitor_id"]}).drop_nulls().unique()
    np.add.at(sums_RF[:, VISITORS], pairs["row"].to_numpy(), 1)


def _categories(catalog: pl.DataFrame | None) -> dict[str, str]:
    if catalog is None or "category" not in catalog.columns:
        return {}
    known = catalog.select("sku", "category").drop_nulls()
    return dict(known.iter_rows())


def _with_rollups(history: SparseHistory) -> SparseHistory:
    """The same history with `total` and `category:*` appended: sums over their members."""
    category_S = [history.categories.get(sku) for sku in history.skus]
    names = ["total", *sorted({f"category:{name}" for name in category_S if name is not None})]
    n_series = len(history.series)
    place = {name: n_series + i for i, name in enumerate(names)}
    code_S = np.array(
        [-1 if name is None else place[f"category:{name}"] for name in category_S], np.int64
    )
    parent_R = code_S[history.slot_R] if n_series else history.slot_R
    member = parent_R >= 0
    bucket_R = np.concatenate([history.bucket_R] * 2 + [history.bucket_R[member]])
    slot_R = np.concatenate(
        [history.slot_R, np.full(len(history.slot_R), n_series), parent_R[member]]
    )
    sums_RF = np.concatenate([history.sums_RF] * 2 + [history.sums_RF[member]])
    width = n_series + len(names)
    keys_R, row_R = np.unique(bucket_R * width + slot_R, return_inverse=True)
    summed_RF = np.zeros((len(keys_R), N_FEATURES), np.int64)
    np.add.at(summed_RF, row_R, sums_RF)
    return SparseHistory(
        bucket_ms=history.bucket_ms,
        start_ms=history.start_ms,
        end_ms=history.end_ms,
        series=[*history.series, *names],
        skus=[*history.skus, *([""] * len(names))],
        bucket_R=keys_R // width,
        slot_R=keys_R % width,
        sums_RF=summed_RF,
        categories=history.categories,
    )
