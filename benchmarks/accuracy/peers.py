"""The peers of the accuracy benchmark, each in a few lines around its own library.

Every peer returns forecasts [O, S, H, Q] for a task's origins and the seconds it took to fit and to
predict. Only buckets before an origin are given to it. Libraries are imported where they are used;
they come with the optional extra `benchmarks` and are no part of the product.

Axes: O = origins, S = series, H = horizon, Q = quantiles, T = buckets, R = rows, X = columns.
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.calendar import calendar_features
from model.config import DECILES

Floats = NDArray[np.float32]

_LEVELS = (20, 40, 60, 80)


@dataclass(frozen=True, slots=True)
class PeerResult:
    """Forecasts of one peer and what they cost."""

    forecast_OSHQ: Floats
    fit_seconds: float
    predict_seconds: float


def seasonal_naive(units_TS: Floats, places: list[int], horizon: int, season: int) -> PeerResult:
    """The last season repeated; quantiles from its own errors, step by step, never below zero."""
    began = time.perf_counter()
    blocks = []
    for place in places:
        past_TS = units_TS[:place]
        last_SH = np.stack([past_TS[place - season + h % season] for h in range(horizon)], axis=1)
        error_TS = past_TS[season:] - past_TS[:-season]
        spread_QS = np.quantile(error_TS, DECILES, axis=0)
        blocks.append(np.maximum(last_SH[:, :, None] + spread_QS.T[:, None, :], 0))
    return PeerResult(np.stack(blocks).astype(np.float32), 0.0, time.perf_counter() - began)


def statistical(
    name: str, units_TS: Floats, places: list[int], horizon: int, season: int, *, longest: int
) -> PeerResult:
    """AutoETS, dynamic optimised Theta or CrostonSBA of statsforecast, refitted at every origin.

    They see the last `longest` buckets before an origin.
    """
    import pandas as pd
    from statsforecast import StatsForecast
    from statsforecast.models import AutoETS, CrostonSBA, DynamicOptimizedTheta
    from statsforecast.utils import ConformalIntervals

    models = {
        "AutoETS": lambda: AutoETS(season_length=season),
        "DynamicOptimizedTheta": lambda: DynamicOptimizedTheta(season_length=season),
        "CrostonSBA": lambda: CrostonSBA(
            prediction_intervals=ConformalIntervals(n_windows=2, h=horizon)
        ),
    }
    blocks, seconds = [], 0.0
    for place in places:
        n_series = units_TS.shape[1]
        past_TS = units_TS[max(0, place - longest) : place]
        frame = pd.DataFrame(
            {
                "unique_id": np.repeat(np.arange(n_series), len(past_TS)),
                "ds": np.tile(np.arange(len(past_TS)), n_series),
                "y": past_TS.T.reshape(-1).astype(float),
            }
        )
        began = time.perf_counter()
        made = StatsForecast([models[name]()], freq=1, n_jobs=1).forecast(
            df=frame, h=horizon, level=list(_LEVELS)
        )
        seconds += time.perf_counter() - began
        column = next(c for c in made.columns if c not in ("unique_id", "ds"))
        lows = [made[f"{column}-lo-{level}"] for level in reversed(_LEVELS)]
        highs = [made[f"{column}-hi-{level}"] for level in _LEVELS]
        block = np.stack([*lows, made[column], *highs], axis=-1).reshape(n_series, horizon, 9)
        blocks.append(np.maximum(np.sort(block, axis=-1), 0))
    return PeerResult(np.stack(blocks).astype(np.float32), seconds, 0.0)


def _rows(
    units_TS: Floats, places: list[int], horizon: int, calendar_TC: Floats, season: int
) -> tuple[Floats, Floats]:
    """Design matrix [R, X] and targets [R] of direct forecasts from `places`."""
    sums = np.concatenate((np.zeros((1, units_TS.shape[1])), np.cumsum(units_TS, axis=0)))
    per_year = season * 52
    spans = [1, season // 2 + 1, season, 2 * season, 4 * season, 8 * season, 16 * season]

    def mean(place: int, span: int) -> NDArray[np.float64]:
        first = max(0, place - span)
        level_S: NDArray[np.float64] = (sums[place] - sums[first]) / max(1, place - first)
        return level_S

    blocks, targets = [], []
    for place in places:
        past = units_TS[:place]
        sold = past > 0
        fixed = [
            *(mean(place, span) for span in spans),
            *(past[place - lag] for lag in range(1, 8)),
            sold[-8 * season :].mean(axis=0),
            sums[place] / np.maximum(1, sold.sum(axis=0)),
            place - np.argmax(sold, axis=0),
        ]
        for step in range(horizon):
            target = place + step
            same = [
                units_TS[target - back * season]
                for back in range(step // season + 1, step // season + 9)
                if target - back * season >= 0
            ]
            year = np.full(units_TS.shape[1], np.nan)
            base = year
            if target - per_year - season > 0:
                year = mean(min(target - per_year + season // 2, place), season)
                base = mean(place - per_year, 4 * season) if place > per_year else year
            calendar = np.repeat(calendar_TC[target][None], units_TS.shape[1], axis=0)
            varying = [np.full(units_TS.shape[1], step), np.mean(same, axis=0), year, base]
            columns = np.column_stack((*fixed, *varying, calendar))
            blocks.append(columns.astype(np.float32))
            targets.append(units_TS[target] if target < len(units_TS) else np.zeros_like(year))
    return np.concatenate(blocks), np.concatenate(targets)


def lightgbm(
    units_TS: Floats,
    places: list[int],
    horizon: int,
    *,
    start_ms: int,
    bucket_ms: int,
    season: int,
    spacing: int,
    refit_every: int = 1,
    threads: int = 2,
) -> PeerResult:
    """LightGBM, one model a quantile, direct, with the same calendar; refitted as it goes.

    Lags, means over seven spans, the same phase of past seasons, last year's level, the calendar of
    the target bucket (holidays and closures included) and the step are its columns.
    """
    import lightgbm as library

    starts = start_ms + bucket_ms * np.arange(len(units_TS) + horizon, dtype=np.int64)
    calendar_TC = calendar_features(starts, bucket_ms=bucket_ms, country="GB")
    rng = np.random.default_rng(0)
    blocks, fit, predict = [], 0.0, 0.0
    models = []
    for number, place in enumerate(places):
        began = time.perf_counter()
        if number % refit_every == 0:
            first = max(8 * season, place - 400 * spacing)
            learning = list(range(first, place - horizon, spacing))
            design, target = _rows(units_TS[:place], learning, horizon, calendar_TC, season)
            kept = rng.choice(len(target), min(len(target), 500_000), replace=False)
            table = library.Dataset(design[kept], target[kept], free_raw_data=False)
            settings = {
                "objective": "quantile",
                "num_leaves": 63,
                "learning_rate": 0.08,
                "min_data_in_leaf": 100,
                "feature_fraction": 0.8,
                "num_threads": threads,
                "verbose": -1,
                "seed": 0,
            }
            models = [library.train(settings | {"alpha": q}, table, 150) for q in DECILES]
        fit += time.perf_counter() - began
        began = time.perf_counter()
        ahead, _ = _rows(units_TS[:place], [place], horizon, calendar_TC, season)
        columns = np.stack([model.predict(ahead) for model in models], axis=-1)
        block = np.maximum(np.sort(columns, axis=-1), 0)
        blocks.append(block.reshape(horizon, units_TS.shape[1], 9).transpose(1, 0, 2))
        predict += time.perf_counter() - began
    return PeerResult(np.stack(blocks).astype(np.float32), fit, predict)
