"""Cold start: forecasts of products unseen in training, from the first day they sell.

    python -m benchmarks.newcomers --orders orders_online_retail_II.parquet --split tune|test

Daily demand of every SKU of *Online Retail II* (UCI 502, CC BY 4.0). Trained on the days before a
date; scored on the SKUs that first sell after it, at the end of each of their first 14 days, 14
days ahead. The category is that of the shipped catalog (words of the description); only prices paid
so far are known. The newcomers are hidden from training.

Axes: T = buckets, S = newcomers, A = ages, H = horizon, Q = quantiles, X = static.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.accuracy.tasks import at, read_lines
from model.config import DECILES, ModelConfig, TrainConfig
from model.contract import FEATURE_NAMES
from model.durations import DAY_MS
from model.evaluation.metrics import pit_coverage, wql
from model.inference.forecaster import NetworkForecaster
from model.inputs.static_features import static_row
from model.training.dataset import History
from model.training.train import train

Floats = NDArray[np.float32]

HORIZON: Final = 14
AGES: Final = 14
#: Trained before the first day; newcomers start in [first, last].
SPLITS: Final = {
    "tune": ("2010-09-01", "2010-12-01"),
    "spring": ("2011-01-10", "2011-06-01"),
    "test": ("2011-07-01", "2011-11-11"),
}
VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "as it was": {},
    "embedding": {"static": 8},
    "prior": {"prior": True},
    "prior and embedding": {"prior": True, "static": 8},
}


def sku_days(lines: pl.DataFrame) -> History:
    """Daily history of every SKU, with its category."""
    start_ms, names = at("2009-12-01"), lines["sku"].unique().sort().to_list()
    place = {name: slot for slot, name in enumerate(names)}
    buckets = (at("2011-12-10") - start_ms) // DAY_MS
    values_TSF = np.zeros((buckets, len(names), len(FEATURE_NAMES)), np.float32)
    sums = (
        lines.with_columns(bucket=(pl.col("ts") - start_ms) // DAY_MS)
        .group_by("sku", "bucket")
        .agg(pl.col("quantity").sum(), pl.col("value").sum(), pl.len())
    )
    for name, bucket, units, value, count in sums.iter_rows():
        values_TSF[bucket, place[name], [0, 2, 3]] = (units, value, count)
    shipped = Path(__file__).parents[1] / "stream" / "jobs" / "files" / "data" / "catalog.parquet"
    catalog = pl.read_parquet(shipped, columns=["sku", "category"])
    category_of = dict(catalog.iter_rows())
    static_SX = np.stack([static_row(category_of.get(name.upper())) for name in names])
    return History(values_TSF, start_ms, DAY_MS, names, static_SX)


class Newcomers:
    """The SKUs of a history that first sell in [first, last], and their later demand."""

    def __init__(self, history: History, first: int, last: int) -> None:
        sold_TS = history.values_TSF[:, :, 0] > 0
        began_S = np.where(sold_TS.any(axis=0), sold_TS.argmax(axis=0), history.buckets)
        hidden = (began_S >= first) & (began_S <= last)
        self.first = first
        self.began_S = began_S[hidden]
        self.values_TSF = np.ascontiguousarray(history.values_TSF[:, hidden])
        self.static_SX = history.static_features_SX[hidden]
        self.start_ms = history.start_ms
        known = np.flatnonzero(began_S < first)
        self.seen = History(
            np.ascontiguousarray(history.values_TSF[:first, known]),
            history.start_ms,
            history.bucket_ms,
            [history.series[slot] for slot in known],
            history.static_features_SX[known],
        )

    @property
    def actual_SAH(self) -> Floats:
        """Units of the 14 days after each newcomer's first, second, … day."""
        reach_AH = 1 + np.arange(AGES)[:, None] + np.arange(HORIZON)
        units_ST = self.values_TSF[:, :, 0].T
        days_SAH = self.began_S[:, None, None] + reach_AH
        actual: Floats = units_ST[np.arange(len(units_ST))[:, None, None], days_SAH]
        return actual

    def forecast(self, network: NetworkForecaster) -> Floats:
        """Forecasts [S, A, H, Q], carried day by day from the first newcomer's first day."""
        states = network.new_states(len(self.began_S))
        states.set_static(self.static_SX)
        out = np.zeros((len(self.began_S), AGES, HORIZON, len(DECILES)), np.float32)
        for day in range(self.first, int(self.began_S.max()) + AGES):
            made = network.step(states, self.values_TSF[day], self.start_ms + day * DAY_MS)
            age_S = day - self.began_S
            young_S = np.flatnonzero((age_S >= 0) & (age_S < AGES))
            out[young_S, age_S[young_S]] = made.units_SHQ[young_S]
        return out

    def category_mean(self) -> Floats:
        """Mean of the first four weeks of a category's earlier newcomers, a point [S, A, H, Q]."""
        sold_TS = self.seen.values_TSF[:, :, 0] > 0
        began_S = sold_TS.argmax(axis=0)
        grown = np.flatnonzero((began_S >= 28) & (began_S < self.first - 28))
        mean_S = np.array(
            [self.seen.values_TSF[began_S[s] + 1 : began_S[s] + 29, s, 0].mean() for s in grown]
        )
        category_S = self.seen.static_features_SX[grown, 0]
        of = {c: mean_S[category_S == c].mean() for c in np.unique(category_S)}
        point_S = np.array([of.get(c, mean_S.mean()) for c in self.static_SX[:, 0]], np.float32)
        shape = (len(point_S), AGES, HORIZON, len(DECILES))
        return np.broadcast_to(point_S[:, None, None, None], shape)


def mean_of(forecast_NQ: Floats) -> float:
    """Mean of forecasts given by deciles: linear between them, exponential beyond the last.

    >>> round(mean_of(-np.log1p(-np.array([DECILES]))), 2)  # of an exponential with mean 1
    1.01
    """
    low_N, middle_N, high_N = forecast_NQ[:, 0], forecast_NQ[:, 4], forecast_NQ[:, -1]
    between_N = (forecast_NQ[:, 1:] + forecast_NQ[:, :-1]).mean(axis=1) * 0.4
    beyond_N = high_N + (high_N - middle_N) / np.log(5)
    return float((0.05 * low_N + between_N + 0.1 * beyond_N).mean())


def report(name: str, actual_SAH: Floats, forecast: Floats) -> str:
    """One row: WQL, coverage of the 80 % band and level, of the first day, week and fortnight."""
    parts = []
    for ages in (slice(0, 1), slice(0, 7), slice(0, AGES)):
        actual_N = actual_SAH[:, ages].reshape(-1).astype(np.float64)
        forecast_NQ = forecast[:, ages].reshape(-1, len(DECILES))
        level = mean_of(forecast_NQ) / actual_N.mean()
        score = wql(actual_N, forecast_NQ, DECILES)
        covered = pit_coverage(actual_N, forecast_NQ, DECILES)
        parts.append(f"{score:.3f} | {covered:.2f} | {level:.2f}")
    return f"| {name} | {' | '.join(parts)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--orders", type=Path, required=True)
    parser.add_argument("--split", choices=SPLITS, default="tune")
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    history = sku_days(read_lines(arguments.orders))
    first, last = ((at(day) - history.start_ms) // DAY_MS for day in SPLITS[arguments.split])
    newcomers = Newcomers(history, first, last)
    actual_SAH = newcomers.actual_SAH
    print(f"{len(newcomers.began_S)} newcomers, {actual_SAH.mean():.3f} units per day", flush=True)
    print(report("category mean", actual_SAH, newcomers.category_mean()), flush=True)
    more: dict[str, Any] = {}
    for pair in arguments.set:
        name, _, value = pair.partition("=")
        more[name] = float(value) if "." in value else int(value)
    for name in arguments.variants.split(","):
        model = ModelConfig(horizon=HORIZON, bucket_ms=DAY_MS, dropout=0.15, **VARIANTS[name])
        config = TrainConfig(
            model=model, seed=arguments.seed, updates=arguments.updates, chunk=64, max_series=6_000,
            volume_power=0.5,
        )  # fmt: skip
        trained = train(newcomers.seen, replace(config, **more))
        forecast = newcomers.forecast(NetworkForecaster(trained.network, name, threads=1))
        print(report(name, actual_SAH, forecast), flush=True)


if __name__ == "__main__":
    main()
