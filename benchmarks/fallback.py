"""The fallback without a network: exponential smoothing against the seasonal naive.

    python -m benchmarks.fallback --orders orders_online_retail_II.parquet

Units of the 1,000 best sellers of each period, hourly (42 days, 24 ahead) and daily (240, 7 ahead),
carried bucket by bucket; scored at every seventh origin after the warm-up. For the 300 best
sellers, the other 700, and 21 sums of them (20 random groups, and all): WQL, PIT coverage of the 80
% band, and that of the busy hours (9 to 16 UTC). No period includes a test origin. The hourly
periods from March and June 2010 were first used after all constants were chosen.

Axes: T = buckets, S = series, N = origins, H = horizon, Q = quantiles.
"""

import argparse
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from model.baselines.exponential_smoothing import SmoothingForecaster
from model.baselines.seasonal import SeasonalForecaster
from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.config import DECILES
from model.contract import FEATURE_NAMES
from model.durations import DAY_MS, HOUR_MS
from model.evaluation.metrics import pit_coverage, wql

SKUS, BEST, GROUPS, EVERY = 1_000, 300, 20, 7
BUSY: Final = range(9, 16)


class Period(NamedTuple):
    """A period of the orders, with `warm_up` buckets before the first origin."""

    start: str
    bucket_ms: int
    buckets: int
    warm_up: int
    horizon: int


PERIODS: Final = [
    *(Period(day, HOUR_MS, 42 * 24, warm_up * 24, 24)
      for day in ("2010-10-04", "2011-05-02") for warm_up in (8, 28)),
    *(Period(day, HOUR_MS, 42 * 24, 28 * 24, 24) for day in ("2010-03-01", "2010-06-14")),
    *(Period(day, DAY_MS, 240, warm_up, 7)
      for day in ("2010-02-01", "2010-10-01") for warm_up in (21, 120)),
]  # fmt: skip


def units(orders: Path, period: Period) -> tuple[int, np.ndarray]:
    """Start in ms, and units sold [T, S], best sellers first."""
    start_ms = int(np.datetime64(period.start, "ms").astype(np.int64))
    end_ms = start_ms + period.buckets * period.bucket_ms
    sold = (
        pl.scan_parquet(orders)
        .filter(pl.col("ts").is_between(start_ms, end_ms, closed="left"), pl.col("quantity") > 0)
        .collect()
    )
    best = (
        sold.group_by("sku")
        .agg(pl.col("quantity").sum())
        .sort("quantity", "sku", descending=[True, False])
        .head(SKUS)
        .with_row_index("slot")
        .select("sku", "slot")
    )
    sold = sold.join(best, on="sku")
    units_TS = np.zeros((period.buckets, SKUS), np.float32)
    place_N = (sold["ts"].to_numpy() - start_ms) // period.bucket_ms
    np.add.at(units_TS, (place_N, sold["slot"].to_numpy()), sold["quantity"].to_numpy())
    return start_ms, units_TS


def rolling_forecasts(
    model: SeasonalForecaster, period: Period, start_ms: int, units_TS: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Demand [N, S, H], its forecasts [N, S, H, Q], and the hour of each step [N, H]."""
    values_TSF = np.zeros((*units_TS.shape, len(FEATURE_NAMES)), np.float32)
    values_TSF[:, :, 0] = units_TS
    states = model.new_states(units_TS.shape[1])
    model.warm_up(states, values_TSF[: period.warm_up], start_ms)
    actual, forecasts, hours = [], [], []
    for place in range(period.warm_up, len(units_TS) - period.horizon):
        made = model.step(states, values_TSF[place], start_ms + place * period.bucket_ms)
        if (place - period.warm_up) % EVERY == 0:
            ahead = np.arange(place + 1, place + 1 + period.horizon)
            actual.append(units_TS[ahead].T)
            forecasts.append(made.units_SHQ)
            hours.append((start_ms + ahead * period.bucket_ms) // HOUR_MS % 24)
    return np.stack(actual).astype(float), np.stack(forecasts).astype(float), np.stack(hours)


def main() -> None:
    """Print a line for each period, model and kind of series."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=Path, required=True)
    orders = parser.parse_args().orders
    group_S = np.random.default_rng(0).integers(0, GROUPS, SKUS)
    for period in PERIODS:
        start_ms, units_TS = units(orders, period)
        sums = [units_TS[:, group_S == group].sum(axis=1) for group in range(GROUPS)]
        kinds = {
            "best": units_TS[:, :BEST],
            "other": units_TS[:, BEST:],
            "sums": np.stack([*sums, units_TS.sum(axis=1)], axis=1),
        }
        print(f"{period.start}, {period.warm_up} of {period.buckets} buckets to warm up")
        for model in (SmoothingForecaster, SeasonalNaiveForecaster):
            for kind, series_TS in kinds.items():
                forecaster = model(horizon=period.horizon, bucket_ms=period.bucket_ms)
                actual, made, hour_NH = rolling_forecasts(forecaster, period, start_ms, series_TS)
                busy = np.broadcast_to(np.isin(hour_NH, BUSY)[:, None, :], actual.shape)
                if period.bucket_ms == DAY_MS:
                    busy = np.ones_like(busy)
                actual_N, made_NQ = actual.ravel(), made.reshape(-1, len(DECILES))
                print(
                    f"  {forecaster.model_id:24}{kind:6} "
                    f"WQL {wql(actual_N, made_NQ, DECILES):.4f}  "
                    f"PIT {pit_coverage(actual_N, made_NQ, DECILES):.3f}"
                    f"  busy {pit_coverage(actual[busy], made[busy], DECILES):.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
