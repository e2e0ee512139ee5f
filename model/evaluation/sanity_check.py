"""Sanity check of a candidate on one close, before it may replace the model that serves.

It does not measure quality (see `model/evaluation/promotion.py`): forecasts must be finite, rise
with the quantile, and not be absurd relative to the served ones.

Axes: S = series, H = horizon, Q = quantiles.
"""

from typing import Final

import numpy as np

from model.contract import QuantileForecast

#: Maximum factor between the total demands; beyond it one of the models is broken.
TOTAL_FACTOR: Final = 8.0
#: Maximum factor between the upper quantiles of one series, except for a share of the series.
SERIES_FACTOR: Final = 50.0
SERIES_SHARE: Final = 0.05
#: Units over the horizon below which factors are ignored: of a series, and of all together.
_SERIES_UNITS: Final = 20.0
_TOTAL_UNITS: Final = 100.0
#: Tolerance of crossing quantiles: float32 rounding.
_ROUNDING: Final = 1e-4


def find_fault(
    forecast: QuantileForecast, served: QuantileForecast | None, *, may_be_less: bool = False
) -> str | None:
    """Why `forecast` must not be served, in one clause; None if it may.

    `served` is the current forecast, for the same series in the same order (a different number at
    the end does not matter); None if nothing serves yet. With `may_be_less` any smaller total
    passes: a fallback does not read plans, so it forecasts sales on a day of closure.

    >>> from dataclasses import replace
    >>> units = np.ones((2, 3, 1), np.float32)
    >>> made = QuantileForecast(0, 60_000, (0.5,), units, units.cumsum(1), units[..., 0], "new")
    >>> find_fault(made, made) is None
    True
    >>> find_fault(replace(made, mean_SH=made.mean_SH * np.nan), made)
    'its forecasts are not finite'
    """
    mean_SHQ = forecast.mean_SH[..., None]
    blocks = (forecast.units_SHQ, forecast.cumulative_SHQ, mean_SHQ, *forecast.extras.values())
    for block_SHQ in blocks:
        if not np.isfinite(block_SHQ).all():
            return "its forecasts are not finite"
        if block_SHQ.size and float(block_SHQ.min()) < 0:
            return "it forecasts negative demand"
        slack = _ROUNDING * (1 + np.abs(block_SHQ[..., :-1]))
        if (np.diff(block_SHQ, axis=-1) < -slack).any():
            return "its quantiles cross"
    return None if served is None else _absurdity(forecast, served, may_be_less=may_be_less)


def _absurdity(
    forecast: QuantileForecast, served: QuantileForecast, *, may_be_less: bool
) -> str | None:
    """Compare the demand of the whole horizon with the served one; None if plausible."""
    size = min(len(forecast.units_SHQ), len(served.units_SHQ))
    steps = min(forecast.cumulative_SHQ.shape[1], served.cumulative_SHQ.shape[1])
    if not size or forecast.quantiles != served.quantiles:
        return None
    total, served_total = (
        float(made.mean_SH[:size, :steps].sum(dtype=np.float64)) for made in (forecast, served)
    )
    allowed = may_be_less and total < served_total
    if not (allowed or _close(total, served_total, floor=_TOTAL_UNITS, factor=TOTAL_FACTOR)):
        return (
            f"it forecasts {total:,.0f} units in all, "
            f"{served.model_id} forecasts {served_total:,.0f}"
        )
    top_S = forecast.cumulative_SHQ[:size, steps - 1, -1]
    served_S = served.cumulative_SHQ[:size, steps - 1, -1]
    limit_S = SERIES_FACTOR * np.maximum(served_S, _SERIES_UNITS)
    wild = int((top_S > limit_S).sum())
    if wild > SERIES_SHARE * size:
        return f"it forecasts more than {SERIES_FACTOR:.0f} times as much for {wild:,} series"
    return None


def _close(a: float, b: float, *, floor: float, factor: float) -> bool:
    low, high = sorted((max(a, floor), max(b, floor)))
    return high <= factor * low
