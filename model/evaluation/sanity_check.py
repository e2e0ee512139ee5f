"""What a model must prove beside the one that serves before it may take over, on one close.

Not how good it is (`model/evaluation/promotion.py` says that) but that it is sane: its forecasts
are numbers, rise with the quantile, and are not absurd against what is served now.

Axes: S = series, H = horizon, Q = quantiles.
"""

from typing import Final

import numpy as np

from model.contract import QuantileForecast

#: Demand of all series together may differ by this factor; beyond, one of the models is broken.
TOTAL_FACTOR: Final = 8.0
#: So may the upper quantile of one series, for all but a share of them.
SERIES_FACTOR: Final = 50.0
SERIES_SHARE: Final = 0.05
#: Units over the horizon below which factors mean nothing: a series, and all of them together.
_SERIES_UNITS: Final = 20.0
_TOTAL_UNITS: Final = 100.0
#: Quantiles may cross by what float32 rounds.
_ROUNDING: Final = 1e-4


def fault_of(
    forecast: QuantileForecast, served: QuantileForecast | None, *, may_be_less: bool = False
) -> str | None:
    """Why `forecast` must not be served, in one clause; None where it may.

    `served` is what serves now, for the same series in the same order (more or fewer at the end do
    not matter); None where nothing does yet. With `may_be_less` any smaller total is believed: a
    fallback does not know of the day on which a shop is closed.

    >>> units = np.ones((2, 3, 1), np.float32)
    >>> made = QuantileForecast(0, 60_000, (0.5,), units, units.cumsum(1), "new")
    >>> fault_of(made, made) is None
    True
    >>> broken = QuantileForecast(0, 60_000, (0.5,), units * np.nan, units.cumsum(1), "new")
    >>> fault_of(broken, made)
    'its forecasts are not finite'
    """
    for block_SHQ in (forecast.units_SHQ, forecast.cumulative_SHQ, *forecast.extras.values()):
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
    """How far the demand of the whole horizon is from what is served."""
    size = min(len(forecast.units_SHQ), len(served.units_SHQ))
    steps = min(forecast.cumulative_SHQ.shape[1], served.cumulative_SHQ.shape[1])
    if not size or forecast.quantiles != served.quantiles:
        return None
    mine_SQ = forecast.cumulative_SHQ[:size, steps - 1].astype(np.float64)
    theirs_SQ = served.cumulative_SHQ[:size, steps - 1].astype(np.float64)
    # totals by the mean over quantiles: medians of sparse demand are all zero
    mine, theirs = float(mine_SQ.mean(axis=1).sum()), float(theirs_SQ.mean(axis=1).sum())
    believed = may_be_less and mine < theirs
    if not (believed or _close(mine, theirs, floor=_TOTAL_UNITS, factor=TOTAL_FACTOR)):
        return (
            f"it forecasts {mine:,.0f} units in all where {served.model_id} forecasts {theirs:,.0f}"
        )
    top_S, served_S = mine_SQ[:, -1], theirs_SQ[:, -1]
    limit_S = SERIES_FACTOR * np.maximum(served_S, _SERIES_UNITS)
    wild = int((top_S > limit_S).sum())
    if wild > SERIES_SHARE * size:
        return f"it forecasts more than {SERIES_FACTOR:.0f} times as much for {wild:,} series"
    return None


def _close(mine: float, theirs: float, *, floor: float, factor: float) -> bool:
    low, high = sorted((max(mine, floor), max(theirs, floor)))
    return high <= factor * low
