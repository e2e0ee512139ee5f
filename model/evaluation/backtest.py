"""Rolling-origin evaluation: forecasters carried through history and scored on the actuals.

A forecaster is warmed up to the first origin and carried from origin to origin, as in live
operation; it never sees a bucket at or after the origin. All forecasters are scored on the same
origins, series and buckets.

Axes: O = origins, S = series, H = horizon, Q = quantiles, T = buckets.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.baselines.seasonal import season_of
from model.config import Target
from model.errors import HistoryTooShort
from model.evaluation.metrics import (
    UndefinedMetric,
    bias,
    interval_coverage,
    mase,
    pit_coverage,
    sql,
    wql,
)
from model.inference.forecaster import Forecaster, NetworkForecaster
from model.inference.network_states import NetworkStates
from model.inference.statistics_carrier import StatisticsCarrier
from model.inputs.carried_statistics import UNITS
from model.inputs.statistics_identity import statistics_identity
from model.inputs.targets import target_of
from model.quantiles.bands import main_levels
from model.quantiles.whole_units import in_units
from model.training.dataset import History, plans_between

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Backtest:
    """Forecasts of several models with the actuals.

    `forecast[name]` is [O, S, H, Q], `actual_OSH` in units, `naive_error_OS` the in-sample error of
    the seasonal naive before each origin (0 if unknown), for the scaled metrics. `mean[name]` are
    expected values [O, S, H]; `extras[name]` are forecasts of further targets, for models that have
    any. Quantiles of series whose demand is whole are whole, as they are published.
    """

    series: list[str]
    origins_ms: list[int]
    bucket_ms: int
    quantiles: tuple[float, ...]
    actual_OSH: Floats
    forecast: dict[str, Floats]
    naive_error_OS: NDArray[np.float64]
    extras: dict[str, dict[str, Floats]] = field(default_factory=dict)
    mean: dict[str, Floats] = field(default_factory=dict)

    @property
    def horizon(self) -> int:
        """Steps forecast at each origin."""
        return int(self.actual_OSH.shape[2])


def last_origins(history: History, *, horizon: int, count: int) -> list[int]:
    """The last `count` origins (ms) with a full horizon, one horizon apart, oldest first.

    Raises HistoryTooShort if not even one fits after a training part of the same length.
    """
    fitting = min(count, history.buckets // horizon - 1)
    if fitting < 1:
        raise HistoryTooShort(
            f"{history.buckets} buckets leave no origin for a horizon of {horizon}"
        )
    last = history.buckets - horizon
    return [
        history.start_ms + (last - back * horizon) * history.bucket_ms
        for back in reversed(range(fitting))
    ]


def backtest(
    history: History,
    forecasters: Mapping[str, Forecaster],
    origins_ms: Sequence[int],
    *,
    progress: Callable[[float], None] | None = None,
    warm_up: int | None = None,
) -> Backtest:
    """Carry every forecaster over the history and forecast at each origin.

    `origins_ms` are starts of the first bucket forecast. With `warm_up` the forecasters are carried
    over so many buckets before the first origin; networks carry only their statistics over those
    before, as in a worker after a swap. Raises HistoryTooShort for an origin without a bucket
    before it, or whose horizon extends beyond the history.
    """
    first = next(iter(forecasters.values()))
    horizon, quantiles = first.horizon, first.quantiles
    places = sorted((origin - history.start_ms) // history.bucket_ms for origin in origins_ms)
    if not places or places[0] < 1 or places[-1] + horizon > history.buckets:
        raise HistoryTooShort(
            f"origins must have a bucket before them and {horizon} buckets from them on; "
            f"the history has {history.buckets}"
        )
    units_TS = history.values_TSF[:, :, UNITS]
    season = season_of(history.bucket_ms)
    forecast, extras, mean = {}, {}, {}
    whole_S = history.whole_units_S
    begin = 0 if warm_up is None else max(0, places[0] - warm_up)
    statistics = _statistics(history, forecasters.values(), begin) if begin else {}
    for number, (name, forecaster) in enumerate(forecasters.items()):
        blocks, means = [], []
        further: list[dict[str, Floats]] = []
        states = forecaster.new_states(len(history.series))
        if isinstance(states, NetworkStates):
            if states.identity in statistics:
                states.inherit(statistics[states.identity])
            if history.static_SX is not None:
                states.set_static(history.static_SX)
        read = begin
        for done, place in enumerate(places):
            start_ms = history.start_ms + read * history.bucket_ms
            past = plans_between(history, read, place - 1)
            forecaster.warm_up(states, history.values_TSF[read : place - 1], start_ms, past)
            last_ms = history.start_ms + (place - 1) * history.bucket_ms
            known = plans_between(history, place - 1, place + horizon)
            made = forecaster.step(states, history.values_TSF[place - 1], last_ms, known)
            blocks.append(in_units(made.units_SHQ, whole_S))
            means.append(made.mean_SH)
            further.append(made.extras)
            read = place
            if progress is not None:
                progress((number + (done + 1) / len(places)) / len(forecasters))
        forecast[name], mean[name] = np.stack(blocks), np.stack(means)
        if further[0]:
            extras[name] = {
                target: np.stack([made[target] for made in further]) for target in further[0]
            }
    return Backtest(
        series=list(history.series),
        origins_ms=[history.start_ms + place * history.bucket_ms for place in places],
        bucket_ms=history.bucket_ms,
        quantiles=quantiles,
        actual_OSH=np.stack([units_TS[place : place + horizon].T for place in places]),
        forecast=forecast,
        naive_error_OS=np.stack([_naive_error(units_TS[:place], season) for place in places]),
        extras=extras,
        mean=mean,
    )


def _statistics(history: History, forecasters: Iterable[Forecaster], end: int) -> dict[str, Tensor]:
    """Statistics [S, I] of the buckets before `end`, by identity."""
    configs = [one.config for one in forecasters if isinstance(one, NetworkForecaster)]
    carried = {}
    for identity, config in {statistics_identity(config): config for config in configs}.items():
        carrier = StatisticsCarrier(config, len(history.series))
        carrier.carry(history.values_TSF[:end], history.start_ms)
        carried[identity] = carrier.rows_SI
    return carried


def backtest_target(
    history: History, result: Backtest, target: Target, forecasters: Mapping[str, Forecaster]
) -> Backtest:
    """The forecasts of a further target in `result`, next to forecasters of that target alone.

    Those read the target instead of units. Raises HistoryTooShort like `backtest`.
    """
    values_TSF = np.zeros_like(history.values_TSF)
    values = torch.from_numpy(history.values_TSF)
    values_TSF[:, :, UNITS] = target_of(values, target).numpy()
    alone = backtest(replace(history, values_TSF=values_TSF), forecasters, result.origins_ms)
    of_target = {name: made[target] for name, made in result.extras.items() if target in made}
    return replace(alone, forecast=of_target | alone.forecast)


def _naive_error(past_TS: Floats, season: int) -> NDArray[np.float64]:
    """In-sample mean absolute error [S] of the seasonal naive, since each series' first sale."""
    if len(past_TS) <= season:
        return np.zeros(past_TS.shape[1])
    begun_TS = np.cumsum(past_TS, axis=0)[:-season] > 0
    error_TS = np.abs(past_TS[season:] - past_TS[:-season])
    counted_S = begun_TS.sum(axis=0)
    total_S = np.where(begun_TS, error_TS, 0).sum(axis=0, dtype=np.float64)
    mean_S: NDArray[np.float64] = total_S / np.maximum(counted_S, 1)
    return mean_S


@dataclass(frozen=True, slots=True)
class Scores:
    """Metrics of one model over one selection; None where undefined.

    Compare `pit_coverage`, not `coverage`, with the nominal share if many buckets are zero.
    """

    wql: float | None
    sql: float | None
    mase: float | None
    coverage: float
    pit_coverage: float
    bias: float | None
    buckets: int


def score(
    result: Backtest,
    name: str,
    *,
    series: NDArray[np.int64] | None = None,
    steps: slice | None = None,
) -> Scores:
    """Metrics of model `name`, pooled over all origins, some series and some steps.

    Of the levels of the main band (`model.quantiles.bands`); coverage is that of this band, the
    median is the quantile closest to 0.5.
    """
    columns = main_levels(result.quantiles)
    quantiles = result.quantiles[columns]
    chosen_S = np.arange(len(result.series)) if series is None else series
    part = steps or slice(None)
    actual = result.actual_OSH[:, chosen_S, part]
    block = result.forecast[name][:, chosen_S, part, columns]
    actual_N = actual.reshape(-1).astype(np.float64)
    forecast_NQ = block.reshape(-1, block.shape[-1])
    error_OSH = np.broadcast_to(result.naive_error_OS[:, chosen_S, None], actual.shape)
    error_N = error_OSH.reshape(-1)
    median_N = forecast_NQ[:, int(np.argmin(np.abs(np.array(quantiles) - 0.5)))]
    return Scores(
        wql=_defined(lambda: wql(actual_N, forecast_NQ, quantiles)),
        sql=_defined(lambda: sql(actual_N, forecast_NQ, quantiles, error_N)),
        mase=_defined(lambda: mase(actual_N, median_N, error_N)),
        coverage=interval_coverage(actual_N, forecast_NQ[:, 0], forecast_NQ[:, -1]),
        pit_coverage=pit_coverage(actual_N, forecast_NQ, quantiles),
        bias=_defined(lambda: bias(actual_N, median_N)),
        buckets=int(actual_N.size),
    )


def _defined(metric: Callable[[], float]) -> float | None:
    try:
        return metric()
    except UndefinedMetric:
        return None


def volume_classes(result: Backtest) -> dict[str, NDArray[np.int64]]:
    """Series by demand over the origins: large, medium and the long tail.

    Class A makes the first 50 % of the units, B the next 30 %, C the rest; silent series are in C.
    """
    units_S = result.actual_OSH.sum(axis=(0, 2), dtype=np.float64)
    order = np.argsort(-units_S, kind="stable")
    before = np.concatenate(([0.0], np.cumsum(units_S[order])[:-1])) / max(units_S.sum(), 1.0)
    return {
        "A": np.sort(order[before < 0.5]),
        "B": np.sort(order[(before >= 0.5) & (before < 0.8)]),
        "C": np.sort(order[before >= 0.8]),
    }
