"""Computes the columns of the chart sources from a series view, as plain lists.

Axes: T = closed buckets, H = horizon, Q = quantiles.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from dashboards import text
from dashboards.snapshot import SeriesView
from dashboards.summary import trailing_conversion
from model.durations import DAY_MS
from model.quantiles.bands import main_band
from stream.features.definitions import ORDERS, REVENUE, UNITS, VIEWS
from stream.readside.series_answers import SeriesForecast

Columns = dict[str, list[Any]]

N_BANDS: Final = 4
ACTUALS: Final = ("start", "x", "units", "orders", "revenue", "views", "conversion", "expected")
AHEAD: Final = ("start", "x", "lo", "median", "hi")
OPEN: Final = ("start", "x", "units", "orders", "expected")
FAN: Final = (
    "start", "x", "median", "band", "sum", "hit",
    *(f"{side}{n}" for n in range(1, N_BANDS + 1) for side in ("lo", "hi")),
)  # fmt: skip


def band_pairs(quantiles: Sequence[float]) -> list[tuple[int, int]]:
    """Quantile columns of the nested bands, the main one first; repeated if there are few.

    >>> band_pairs((0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99))
    [(1, 9), (2, 8), (3, 7), (4, 6)]
    >>> band_pairs((0.1, 0.5, 0.9)), band_pairs((0.5,))[0]
    ([(0, 2), (0, 2), (0, 2), (0, 2)], (0, 0))
    """
    low, high = main_band(quantiles)
    n_pairs = max(1, (high - low + 1) // 2)
    inward = np.linspace(0, n_pairs - 1, N_BANDS).round().astype(int).tolist()
    return [(low + at, high - at) for at in inward]


def band_name(low: float, high: float) -> str:
    """Name of the band between two quantiles.

    >>> band_name(0.1, 0.9), band_name(0.025, 0.975)
    ('10–90 %', '2.5–97.5 %')
    """
    return f"{100 * low:g}–{100 * high:g} %"


def main_band_name(quantiles: Sequence[float]) -> str:
    """Name of the main band.

    >>> main_band_name((0.01, 0.1, 0.5, 0.9, 0.99))
    '10–90 %'
    """
    return band_name(*(quantiles[column] for column in main_band(quantiles)))


def median_column(quantiles: Sequence[float]) -> int:
    """Column of the quantile nearest to 0.5.

    >>> median_column((0.1, 0.5, 0.9))
    1
    """
    return int(np.argmin(np.abs(np.asarray(quantiles) - 0.5)))


def closed_columns(view: SeriesView, *, bucket_ms: int, after_ms: int) -> tuple[Columns, Columns]:
    """Return `actuals` and `ahead` of the closed buckets that start after `after_ms`."""
    new = view.start_T > after_ms
    values = view.values_TF[new].astype(float)
    start = view.start_T[new].astype(float)
    x = start + bucket_ms / 2
    conversion_T = trailing_conversion(view.values_TF, n_buckets=max(1, DAY_MS // bucket_ms))
    low, median, high = view.ahead_T3[new].astype(float).T
    actuals: Columns = {
        "start": start.tolist(),
        "x": x.tolist(),
        "units": values[:, UNITS].tolist(),
        "orders": values[:, ORDERS].tolist(),
        "revenue": np.round(values[:, REVENUE], 2).tolist(),
        "views": values[:, VIEWS].tolist(),
        "conversion": conversion_T[new].tolist(),
        "expected": [forecast_label(*row) for row in zip(low, median, high, strict=True)],
    }
    ahead: Columns = {
        "start": start.tolist(),
        "x": x.tolist(),
        "lo": low.tolist(),
        "median": median.tolist(),
        "hi": high.tolist(),
    }
    return actuals, ahead


def forecast_label(low: float, median: float, high: float) -> str:
    """Format a bucket's forecast for the tooltip.

    >>> forecast_label(1.24, 3, 7.5), forecast_label(float("nan"), 0, 0)
    ('3.0  (1.2 – 7.5)', '–')
    """
    if not math.isfinite(low):
        return text.MISSING
    digits = 1 if high < 100 else 0
    low_, median_, high_ = (text.number(value, digits=digits) for value in (low, median, high))
    return f"{median_}  ({low_} – {high_})"


def open_columns(view: SeriesView, *, bucket_ms: int) -> Columns:
    """Return `open_bucket`: sums so far of the open buckets, with their forecast."""
    columns: Columns = {name: [] for name in OPEN}
    for bucket in view.open_buckets:
        columns["start"].append(float(bucket.start_ms))
        columns["x"].append(bucket.start_ms + bucket_ms / 2)
        columns["units"].append(float(bucket.values_F[UNITS]))
        columns["orders"].append(float(bucket.values_F[ORDERS]))
        columns["expected"].append(_label_at(view.forecast, bucket.start_ms))
    return columns


def _label_at(forecast: SeriesForecast | None, start_ms: int) -> str:
    if forecast is None:
        return text.MISSING
    step = (start_ms - forecast.origin_ms) // forecast.bucket_ms
    if not 0 <= step < len(forecast.units_HQ):
        return text.MISSING
    row = forecast.units_HQ[step]
    low, high = main_band(forecast.quantiles)
    return forecast_label(row[low], row[median_column(forecast.quantiles)], row[high])


def fan_columns(view: SeriesView) -> Columns:
    """Return `fan`: nested bands and median of each forecast bucket; empty without a forecast.

    `hit` is the height of a bucket's hover area; NaN for open buckets, whose bars have their own.
    """
    forecast = view.forecast
    if forecast is None:
        return {name: [] for name in FAN}
    units_HQ = np.round(forecast.units_HQ.astype(float), 3)
    start_H = forecast.origin_ms + np.arange(len(units_HQ)) * forecast.bucket_ms
    middle = median_column(forecast.quantiles)
    open_starts = [bucket.start_ms for bucket in view.open_buckets]
    high = main_band(forecast.quantiles)[1]
    hit_H = np.where(np.isin(start_H, open_starts), np.nan, units_HQ[:, high])
    columns: Columns = {
        "start": start_H.astype(float).tolist(),
        "x": (start_H + forecast.bucket_ms / 2).tolist(),
        "median": units_HQ[:, middle].tolist(),
        "band": [main_band_name(forecast.quantiles)] * len(units_HQ),
        "sum": np.round(forecast.cumulative_HQ[:, middle].astype(float), 2).tolist(),
        "hit": hit_H.tolist(),
    }
    for n, (low, high) in enumerate(band_pairs(forecast.quantiles), start=1):
        columns[f"lo{n}"] = units_HQ[:, low].tolist()
        columns[f"hi{n}"] = units_HQ[:, high].tolist()
    return columns


def nice_ceiling(value: float) -> float:
    """Round `value` up to a round number for the end of an axis; at least 4.

    >>> nice_ceiling(3.2), nice_ceiling(41), nice_ceiling(1_630)
    (4, 50, 2000)
    """
    if value <= 4:
        return 4
    power: float = 10 ** math.floor(math.log10(value))
    steps = (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
    return next(step * power for step in steps if step * power >= value)
