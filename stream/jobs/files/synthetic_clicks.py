"""Generates synthetic clicks from real order lines: seeded, labelled, reproducible for each line.

No clicks exist for the shipped orders, so the demonstration generates them. Every sale gets the
clicks of its buyer (views minutes to hours before, cart, purchase) and of people who view the
product on the days after without buying; they have their own daily rhythm, and some fill and empty
a cart. Returns get no clicks. The clicks of a line depend only on its `event_id` and the seed, so
that the clicks of a subset of lines are a subset of all clicks. Browsing follows sales, so only the
views of buyers help a model to predict sales, as in a real shop.

Axes: N = order lines, K = clicks.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from model.durations import DAY_MS, HOUR_MS, MINUTE_MS

#: Label shown wherever these clicks appear.
CLICKS_LABEL: Final = "synthetic clicks, made from the orders by a seeded generator"

#: To be increased when the same lines and seed give other clicks; cached files are then rewritten.
VERSION: Final = 1

_MORE_VIEWS = 0.45  # probability of another view by the buyer, after the first
_EARLY_VIEWS = 0.25  # share of the buyer's views hours, not minutes, before the sale
_BROWSERS = 1.3  # people who view but do not buy, per sale
_ABANDON = 0.07  # share of them who fill a cart and empty it
_BROWSE_DAYS = 6
_SOON_MS = 18 * MINUTE_MS
_ACTION = pl.Enum(["view", "cart", "remove", "purchase"])
#: Browsing by hour of the day: few at night, a plateau by day, most in the evening.
_HOURS = np.array(
    [9, 5, 3, 2, 2, 3, 6, 12, 20, 28, 33, 35, 38, 36, 34, 34, 36, 40, 48, 58, 66, 62, 44, 22]
)

Keys = NDArray[np.uint64]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def synthesize_clicks(orders: pl.DataFrame, seed: int = 7) -> pl.DataFrame:
    """Generate clicks up to the time of the last order line, sorted by time; 4 to 6 per sale.

    `orders` has the columns `event_id, ts, sku, quantity, unit_price` and optionally `order_id` and
    `customer_id`. The result has `event_id, ts, sku, action, visitor_id, price`: `ts` in
    milliseconds, `price` of the order line, `visitor_id` a pseudonym for each customer.
    """
    sales = orders.filter(pl.col("quantity") > 0)
    until_ms = int(orders["ts"].to_numpy().max(initial=0))
    key_N = _keys(sales["event_id"].to_list(), seed)
    ts_N = sales["ts"].to_numpy().astype(np.int64)
    views_N = 1 + _geometric(_uniform(key_N, 1), _MORE_VIEWS)
    bought = _buyers_clicks(key_N, ts_N, views_N)
    bought = bought.with_columns(visitor=_buyers(sales, seed).gather(bought["line"]))
    clicks = (
        pl.concat([bought, _browsers_clicks(key_N, ts_N, views_N + 2)])
        .filter(pl.col("ts") <= until_ms)
        .sort("ts", "line", "k")
    )
    source = sales.select("event_id", "sku", "unit_price")[clicks["line"]]
    return clicks.select(
        event_id=pl.concat_str(pl.lit("c-"), source["event_id"], pl.lit("-"), "k"),
        ts="ts",
        sku=source["sku"],
        action=pl.col("action").cast(pl.String),
        visitor_id=pl.concat_str(pl.lit("v-"), "visitor"),
        price=source["unit_price"],
    )


def cached_clicks(orders: pl.DataFrame, path: Path, seed: int = 7) -> pl.DataFrame:
    """Read the clicks of `orders` from the file `path`; generate and write them if they differ."""
    stamp = f"{VERSION}:{seed}:{orders.height}:{orders['ts'].sum()}:{orders['quantity'].sum()}"
    if path.is_file() and pq.read_metadata(path).metadata.get(b"stamp") == stamp.encode():
        return pl.read_parquet(path)
    clicks = synthesize_clicks(orders, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    clicks.write_parquet(
        temporary,
        compression="zstd",
        compression_level=1,
        metadata={"label": CLICKS_LABEL, "stamp": stamp},
    )
    temporary.replace(path)
    return clicks


def _buyers_clicks(key_N: Keys, ts_N: Ints, views_N: Ints) -> pl.DataFrame:
    """Views, one cart and one purchase per sale; `k` numbers the clicks of a line from 0."""
    line_K, nth_K = _spread(views_N)
    scale_ms = np.where(_uniform(key_N[line_K], 100 + nth_K) < _EARLY_VIEWS, 6 * HOUR_MS, _SOON_MS)
    wait_ms = -np.log1p(-_uniform(key_N[line_K], 200 + nth_K)) * scale_ms
    lag_ms = 3 * MINUTE_MS + np.minimum(wait_ms, 1.5 * DAY_MS).astype(np.int64)
    cart_lag_ms = (10_000 + _uniform(key_N, 2) * 2.5 * MINUTE_MS).astype(np.int64)
    every = np.arange(len(ts_N))
    return pl.concat(
        [
            _rows(line_K, nth_K, ts_N[line_K] - lag_ms, "view"),
            _rows(every, views_N, ts_N - cart_lag_ms, "cart"),
            _rows(every, views_N + 1, ts_N, "purchase"),
        ]
    )


def _browsers_clicks(key_N: Keys, ts_N: Ints, first_N: Ints) -> pl.DataFrame:
    """Views days after a sale by people who do not buy; some fill a cart and empty it."""
    people_N = _poisson(_uniform(key_N, 3), _BROWSERS)
    line_K, nth_K = _spread(people_N)
    key_K = key_N[line_K]
    at_K = _browsing_ms(ts_N[line_K], key_K, nth_K)
    visitor_K = _pseudonym(_mixed(key_K, 600 + nth_K))
    views = _rows(line_K, first_N[line_K] + nth_K, at_K, "view").with_columns(visitor=visitor_K)
    some = np.flatnonzero(_uniform(key_K, 700 + nth_K) < _ABANDON)
    line_G, nth_G = line_K[some], nth_K[some]
    ordinal_G = (first_N + people_N)[line_G] + 2 * nth_G
    filled_G = at_K[some] + 15_000
    stay_ms = (20_000 + _uniform(key_K[some], 800 + nth_G) * 9 * MINUTE_MS).astype(np.int64)
    visitor_G = visitor_K.gather(some)
    return pl.concat(
        [
            views,
            _rows(line_G, ordinal_G, filled_G, "cart").with_columns(visitor=visitor_G),
            _rows(line_G, ordinal_G + 1, filled_G + stay_ms, "remove").with_columns(
                visitor=visitor_G
            ),
        ]
    )


def _browsing_ms(sold_ms: Ints, key_K: Keys, nth_K: Ints) -> Ints:
    """Draw a time after the sale: a later day, and an hour of the day by `_HOURS`."""
    days = 1 + np.floor(_uniform(key_K, 300 + nth_K) * _BROWSE_DAYS).astype(np.int64)
    cumulated = np.cumsum(_HOURS) / _HOURS.sum()
    hour = np.searchsorted(cumulated, _uniform(key_K, 400 + nth_K), side="right")
    inside_ms = (_uniform(key_K, 500 + nth_K) * HOUR_MS).astype(np.int64)
    return (sold_ms // DAY_MS + days) * DAY_MS + hour * HOUR_MS + inside_ms


def _rows(line: Ints, k: Ints, ts: Ints, action: str) -> pl.DataFrame:
    return pl.DataFrame(
        {"line": line.astype(np.int64), "k": k.astype(np.int64), "ts": ts.astype(np.int64)}
    ).with_columns(action=pl.lit(action, dtype=_ACTION))


def _spread(count_N: Ints) -> tuple[Ints, Ints]:
    """Row of each repetition and its number within the row.

    >>> [part.tolist() for part in _spread(np.array([2, 0, 1]))]
    [[0, 0, 2], [0, 1, 0]]
    """
    line_K = np.repeat(np.arange(len(count_N)), count_N)
    starts_N = np.cumsum(count_N) - count_N
    return line_K, np.arange(len(line_K)) - starts_N[line_K]


def _keys(names: Sequence[str], seed: int) -> Keys:
    """One 64-bit key per name: seeded xxh3."""
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(name.encode(), seed) for name in names), np.uint64, len(names))


def _buyers(sales: pl.DataFrame, seed: int) -> pl.Series:
    """Pseudonym of each line's buyer, from the customer, else the order, else the line."""
    known = [name for name in ("customer_id", "order_id", "event_id") if name in sales.columns]
    person = sales.select(pl.coalesce(known))[known[0]]
    return _pseudonym(_keys(person.to_list(), seed ^ 0x5EED))


def _pseudonym(key_K: Keys) -> pl.Series:
    """Decimal digits of the key's upper 48 bits."""
    return pl.Series("visitor", key_K >> np.uint64(16)).cast(pl.String)


def _mixed(key_K: Keys, draw: int | Ints) -> Keys:
    """Draw one number from each key's own stream (SplitMix64; Steele, Lea & Flood 2014)."""
    with np.errstate(over="ignore"):
        z = key_K + np.asarray(draw, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Keys = z ^ (z >> np.uint64(31))
    return mixed


def _uniform(key_K: Keys, draw: int | Ints) -> Floats:
    """Draw a number in [0, 1) for each key, from 53 bits."""
    return np.ldexp((_mixed(key_K, draw) >> np.uint64(11)).astype(np.float64), -53)


def _geometric(u_N: Floats, more: float) -> Ints:
    """Successes before the first failure, by inversion; `more` is the probability of success.

    >>> _geometric(np.array([0.0, 0.6, 0.8]), 0.5).tolist()
    [0, 1, 2]
    """
    successes_N: Ints = np.floor(np.log1p(-u_N) / np.log(more)).astype(np.int64)
    return successes_N


def _poisson(u_N: Floats, mean: float) -> Ints:
    """Poisson counts by inversion, truncated at 12.

    >>> _poisson(np.array([0.0, 0.5, 0.95]), 1.0).tolist()
    [0, 1, 3]
    """
    terms = np.cumprod(np.concatenate([[np.exp(-mean)], mean / np.arange(1, 12)]))
    return np.searchsorted(np.cumsum(terms), u_N, side="right").astype(np.int64)
