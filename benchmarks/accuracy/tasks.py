"""The two accuracy tasks: real orders of a gift wholesaler, daily and hourly, with fixed origins.

Source: *Online Retail II* (UCI id 502, D. Chen, CC BY 4.0). Target `units`: sum of the quantities
of lines with 1…2,000 units, a price above 0 and a SKU of five digits (letters may follow); a bucket
without a line is zero. Models are tuned on origins before the test origins only.

Axes: T = buckets, S = series, F = features.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.contract import FEATURE_NAMES
from model.durations import DAY_MS, HOUR_MS
from model.inputs.static_features import static_row
from model.training.dataset import History
from stream.series_ids import location_id


def at(day: str) -> int:
    """Start of a day in ms.

    >>> at("1970-01-02")
    86400000
    """
    return int(np.datetime64(day, "ms").astype(np.int64))


@dataclass(frozen=True, slots=True)
class Task:
    """One task: its history, of which the first `scored` series are scored, and the origins.

    `season` is the season in buckets of the seasonal naive and of the scaled metrics, `country`
    that of the holidays. `observed_TS` is False where nothing is known of a series' bucket; None if
    everything is known.
    """

    name: str
    history: History
    scored: int
    horizon: int
    test_origins_ms: list[int]
    tune_origins_ms: list[int]
    season: int = 7
    country: str | None = "GB"
    observed_TS: NDArray[np.bool_] | None = None


def read_lines(path: Path) -> pl.DataFrame:
    """Counted order lines: ts, sku, country, quantity, value. Each `event_id` once."""
    lines = pl.read_parquet(path).unique("event_id", keep="first", maintain_order=True)
    counted = (
        pl.col("quantity").is_between(1, 2_000)
        & (pl.col("unit_price") > 0)
        & pl.col("sku").str.contains(r"^[0-9]{5}")
    )
    value = (pl.col("quantity") * pl.col("unit_price")).alias("value")
    return lines.filter(counted).select("ts", "sku", "country", "quantity", value)


def daily(lines: pl.DataFrame) -> Task:
    """500 best-selling SKUs, 28 days ahead; 1,000 more SKUs and the total for training."""
    best = _ranking(lines, "sku")
    names = [*best[:1_500], "total"]
    origins = ["2011-08-01", "2011-09-05", "2011-10-10", "2011-11-07"]
    tuning = ["2011-03-28", "2011-04-25", "2011-05-23", "2011-06-20"]
    history = _history(lines, names, DAY_MS)
    return Task("daily", history, 500, 28, [at(d) for d in origins], [at(d) for d in tuning])


def hourly(lines: pl.DataFrame) -> Task:
    """100 best-selling SKUs, the total, ten countries; 24 hours ahead, every November midnight."""
    best = _ranking(lines, "sku")
    countries = [location_id(name) for name in _ranking(lines, "country")[:10]]
    names = [*best[:100], "total", *countries, *best[100:600]]
    history = _history(lines, names, HOUR_MS)
    test = [at("2011-11-01") + day * DAY_MS for day in range(30)]
    tune = [at("2011-09-01") + day * DAY_MS for day in range(30)]
    return Task("hourly", history, 111, 24, test, tune, season=168)


def _ranking(lines: pl.DataFrame, column: str) -> list[str]:
    """Values of a column by their number of lines before July 2011, most first."""
    before = lines.filter(pl.col("ts") < at("2011-07-01"))
    counts = before.group_by(column).len().sort(["len", column], descending=[True, False])
    return counts[column].to_list()


def _history(lines: pl.DataFrame, names: list[str], bucket_ms: int) -> History:
    start_ms = at("2009-12-01")
    buckets = (at("2011-12-10") - start_ms) // bucket_ms
    place = {name: slot for slot, name in enumerate(names)}
    values_TSF = np.zeros((buckets, len(names), len(FEATURE_NAMES)), np.float32)
    placed = lines.with_columns(bucket=(pl.col("ts") - start_ms) // bucket_ms)
    everything = placed.with_columns(total=pl.lit("total"))
    for column, prefix in (("sku", ""), ("country", location_id("")), ("total", "")):
        sums = everything.group_by(column, "bucket").agg(
            pl.col("quantity").sum(), pl.col("value").sum(), pl.len()
        )
        for name, bucket, units, value, count in sums.iter_rows():
            slot = place.get(prefix + name)
            if slot is not None:
                values_TSF[bucket, slot, [0, 2, 3]] = (units, value, count)
    shipped = Path(__file__).parents[2] / "stream" / "jobs" / "files" / "data" / "catalog.parquet"
    category_of = dict(pl.read_parquet(shipped, columns=["sku", "category"]).iter_rows())
    static_rows = [static_row(category_of.get(name.upper())) for name in names]
    return History(values_TSF, start_ms, bucket_ms, names, np.stack(static_rows))
