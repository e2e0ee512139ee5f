"""`surgecast bench inference`: one forecast step of all series, with and without carried state.

`carried` is the cost of one closed bucket in a worker: statistics, network and all heads of every
series, with the results in host memory. `reread` is the same forecast without carried state, from
the last buckets of history; its time is proportional to the series, so it is measured on a part
and scaled up. `floor` is the machine's limit: the time for the matrix products or for moving the
bytes once, whichever is longer, without functions such as exp and log.

Axes: S = series, F = features, T = buckets.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import torch

from model.config import ModelConfig
from model.contract import FEATURE_NAMES
from model.durations import HOUR_MS
from model.inference.forecaster import Floats, NetworkForecaster
from model.inputs.seasons.calendar import N_CALENDAR
from model.inputs.series_inputs import input_names
from model.networks.quantile_network import QuantileNetwork
from stream.bench.report import Row
from stream.settings import ModelSettings

_STEPS = 15
_REREAD_SERIES = 8_192


def bench_inference(
    settings: ModelSettings,
    *,
    device: str,
    series: int,
    context: int,
    notify: Callable[[str], None],
) -> list[Row]:
    """Seconds per step of `series` series; `reread` reads `context` buckets."""
    config = ModelConfig(
        horizon=settings.horizon,
        bucket_ms=HOUR_MS,
        quantiles=settings.quantiles,
        architecture=settings.architecture,
        targets=settings.targets,
    )
    torch.manual_seed(0)
    network = QuantileNetwork(config)
    forecaster = NetworkForecaster(network, "bench", device, rounded=settings.rounded)
    notify(f"carried: {_STEPS} steps of {series:,} series")
    carried = _carried(forecaster, series)
    few = min(series, _REREAD_SERIES)
    notify(f"reread: {context} buckets of {few:,} series")
    reread = _reread(forecaster, few, context) * series / few
    notify("floor: matrix products and copies")
    floor = _floor(forecaster, series)
    ratio = round(reread / carried.value, 1)
    facts = {"context": context, "measured_series": few, "of_carried": ratio}
    return [carried, Row("reread", round(reread, 2), "s", facts), floor]


def closed_bucket(series: int, *, seed: int = 0) -> Floats:
    """A closed bucket [S, F] with sparse demand and clicks.

    >>> closed_bucket(3).shape[0]
    3
    """
    rng = np.random.default_rng(seed)
    names = {name: column for column, name in enumerate(FEATURE_NAMES)}
    values_SF = np.zeros((series, len(FEATURE_NAMES)), np.float32)
    units_S = rng.poisson(0.4, series)
    for name, value_S in (
        ("units", units_S),
        ("revenue", 2.5 * units_S),
        ("orders", units_S > 0),
        ("views", rng.poisson(2.0, series)),
        ("visitors", rng.poisson(1.5, series)),
    ):
        values_SF[:, names[name]] = value_S
    return values_SF


def _carried(forecaster: NetworkForecaster, series: int) -> Row:
    process = psutil.Process()
    before = process.memory_info().rss
    states = forecaster.new_states(series)
    buckets = [closed_bucket(series, seed=seed) for seed in range(2)]
    inputs = sum(values.nbytes for values in buckets)
    seconds = []
    forecast = None
    for step in range(_STEPS + 3):
        began = time.perf_counter()
        forecast = forecaster.step(states, buckets[step % 2], step * HOUR_MS)
        seconds.append(time.perf_counter() - began)
    assert forecast is not None
    blocks = (forecast.units_SHQ, forecast.cumulative_SHQ, *forecast.extras.values())
    forecast_bytes = sum(block_SHQ.nbytes for block_SHQ in blocks)
    facts: dict[str, Any] = {
        "series": series,
        "least": round(min(seconds[3:]), 4),
        "threads": torch.get_num_threads(),
        "precision": str(forecaster.network.encoder.products).removeprefix("torch."),
        "state_bytes_per_series": states.bytes_per_series,
        "forecast_bytes_per_series": forecast_bytes // series,
        "rss_bytes_per_series": (process.memory_info().rss - before - inputs) // series,
    }
    return Row("carried", round(statistics.median(seconds[3:]), 4), "s", facts)


def _reread(forecaster: NetworkForecaster, series: int, context: int) -> float:
    history_TSF = np.stack([closed_bucket(series, seed=seed) for seed in range(context)])
    began = time.perf_counter()
    states = forecaster.new_states(series)
    forecaster.warm_up(states, history_TSF[:-1], 0)
    forecaster.step(states, history_TSF[-1], (context - 1) * HOUR_MS)
    return time.perf_counter() - began


def step_cost(forecaster: NetworkForecaster) -> tuple[int, int]:
    """Operations of the matrix products of one step of one series, and the bytes it must move.

    The products of the calendar terms are left out: they are the same for all series.
    """
    config, network = forecaster.config, forecaster.network
    inputs = len(input_names(config))
    outputs = network.heads.blocks * config.horizon * len(config.quantiles)
    products = network.heads.project.weight.numel() + config.rank * outputs
    assert isinstance(network.encoder, torch.nn.Module)
    for weight in network.encoder.parameters():
        if weight.dim() == 2:
            products += weight.numel()
            if weight.shape[1] == inputs + N_CALENDAR:
                products -= weight.shape[0] * N_CALENDAR
    states = forecaster.new_states(1)
    moved = 2 * states.bytes_per_series + 4 * (len(FEATURE_NAMES) + outputs)
    return 2 * products, moved


def _floor(forecaster: NetworkForecaster, series: int) -> Row:
    operations, moved = step_cost(forecaster)
    device = forecaster.device
    square, count = (1_024, 8) if device.type == "cpu" else (8_192, 10)
    a = torch.rand(square, square, device=device)
    per_s = 2 * square**3 / _seconds(lambda: torch.mm(a, a), count, device)
    source = torch.rand(16 * 2**20, device=device)
    target = torch.empty_like(source)
    bytes_per_s = 2 * source.nbytes / _seconds(lambda: target.copy_(source), count, device)
    arithmetic, traffic = series * operations / per_s, series * moved / bytes_per_s
    facts = {
        "products_s": round(arithmetic, 4),
        "bytes_s": round(traffic, 4),
        "gflop_per_s": round(per_s / 1e9),
        "gb_per_s": round(bytes_per_s / 1e9, 1),
    }
    return Row("floor", round(max(arithmetic, traffic), 4), "s", facts)


def _seconds(work: Callable[[], object], count: int, device: torch.device) -> float:
    """Shortest of `count` runs of `work`, in seconds."""
    best = float("inf")
    for _ in range(count + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return best
