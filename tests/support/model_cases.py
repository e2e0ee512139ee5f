"""Series and histories for tests of the forecaster: real ones and difficult ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from model.config import ModelConfig, Target, TrainConfig
from model.contract import FEATURE_NAMES, QuantileForecast
from model.durations import DAY_MS, HOUR_MS
from model.inference.cuda_graph_stepper import FixedShapeStepper
from model.inference.forecaster import Forecaster, NetworkForecaster, States
from model.inference.network_states import NetworkStates
from model.inputs.carried_statistics import STOCK, STOCKOUT_SHARE, UNITS
from model.inputs.plans import Plans
from model.inputs.seasons.season_layout import BucketPhases, layout_of
from model.inputs.series_inputs import carry_statistics, new_carried
from model.networks.quantile_network import QuantileNetwork
from model.training.dataset import History
from model.training.train import Trained

Floats = NDArray[np.float32]

#: A Monday, 2011-10-03T00:00Z.
START_MS = 1_317_600_000_000
#: All encoders; the variants add the fixed-shape steps of a GPU.
ARCHITECTURES = ("lstm", "gru", "transformer")
VARIANTS = (*ARCHITECTURES, "lstm-fixed_shape")
_ORDERS = Path(__file__).parents[2] / "stream" / "jobs" / "files" / "data" / "orders.parquet"


def real_hours(*, days: int = 21, series: int = 40, start_ms: int = START_MS) -> Floats:
    """Closed hourly buckets [T, S, F] of the shipped sample: its best sellers of the period."""
    orders = pl.read_parquet(_ORDERS, columns=["ts", "sku", "quantity", "unit_price"])
    window = orders.filter(pl.col("ts").is_between(start_ms, start_ms + days * DAY_MS - 1))
    best = window.group_by("sku").len().sort(["len", "sku"], descending=[True, False])
    place = {sku: slot for slot, sku in enumerate(best["sku"].head(series))}
    values_TSF = np.zeros((days * 24, series, len(FEATURE_NAMES)), np.float32)
    for ts, sku, quantity, price in window.iter_rows():
        if sku in place:
            row = values_TSF[(ts - start_ms) // HOUR_MS, place[sku]]
            row[:4] += (max(quantity, 0), max(-quantity, 0), quantity * price, 1)
    return values_TSF


def awkward(buckets: int = 400, *, seed: int = 3) -> tuple[list[str], Floats]:
    """Names and closed buckets [T, S, F] of series that break careless models."""
    rng = np.random.default_rng(seed)
    out_T = (np.arange(buckets) >= buckets // 4) & (np.arange(buckets) < buckets // 2)
    units = {
        "all zero": np.zeros(buckets),
        "one spike": np.where(np.arange(buckets) == buckets // 2, 5_000.0, 0.0),
        "level shift": np.where(np.arange(buckets) < buckets // 2, 2.0, 900.0),
        "0 to 4 units": rng.choice(5, buckets, p=(0.8, 0.1, 0.06, 0.03, 0.01)),
        "sold once, then nothing": np.where(np.arange(buckets) == 0, 1.0, 0.0),
        "huge": rng.poisson(2e6, buckets),
        "sold out": np.where(out_T, 0, rng.poisson(6.0, buckets)),
        "never in stock": np.zeros(buckets),
    }
    values_TSF = np.zeros((buckets, len(units), len(FEATURE_NAMES)), np.float32)
    for slot, units_T in enumerate(units.values()):
        values_TSF[:, slot, 0] = units_T
        values_TSF[:, slot, 2] = 1.5 * units_T
        values_TSF[:, slot, 3] = units_T > 0
    names = list(units)
    stock_up(values_TSF, names.index("sold out"), out_T)
    stock_up(values_TSF, names.index("never in stock"), np.ones(buckets, np.bool_))
    return names, values_TSF


def stock_up(values_TSF: Floats, slot: int, out_T: NDArray[np.bool_]) -> None:
    """Set a series' stock, in place: 50 on hand, none where `out_T`."""
    values_TSF[:, slot, STOCK] = np.where(out_T, 1, 51)
    values_TSF[:, slot, STOCKOUT_SHARE] = out_T


def with_clicks(values_TSF: Floats, *, seed: int = 5) -> Floats:
    """The same buckets with synthetic clicks around the orders, and stock of every third series."""
    rng = np.random.default_rng(seed)
    values_TSF = values_TSF.copy()
    views = rng.poisson(0.3 + 8 * values_TSF[..., 3])
    values_TSF[..., 4] = views
    values_TSF[..., 5] = rng.binomial(views, 0.2)
    values_TSF[..., 7] = values_TSF[..., 3]
    values_TSF[..., 8] = np.ceil(views * 0.7)
    out_T = rng.random(len(values_TSF)) < 0.2
    for slot in range(0, values_TSF.shape[1], 3):
        stock_up(values_TSF, slot, out_T)
    return values_TSF


def phases_at(start_ms: int, bucket_ms: int = HOUR_MS, country: str | None = None) -> BucketPhases:
    """The phases of the bucket that starts at `start_ms`."""
    return layout_of(bucket_ms).buckets(torch.tensor([start_ms]), country).at(0)


def carried_through(
    units_TS: NDArray[np.floating[Any]], config: ModelConfig, *, start_ms: int = START_MS
) -> torch.Tensor:
    """Statistics [S, K] of series that sold `units_TS` in the buckets from `start_ms` on."""
    stats_SK = new_carried(units_TS.shape[1], config)
    starts = start_ms + config.bucket_ms * torch.arange(len(units_TS))
    phases = layout_of(config.bucket_ms).buckets(
        starts, config.holidays_country, timezone=config.timezone
    )
    for t, units_S in enumerate(units_TS):
        values_SF = torch.zeros(len(units_S), len(FEATURE_NAMES))
        values_SF[:, UNITS] = torch.from_numpy(units_S.astype(np.float32))
        carry_statistics(stats_SK, values_SF, phases.at(t), config)
    return stats_SK


def untrained(
    *, seed: int = 0, horizon: int = 24, bucket_ms: int = HOUR_MS, **changes: object
) -> NetworkForecaster:
    """A small network with seeded random weights, far from new ones: the laws apply to any."""
    config = ModelConfig.from_dict(
        ModelConfig(
            horizon=horizon, bucket_ms=bucket_ms, hidden=16, layers=2, rank=8, context=16
        ).as_dict()
        | changes
    )
    torch.manual_seed(seed)
    network = QuantileNetwork(config)
    with torch.no_grad():
        network.heads.write.weight.mul_(10.0)
        network.heads.gates.weight.normal_(std=0.5)
    return NetworkForecaster(network, f"untrained-{config.architecture}")


#: Settings of a network with all static features.
STATIC_SETTINGS: dict[str, object] = {"static": 4, "prior": True}


def with_static(*, seed: int = 5, **changes: object) -> NetworkForecaster:
    """The small network with embeddings and a prior, with random numbers for the trained ones."""
    forecaster = untrained(**STATIC_SETTINGS, **changes)  # type: ignore[arg-type]  # settings by name
    embedding, prior = forecaster.network.embedding, forecaster.network.prior
    assert embedding is not None
    assert prior is not None
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        embedding.rows.normal_(generator=generator)
        embedding.met.fill_(1.0)
        prior.common.copy_(torch.tensor([0.5, 0.1, -0.3, 0.2, 0.4, 0.2, -0.3, 0.2]))
        prior.category_R.normal_(generator=generator)
        prior.worth_days.fill_(3.0)
    return forecaster


def with_fixed_shape(forecaster: NetworkForecaster) -> NetworkForecaster:
    """The same network, stepped as on a GPU."""
    return NetworkForecaster(forecaster.network, forecaster.model_id, stepper=FixedShapeStepper)


def of_variant(name: str, make: Callable[..., NetworkForecaster]) -> NetworkForecaster:
    """The network that `make` builds for one of the `VARIANTS`."""
    architecture, _, variant = name.partition("-")
    made = make(architecture=architecture)
    return with_fixed_shape(made) if variant == "fixed_shape" else made


def step_through(
    forecaster: Forecaster,
    values_TSF: Floats,
    plans: Plans | None = None,
    *,
    static_SX: Floats | None = None,
) -> QuantileForecast:
    """The last forecast of hourly buckets, stepped one by one."""
    states = _new_states(forecaster, static_SX)
    forecast = None
    for t, values_SF in enumerate(values_TSF):
        known = None if plans is None else plans.between(t, t + 1 + forecaster.horizon)
        forecast = forecaster.step(states, values_SF, START_MS + t * HOUR_MS, known)
    assert forecast is not None
    return forecast


def reread(
    forecaster: Forecaster,
    values_TSF: Floats,
    plans: Plans | None = None,
    *,
    static_SX: Floats | None = None,
) -> QuantileForecast:
    """The same forecast after one warm-up over all buckets before the last."""
    states = _new_states(forecaster, static_SX)
    last = len(values_TSF) - 1
    known = None if plans is None else plans.between(last, last + 1 + forecaster.horizon)
    forecaster.warm_up(states, values_TSF[:last], START_MS, plans)
    return forecaster.step(states, values_TSF[last], START_MS + last * HOUR_MS, known)


def _new_states(forecaster: Forecaster, static_SX: Floats | None) -> States:
    states = forecaster.new_states(1)
    if static_SX is not None:
        assert isinstance(states, NetworkStates)
        states.set_static(static_SX)
    return states


def small_training(**changes: object) -> TrainConfig:
    """A training that takes a second."""
    model = ModelConfig(horizon=6, bucket_ms=HOUR_MS, hidden=12, layers=1, rank=8)
    values: dict[str, object] = {
        "model": model,
        "updates": 12,
        "chunk": 24,
        "lanes": 16,
        "groups": 2,
        "origins": 6,
        "validate_every": 6,
    }
    return TrainConfig(**(values | changes))  # type: ignore[arg-type]  # test settings by name


def history_of(
    values_TSF: Floats,
    static_SX: Floats | None = None,
    *,
    bucket_ms: int = HOUR_MS,
    plans: Plans | None = None,
) -> History:
    """A history of buckets, hourly ones by default, that starts on a Monday."""
    names = [f"s{slot}" for slot in range(values_TSF.shape[1])]
    return History(values_TSF, START_MS, bucket_ms, names, static_SX, plans)


def random_model(
    seed: int, *, span_end_ms: int, bucket_ms: int = HOUR_MS, targets: tuple[Target, ...] = ()
) -> Trained:
    """A small network with seeded random weights, as if trained."""
    torch.manual_seed(seed)
    model = ModelConfig(horizon=6, bucket_ms=bucket_ms, hidden=8, layers=1, rank=4, targets=targets)
    span_ms = (span_end_ms - 24 * bucket_ms, span_end_ms)
    return Trained(QuantileNetwork(model), TrainConfig(model=model, seed=seed), span_ms)


def require_coherent(forecast: QuantileForecast) -> None:
    """Fail if a quantile of a sum is below that of a shorter sum or of a bucket it contains."""
    units_SHQ, sums_SHQ = forecast.units_SHQ, forecast.cumulative_SHQ
    np.testing.assert_array_equal(sums_SHQ[:, 0], units_SHQ[:, 0])
    assert (sums_SHQ >= np.maximum.accumulate(units_SHQ, axis=1)).all()
    assert (np.diff(sums_SHQ, axis=1) >= 0).all()
