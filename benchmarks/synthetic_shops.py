"""What synthetic shops look like: quantiles of simple statistics over the series of many shops.

    python -m benchmarks.synthetic_shops --bucket-hours 24 --shops 200

Axes: T = buckets, S = series.
"""

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from model.durations import DAY_MS, HOUR_MS
from model.inputs.carried_statistics import STOCKOUT_SHARE, UNITS
from model.inputs.plans import PROMOTION
from model.pretraining.synthetic.shop import synthetic_shop

Reals = NDArray[np.float64]
LEVELS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bucket-hours", type=float, default=24.0)
    parser.add_argument("--shops", type=int, default=200)
    parser.add_argument("--series", type=int, default=40)
    parser.add_argument("--buckets", type=int, default=1_095)
    options = parser.parse_args()
    bucket_ms = round(options.bucket_hours * HOUR_MS)
    rows: dict[str, list[Reals]] = {}
    began_s = time.perf_counter()
    for seed in range(options.shops):
        shop = synthetic_shop(
            bucket_ms=bucket_ms, buckets=options.buckets, series=options.series, seed=seed
        )
        plans = shop.history.plans
        assert plans is not None
        promoted_TS = plans.dense(options.series)[:, :, PROMOTION] > 0
        found = statistics(shop.history.values_TSF[:, :, UNITS].astype(np.float64), bucket_ms)
        found["promoted"] = promoted_TS.mean(axis=0)
        found["sold_out"] = (shop.history.values_TSF[:, :, STOCKOUT_SHARE] > 0.5).mean(axis=0)
        for name, value_S in found.items():
            rows.setdefault(name, []).append(value_S)
    print(f"{options.shops} shops in {time.perf_counter() - began_s:.1f} s")
    table = {name: np.concatenate(parts) for name, parts in rows.items()}
    for low, high in ((0.0, 0.2), (0.2, 5.0), (5.0, np.inf)):
        chosen_N = (table["mean"] > low) & (table["mean"] <= high)
        title = f"{low:g} – {high:g} units: {chosen_N.sum()}"
        print(f"{title:28}" + "".join(f"{level:>9}" for level in LEVELS))
        for name, value_N in table.items():
            found_N = value_N[chosen_N & np.isfinite(value_N)]
            if found_N.size:
                line = "".join(f"{q:9.3f}" for q in np.quantile(found_N, LEVELS))
                print(f"{name:28}{line}")


def statistics(units_TS: Reals, bucket_ms: int) -> dict[str, Reals]:
    """Statistics [S] of each series; NaN where it sells too little for one.

    `week`, `year` are the shares of the variance of log(1 + units) that the mean profile of a week
    and the smooth one of a year explain, `lag` the autocorrelation of what is left.
    """
    mean_S = units_TS.mean(axis=0)
    sold_S = (units_TS > 0).sum(axis=0)
    week = max(7 * DAY_MS // bucket_ms, 1)
    year = max(round(365.25 * DAY_MS / bucket_ms), 1)
    log_TS = np.log1p(units_TS)
    log_TS = log_TS - _smooth(log_TS, min(2 * year, 2 * len(log_TS)))
    with np.errstate(all="ignore"):
        found = {
            "mean": mean_S,
            "zeros": (units_TS == 0).mean(axis=0),
            "cv": units_TS.std(axis=0) / mean_S,
            "size": units_TS.sum(axis=0) / sold_S,
            "whole": (units_TS % 1 == 0).all(axis=0).astype(float),
        }
        noise_TS = log_TS
        if week > 1:
            noise_TS, found["week"] = _explained(log_TS, week)
        if len(units_TS) >= 2 * year:
            smooth_TS = _smooth(noise_TS, max(week, 3))
            found["year"] = _explained(smooth_TS, year)[1]
            noise_TS = noise_TS - _profile(smooth_TS, year)
        found["noise"] = noise_TS.std(axis=0)
        found["lag 1"] = _lag(noise_TS, 1)
        found["lag week"] = _lag(noise_TS, max(week, 2))
        found["naive"] = _naive(units_TS, week)
        return found


def _smooth(values_TS: Reals, width: int) -> Reals:
    total_TS = np.cumsum(np.pad(values_TS, ((1, 0), (0, 0))), axis=0)
    at_T = np.arange(len(values_TS))
    low_T = np.maximum(at_T - width // 2, 0)
    high_T = np.minimum(at_T + width // 2 + 1, len(values_TS))
    mean_TS: Reals = (total_TS[high_T] - total_TS[low_T]) / (high_T - low_T)[:, None]
    return mean_TS


def _profile(values_TS: Reals, period: int) -> Reals:
    """Mean of each phase of the period, at each bucket."""
    phase_T = np.arange(len(values_TS)) % period
    sums_PS = np.zeros((period, values_TS.shape[1]))
    np.add.at(sums_PS, phase_T, values_TS)
    counts_P = np.maximum(np.bincount(phase_T, minlength=period), 1)
    profile_TS: Reals = (sums_PS / counts_P[:, None])[phase_T]
    return profile_TS


def _explained(values_TS: Reals, period: int) -> tuple[Reals, Reals]:
    """What the profile of the period leaves, and the share of the variance it explains."""
    left_TS = values_TS - _profile(values_TS, period)
    return left_TS, 1.0 - left_TS.var(axis=0) / values_TS.var(axis=0)


def _lag(values_TS: Reals, lag: int) -> Reals:
    values_TS = values_TS - values_TS.mean(axis=0)
    covariance_S = (values_TS[lag:] * values_TS[:-lag]).mean(axis=0)
    lag_S: Reals = covariance_S / values_TS.var(axis=0)
    return lag_S


def _naive(units_TS: Reals, week: int) -> Reals:
    """Mean absolute error of the same bucket a week ago, in multiples of the mean."""
    error_S = np.abs(units_TS[week:] - units_TS[:-week]).mean(axis=0)
    naive_S: Reals = error_S / units_TS.mean(axis=0)
    return naive_S


if __name__ == "__main__":
    main()
