"""Computes the closed buckets of files in one pass, bit for bit equal to those of the live path.

Sums use `stream.features.definitions`, like the worker's, and events must pass the rules of
`stream.decoding.events`. An `event_id` counts once per file.

Axes: N = events, R = rows (bucket and series with an event), S = series, F = features.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream.decoding.catalog import NOT_LISTED, Listing, validate_entry
from stream.decoding.fields import MAX_LINE_VALUE, MAX_QUANTITY, series_id
from stream.decoding.schemas import CatalogEntry
from stream.errors import UnreadableEvent, UsageError
from stream.features.definitions import ACTION_COLUMNS, N_SUMS, VISITORS, add_clicks, add_orders
from stream.jobs.history.sparse_history import SparseHistory, with_rollups

Ints = NDArray[np.int64]


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
    """Sum events into the buckets of ``[start_ms, end_ms)``, by default the span of the orders.

    Frames are those of `stream.jobs.files.event_files`. Bounds must be bucket edges. With
    `rollups`, `total`, `category:*` and `location:*` are added: sums over their members. Raises
    UsageError if there are no orders or a bound is not a bucket edge.
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
    sums_RF = np.zeros((len(keys_R), N_SUMS), np.int64)
    add_orders(
        sums_RF,
        row_N[: lines.height],
        lines["quantity"].to_numpy(),
        lines["unit_price"].to_numpy(),
    )
    if clicks is not None:
        _add_clicks(sums_RF, row_N[lines.height :], seen)
    categories, listings = _products(catalog, end_ms)
    history = SparseHistory(
        bucket_ms=bucket_ms,
        start_ms=start_ms,
        end_ms=end_ms,
        series=firsts["series"].to_list(),
        skus=firsts["sku"].to_list(),
        bucket_R=keys_R // width,
        slot_R=keys_R % width,
        sums_RF=sums_RF,
        categories=categories,
        listings=listings,
    )
    return with_rollups(history) if rollups else history


def _bounds(
    orders: pl.DataFrame, bucket_ms: int, start_ms: int | None, end_ms: int | None
) -> tuple[int, int]:
    if not orders.height:
        raise UsageError("there are no order lines, so there is no history")
    times = orders["ts"].to_numpy()
    if start_ms is None:
        start_ms = int(times.min()) // bucket_ms * bucket_ms
    if end_ms is None:
        end_ms = (int(times.max()) // bucket_ms + 1) * bucket_ms
    for bound in (start_ms, end_ms):
        if bound % bucket_ms:
            raise UsageError(f"{bound} is not a multiple of the bucket width of {bucket_ms} ms")
    if end_ms <= start_ms:
        raise UsageError(f"the end {end_ms} is not after the start {start_ms}")
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
    """Events of the span with an id and a SKU, without duplicates."""
    inside = events.filter(
        (pl.col("ts") >= start_ms)
        & (pl.col("ts") < end_ms)
        & (pl.col("event_id").str.len_bytes() > 0)
        & pl.col("sku").is_not_null()
    )
    hashes = np.sort(inside["event_id"].hash().to_numpy())
    if (hashes[1:] != hashes[:-1]).all():  # far cheaper than comparing the texts
        return inside
    return inside.unique("event_id", keep="first", maintain_order=True)


def _named(events: pl.DataFrame) -> pl.DataFrame:
    """Add the series of each event; drop events whose names the worker rejects."""
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
    """Add the slot of the series and the index of the bucket to each event."""
    return events.join(slot_of, on="series", how="left", maintain_order="left").with_columns(
        bucket=(pl.col("ts") - start_ms) // bucket_ms
    )


def _key(events: pl.DataFrame, width: int) -> Ints:
    """One number for bucket and slot, sorted by bucket, then slot."""
    key_N: Ints = events["bucket"].to_numpy() * width + events["slot"].to_numpy()
    return key_N


def _add_clicks(sums_RF: Ints, row_N: Ints, clicks: pl.DataFrame) -> None:
    columns = clicks["action"].cast(pl.String).replace_strict(ACTION_COLUMNS, return_dtype=pl.Int64)
    add_clicks(sums_RF, row_N, columns.to_numpy())
    if "visitor_id" not in clicks.columns:
        return
    visitors = clicks["visitor_id"].cast(pl.Categorical).to_physical()
    pairs = pl.DataFrame({"row": row_N, "visitor": visitors}).drop_nulls().unique()
    np.add.at(sums_RF[:, VISITORS], pairs["row"].to_numpy(), 1)


def _products(
    catalog: pl.DataFrame | None, end_ms: int
) -> tuple[dict[str, str], dict[str, Listing]]:
    """Category and listing of each SKU, without the rows that the worker rejects."""
    categories: dict[str, str] = {}
    listings: dict[str, Listing] = {}
    for row in catalog.iter_rows(named=True) if catalog is not None else ():
        if row["sku"] is None:
            continue
        try:
            category, listing = validate_entry(CatalogEntry(**row), now_ms=end_ms)
        except UnreadableEvent:
            continue
        if category is not None:
            categories[row["sku"]] = category
        if listing:
            listings[row["sku"]] = listings.get(row["sku"], NOT_LISTED).updated(listing)
    return categories, listings
