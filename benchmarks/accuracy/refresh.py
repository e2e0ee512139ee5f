"""Time of new forecasts for 10,000 series after a day closes: one step against peers' predict.

    python -m benchmarks.accuracy.refresh --series 10000

Daily buckets, 28 days ahead, nine deciles, sparse synthetic counts; models are fitted briefly on
few series, because the time of a forecast does not depend on its accuracy. Surgecast carries its
state; the peers read their context again. Models with a constant cost for each series (statistical
models, refitted for each) are measured on `--few` and scaled up. Needs the peers' packages; a
missing one is reported and left out.

Axes: T = buckets, S = series, F = features, H = horizon.
"""

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from model.config import DECILES, ModelConfig
from model.contract import FEATURE_NAMES
from model.durations import DAY_MS
from model.inference.forecaster import NetworkForecaster
from model.inputs.seasons.calendar import calendar_features
from model.networks.quantile_network import QuantileNetwork

HORIZON = 28
PEERS = ("NHITS", "DeepAR", "LightGBM", "AutoETS", "DynamicOptimizedTheta", "CrostonSBA")
_LEVELS = (20, 40, 60, 80)
_PACKAGES = ("torch", "numpy", "statsforecast", "lightgbm", "neuralforecast")


def demand(buckets: int, series: int) -> np.ndarray:
    """Counts [T, S] with a weekly rhythm, most of them small, seeded."""
    rng = np.random.default_rng(0)
    level_S = rng.gamma(0.6, 3.0, series)
    week_T = 1 + 0.4 * np.sin(2 * np.pi * np.arange(buckets) / 7)
    return rng.poisson(level_S * week_T[:, None]).astype(np.float32)


def surgecast(units_TS: np.ndarray) -> float:
    """Median seconds of one carried step."""
    model = ModelConfig(horizon=HORIZON, bucket_ms=DAY_MS)
    torch.manual_seed(0)
    forecaster = NetworkForecaster(QuantileNetwork(model), "refresh")
    states = forecaster.new_states(units_TS.shape[1])
    values_TSF = np.zeros((*units_TS.shape, len(FEATURE_NAMES)), np.float32)
    values_TSF[:, :, 0] = units_TS
    forecaster.warm_up(states, values_TSF[:-20], 0)
    seconds = []
    for t in range(len(units_TS) - 20, len(units_TS)):
        began = time.perf_counter()
        forecaster.step(states, values_TSF[t], t * DAY_MS)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def statistical(name: str, units_TS: np.ndarray) -> float:
    """Seconds of fitting and forecasting in one call, on all cores."""
    import statsforecast.models as library
    from statsforecast import StatsForecast
    from statsforecast.utils import ConformalIntervals

    frame = _long(units_TS)
    intervals = ConformalIntervals(n_windows=2, h=HORIZON)
    model = (
        library.CrostonSBA(prediction_intervals=intervals)
        if name == "CrostonSBA"
        else getattr(library, name)(season_length=7)
    )
    few = StatsForecast([model], freq=1, n_jobs=1)  # compile before timing
    few.forecast(df=frame[frame["unique_id"] < 2], h=HORIZON, level=list(_LEVELS))
    began = time.perf_counter()
    StatsForecast([model], freq=1, n_jobs=os.cpu_count() or 1).forecast(
        df=frame, h=HORIZON, level=list(_LEVELS)
    )
    return time.perf_counter() - began


def lightgbm(units_TS: np.ndarray) -> float:
    """Seconds of features and predictions of one direct model for each quantile."""
    import lightgbm as library

    starts = DAY_MS * np.arange(len(units_TS) + HORIZON, dtype=np.int64)
    calendar_TC = calendar_features(starts, bucket_ms=DAY_MS, country="GB")
    models = []
    design, target = _design(units_TS[:-HORIZON, :300], calendar_TC), units_TS[-HORIZON:, :300]
    for q in DECILES:
        settings = {"objective": "quantile", "alpha": q, "num_leaves": 63, "verbose": -1}
        table = library.Dataset(design, target.reshape(-1), free_raw_data=False)
        models.append(library.train(settings, table, 150))
    began = time.perf_counter()
    rows = _design(units_TS, calendar_TC)
    for model in models:
        model.predict(rows)
    return time.perf_counter() - began


def _design(units_TS: np.ndarray, calendar_TC: np.ndarray) -> np.ndarray:
    """Lags, means and the calendar of every target bucket: [H · S, X]."""
    lags_SX = units_TS[-28:].T
    means_SX = np.stack([units_TS[-span:].mean(axis=0) for span in (7, 28, 56, 112)], axis=1)
    fixed_SX = np.concatenate((lags_SX, means_SX), axis=1)
    place, series = len(units_TS), len(fixed_SX)
    steps = [
        np.column_stack(
            (fixed_SX, np.full(series, h), np.repeat(calendar_TC[place + h][None], series, axis=0))
        )
        for h in range(HORIZON)
    ]
    return np.concatenate(steps).astype(np.float32)


def neural(name: str, units_TS: np.ndarray) -> float:
    """Seconds of predict of a network of neuralforecast for all series at once."""
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import DistributionLoss, MQLoss
    from neuralforecast.models import NHITS, DeepAR

    plain = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    shape = {"h": HORIZON, "input_size": 4 * HORIZON, "max_steps": 5, "accelerator": "cpu"}
    if name == "NHITS":
        model = NHITS(loss=MQLoss(quantiles=list(DECILES)), **shape, **plain)
    else:
        loss = DistributionLoss("NegativeBinomial", quantiles=list(DECILES))
        model = DeepAR(loss=loss, **shape, **plain)
    network = NeuralForecast([model], freq=1)
    network.fit(_long(units_TS[:, :200]))
    frame = _long(units_TS)
    began = time.perf_counter()
    network.predict(frame)
    return time.perf_counter() - began


def _long(units_TS: np.ndarray):
    import pandas as pd

    buckets, series = units_TS.shape
    return pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(series), buckets),
            "ds": np.tile(np.arange(buckets), series),
            "y": units_TS.T.reshape(-1).astype(float),
        }
    )


def main() -> None:
    """Measure all installed models; print a row each, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--buckets", type=int, default=365)
    parser.add_argument("--models", default=",".join(PEERS))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    units_TS = demand(arguments.buckets, arguments.series)
    few_TS = units_TS[:, : arguments.few]
    scale = arguments.series / arguments.few
    peers: dict[str, Callable[[], float]] = {
        "NHITS": lambda: neural("NHITS", units_TS),
        "DeepAR": lambda: neural("DeepAR", units_TS),
        "LightGBM": lambda: lightgbm(units_TS),
        "AutoETS": lambda: statistical("AutoETS", few_TS) * scale,
        "DynamicOptimizedTheta": lambda: statistical("DynamicOptimizedTheta", few_TS) * scale,
        "CrostonSBA": lambda: statistical("CrostonSBA", few_TS) * scale,
    }
    ours = surgecast(units_TS)
    rows = [{"model": "surgecast, carried", "seconds": round(ours, 4), "times_ours": 1.0}]
    print(json.dumps(rows[0]), flush=True)
    for name in arguments.models.split(","):
        try:
            seconds = peers[name]()
        except ImportError as error:
            print(json.dumps({"model": name, "left_out": str(error)}), flush=True)
            continue
        row = {"model": name, "seconds": round(seconds, 2), "times_ours": round(seconds / ours)}
        print(json.dumps(row), flush=True)
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    print(json.dumps({"series": arguments.series, "buckets": arguments.buckets, **versions}))


if __name__ == "__main__":
    main()
