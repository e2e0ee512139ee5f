"""A seeded shop written to the store as a worker would, bucket by bucket.

Tests of the read side use it in place of a worker.

    python -m tests.support.seeding redis://127.0.0.1:6379/0 --buckets-per-s 1  # a moving shop

Its forecasts are quantiles of a Poisson with the seasonal rate as mean.

Axes: S = series slots, F = features, H = horizon, Q = quantiles.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis import Redis

from model.contract import FEATURE_NAMES, FeatureSpec, QuantileForecast
from model.durations import DAY_MS, HOUR_MS
from model.evaluation.score_sums import SUMS, VOLUMES
from stream.features.definitions import (
    CARTS,
    MONEY_TICKS,
    N_SUMS,
    ORDERS,
    PURCHASES,
    REMOVES,
    RETURNS,
    REVENUE,
    UNITS,
    VIEWS,
    VISITORS,
    closed_block,
)
from stream.series_ids import TOTAL
from stream.state import keys
from stream.state.closed_buckets import closed_pages
from stream.state.explanations import StoredExplanation
from stream.state.forecast_sums import ForecastSums, pack_sums, sums_path
from stream.state.forecasts import BAND_BYTES, pack_bands, pack_forecast, row_bytes
from stream.state.keys import ROLLUPS
from stream.state.pages import cut

START_MS = 1_320_105_600_000  # Tuesday 2011-11-01 00:00 UTC
QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CATEGORIES = ("Christmas", "Garden", "Home", "Kitchen", "Stationery", "Toys")
#: Standard normal quantiles of `QUANTILES`.
_Z_Q = np.array([-1.2816, -0.8416, -0.5244, -0.2533, 0.0, 0.2533, 0.5244, 0.8416, 1.2816])


@dataclass
class Shop:
    """Sales of `n_series` SKUs over `partitions` partitions, the same for the same seed."""

    redis: Any
    n_series: int = 240
    partitions: int = 4
    bucket_ms: int = HOUR_MS
    horizon: int = 24
    seed: int = 7
    start_ms: int = START_MS
    clicks_label: str = "synthetic, made for these orders (seed 7)"
    model_id: str = "lstm-seeded-7"
    closed_through_ms: int = field(init=False)
    sums_SF: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.names = [
            f"{20_000 + 37 * s}{'ABC'[s % 3] if s % 4 == 0 else ''}" for s in range(self.n_series)
        ]
        self.category_S = self.rng.integers(0, len(CATEGORIES), self.n_series)
        self.level_S = np.exp(self.rng.normal(0.4, 1.1, self.n_series))
        self.price_S = np.round(np.exp(self.rng.normal(0.9, 0.7, self.n_series)), 2)
        self.surge_S = np.ones(self.n_series)
        self.closed_through_ms = self.start_ms
        self.sums_SF = np.zeros((self.n_series, N_SUMS), np.int64)
        self.elapsed = 0.0
        self.counted = 0
        self.closed = 0
        self.rollups = ["total", *(f"category:{name}" for name in CATEGORIES)]

    @property
    def slots_by_partition(self) -> list[NDArray[np.int64]]:
        return [np.arange(p, self.n_series, self.partitions) for p in range(self.partitions)]

    def rate(self, start_ms: int) -> NDArray[np.float64]:
        """Mean units of each series in the bucket at `start_ms`, float64 [S]."""
        hour = start_ms / HOUR_MS % 24
        weekday = start_ms // DAY_MS % 7  # 0 is a Thursday
        opened = np.exp(-(((hour - 12.5) / 3.6) ** 2)) if weekday != 2 else 0.02
        return self.level_S * self.surge_S * opened * (self.bucket_ms / HOUR_MS) * 2.2

    def trickle(self, share: float) -> None:
        """Add a further share of the open bucket's sales."""
        share = min(share, 1 - self.elapsed)
        self.elapsed += share
        rate_S = self.rate(self.closed_through_ms) * share
        orders_S = self.rng.poisson(rate_S / 2.5)
        units_S = orders_S + self.rng.poisson(orders_S * 1.5)
        returns_S = self.rng.binomial(orders_S, 0.02)
        views_S = self.rng.poisson(rate_S * 9 + 0.02 * share)
        sums = self.sums_SF
        sums[:, UNITS] += units_S
        sums[:, RETURNS] += returns_S
        sums[:, REVENUE] += np.rint((units_S - returns_S) * self.price_S * MONEY_TICKS).astype(
            np.int64
        )
        sums[:, ORDERS] += orders_S
        sums[:, VIEWS] += views_S
        sums[:, CARTS] += self.rng.binomial(views_S, 0.3)
        sums[:, REMOVES] += self.rng.binomial(views_S, 0.05)
        sums[:, PURCHASES] += orders_S
        sums[:, VISITORS] += self.rng.binomial(views_S, 0.8)
        self.counted += int(orders_S.sum() + views_S.sum())

    def close(self) -> None:
        """Close the open bucket: write its block, open the next one, forecast."""
        self.trickle(1.0)
        if self.rng.random() < 0.1:
            self.surge_S = np.where(self.rng.random(self.n_series) < 0.05, 3.0, 1.0)
        start = self.closed_through_ms
        pipe = self.redis.pipeline(transaction=True)
        for p, slots in enumerate(self.slots_by_partition):
            self._close_part(pipe, p, self.sums_SF[slots], start)
        self._close_part(pipe, ROLLUPS, self._rolled(self.sums_SF), start)
        self.closed_through_ms += self.bucket_ms
        self.closed += 1
        self.sums_SF[:] = 0
        self.elapsed = 0.0
        self._forecast(pipe)
        pipe.execute()
        self.flush()

    def _close_part(self, pipe: Any, tag: keys.Tag, sums_SF: NDArray[np.int64], start: int) -> None:
        if sums_SF.any():
            pages = closed_pages(start, closed_block(sums_SF))
            pipe.mset({keys.of(tag, *path): page for path, page in pages.items()})
        pipe.delete(keys.of(tag, "open", start))

    def _rolled(self, values_SX: NDArray[Any]) -> NDArray[Any]:
        by_category = [values_SX[self.category_S == c].sum(axis=0) for c in range(len(CATEGORIES))]
        return np.stack([values_SX.sum(axis=0), *by_category])

    def _quantiles(self, mean_SH: NDArray[np.float64]) -> NDArray[np.float32]:
        spread = np.sqrt(mean_SH * 2.2 + (0.16 * mean_SH) ** 2 + 1e-9)
        quantiles = np.maximum(0, mean_SH[..., None] + spread[..., None] * _Z_Q)
        return np.asarray(quantiles, np.float32)

    def _forecast(self, pipe: Any) -> None:
        origin = self.closed_through_ms
        steps = [self.rate(origin + h * self.bucket_ms) for h in range(self.horizon)]
        mean_SH = np.stack(steps, axis=1)
        parts: list[tuple[keys.Tag, NDArray[np.float64]]] = [
            (p, mean_SH[slots]) for p, slots in enumerate(self.slots_by_partition)
        ]
        parts.append((ROLLUPS, self._rolled(mean_SH)))
        for tag, mean in parts:
            row = row_bytes(self.horizon, len(QUANTILES))
            units = self._quantiles(mean)
            cumulative = self._quantiles(np.cumsum(mean, axis=1))
            pipe.hset(
                keys.of(tag, "forecast"),
                mapping={
                    "origin_ms": origin,
                    "model_id": self.model_id,
                    "watermark_ms": origin,
                    "emitted_ms": time.time_ns() // 1_000_000,
                    "calibrated": 0,
                    "series": len(mean),
                    "row": row,
                },
            )
            forecast = QuantileForecast(
                origin, self.bucket_ms, QUANTILES, units, cumulative,
                mean.astype(np.float32), self.model_id,
            )  # fmt: skip
            pages = cut(("forecast", "rows"), pack_forecast(forecast), row)
            pages |= cut(("ahead", origin), pack_bands(forecast), BAND_BYTES)
            sums = ForecastSums.of(
                origin, [TOTAL], mean.sum(axis=0)[None], np.stack([mean, mean.cumsum(1)]).sum(1)
            )
            pages[sums_path(origin, self.bucket_ms)] = pack_sums(sums)
            pipe.mset({keys.of(tag, *path): page for path, page in pages.items()})

    def explain(self, name: str) -> dict[str, NDArray[np.float64]]:
        """Answer a request for an explanation, as a worker would; returns its contributions [H].

        The level is the mean over the horizon, the week the rest, less what the network adds.
        """
        slot, tag = divmod(self.names.index(name), self.partitions)
        origin = self.closed_through_ms
        steps = [self.rate(origin + h * self.bucket_ms) for h in range(self.horizon)]
        rate_H = np.array(steps)[:, self.names.index(name)]
        level_H = np.full(self.horizon, rate_H.mean())
        parts = {"level": level_H, "week": rate_H - level_H + 0.5, "network": level_H * 0.0 - 0.5}
        stored = StoredExplanation(
            origin,
            self.model_id,
            units={part: units_H.tolist() for part, units_H in parts.items()},
            cumulative={part: units_H.cumsum().tolist() for part, units_H in parts.items()},
            factors={"week": (rate_H / level_H).tolist()},
            special_days=[""] * self.horizon,
        )
        self.redis.set(keys.of(tag, "explained", slot), stored.encode(), ex=60)
        return parts

    def write_scores(
        self, *, loss: float = 0.25, naive: float = 0.4, covered: float = 0.79
    ) -> None:
        """Write score sums of the last closed day: 100 units per step, ten series per partition."""
        sums = dict.fromkeys(SUMS, 0.0) | {
            "labels": 10, "weight": 10, "actual": 100, "loss": 50 * loss, "over": 5, "under": 15,
            "covered": 10 * covered, "inside": 9, "pit": 5,
            "naive_actual": 100, "naive_loss": 50 * naive, "beside_loss": 50 * loss,
            "outer": 9.8, "sum_weight": 10, "sum_covered": 8,
        }  # fmt: skip
        sums_VHK = np.zeros((len(VOLUMES), self.horizon, len(SUMS)))
        sums_VHK[VOLUMES.index("high")] = list(sums.values())
        day = (self.closed_through_ms - 1) // DAY_MS * DAY_MS
        for tag in range(self.partitions):
            key = keys.of(tag, "scores", day)
            self.redis.hset(key, self.model_id, sums_VHK.astype("<f8").tobytes())

    def flush(self) -> None:
        """Write the open bucket, progress and counters."""
        start = self.closed_through_ms
        newest = start + int(self.elapsed * self.bucket_ms)
        pipe = self.redis.pipeline(transaction=True)
        for p, slots in enumerate(self.slots_by_partition):
            pipe.set(keys.of(p, "open", start), self.sums_SF[slots].astype("<i8").tobytes())
        for tag in (*range(self.partitions), ROLLUPS):
            pipe.hset(
                keys.of(tag, "meta"),
                mapping={
                    "first_bucket_ms": self.start_ms,
                    "closed_through_ms": start,
                    "newest_ms:orders": newest,
                },
            )
        now_ms = time.time_ns() // 1_000_000
        rolled = self._rolled(self.sums_SF)
        orders = {"counted": self.counted // 10, "duplicate": 41, "late": 3, "rejected": 12}
        pipe.set(
            keys.stats("seeded"),
            json.dumps(
                {
                    "worker": "seeded",
                    "at_ms": now_ms,
                    "partitions": list(range(self.partitions)),
                    "events": {
                        "orders": orders,
                        "clicks": {"counted": self.counted - orders["counted"]},
                    },
                    "events_per_s": 18_432.0,
                    "latency_ms": {"p50": 41.0, "p99": 163.0},
                    "watermark_ms": newest - 120_000,
                    "newest_event_ms": newest,
                    "buckets_closed": self.closed,
                    "forecasts": self.closed * self.n_series,
                    "model_id": self.model_id,
                    "lag": 120,
                    "open_rollups": {
                        str(start): {
                            name: row.tolist()
                            for name, row in zip(self.rollups, rolled, strict=True)
                        }
                    },
                }
            ),
            px=10_000,
        )
        pipe.execute()

    def open_shop(self) -> None:
        """Write what a starting worker writes: deployment info, series, categories."""
        pipe = self.redis.pipeline(transaction=True)
        for p, slots in enumerate(self.slots_by_partition):
            pipe.rpush(keys.of(p, "series"), *(self.names[s] for s in slots))
            pipe.hset(
                keys.of(p, "categories"),
                mapping={self.names[s]: CATEGORIES[self.category_S[s]] for s in slots},
            )
        pipe.rpush(keys.of(ROLLUPS, "series"), *self.rollups)
        pipe.set(
            keys.info(),
            json.dumps(
                {
                    "bucket_ms": self.bucket_ms,
                    "partitions": self.partitions,
                    "horizon": self.horizon,
                    "quantiles": QUANTILES,
                    "feature_names": FEATURE_NAMES,
                    "spec_hash": FeatureSpec().hash,
                    "labels": {"orders": "seeded test shop", "clicks": self.clicks_label},
                    "started_ms": time.time_ns() // 1_000_000,
                }
            ),
        )
        pipe.execute()
        self.flush()


def stocked(redis: Any, *, days: int = 9, **shape: Any) -> Shop:
    """A shop with `days` of closed buckets and a partly filled open one."""
    shop = Shop(redis, **shape)
    shop.open_shop()
    for _ in range(days * DAY_MS // shop.bucket_ms + 14 * HOUR_MS // shop.bucket_ms):
        shop.close()
    shop.trickle(0.4)
    shop.flush()
    return shop


def moving(shop: Shop, *, buckets_per_s: float, flush_every_s: float = 0.25) -> Iterator[None]:
    """Advance the shop in real time, one flush per step, without end."""
    while True:
        time.sleep(flush_every_s)
        if shop.elapsed >= 0.999:
            shop.close()
        shop.trickle(buckets_per_s * flush_every_s)
        shop.flush()
        yield


def main() -> None:
    """Advance a shop in the store at the URL until interrupted."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("url")
    parser.add_argument("--buckets-per-s", type=float, default=1.0)
    parser.add_argument("--series", type=int, default=240)
    parser.add_argument("--days", type=int, default=9)
    given = parser.parse_args()
    shop = stocked(Redis.from_url(given.url), days=given.days, n_series=given.series)
    for _ in moving(shop, buckets_per_s=given.buckets_per_s):
        pass


if __name__ == "__main__":
    main()
