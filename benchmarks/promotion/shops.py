"""Simulated losses of two networks, with the dependence that real pairs of networks show.

Losses of an origin share a shock with heavy tails, which differs for the two networks and persists
a little; volumes of series are heavy-tailed; each cell has noise of its own. The roll-up differs
far more than the series do. The values are those of networks that differ by their seed alone
(docs/experiments/promotion.md).

Axes: O = origins, S = series.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.evaluation.promotion import Losses

Doubles = NDArray[np.float64]

#: Degrees of freedom of the shocks: heavy tails, but a variance.
_TAILS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """One kind of comparison; standard deviations are relative to the champion's loss.

    `shock` is that of an origin, correlated by `lag` with the origin before, `own` that of a series
    over all origins, `cell` that of one series at one origin, `rollup` that of the roll-up at one
    origin. `volume` is the spread of the logarithm of the series' volumes.
    """

    origins: int = 7
    series: int = 400
    shock: float = 0.006
    lag: float = 0.1
    own: float = 0.0
    cell: float = 0.04
    rollup: float = 0.09
    volume: float = 1.5


def losses(shop: Shop, rng: np.random.Generator, *, gain: float = 0.0) -> Losses:
    """Losses of a champion, and of a challenger whose expected loss is lower by the share `gain`.

    The last series is a roll-up of the others.
    """
    volume_S = np.sort(np.exp(rng.normal(0, shop.volume, shop.series)))[::-1]
    demand_O1 = np.exp(rng.normal(0, 0.2, (shop.origins, 1)))
    noise_OS = np.exp(rng.normal(0, 0.6, (shop.origins, shop.series)))
    champion_OS = volume_S * demand_O1 * noise_OS
    shock_O1 = shop.shock * shocks(rng, shop.origins, lag=shop.lag)[:, None]
    own_S = shop.own * _heavy(rng, shop.series)
    cell_OS = shop.cell * _heavy(rng, shop.origins, shop.series)
    change_OS = -gain + shock_O1 + own_S + cell_OS
    rollup_O1 = champion_OS.sum(axis=1, keepdims=True) * 0.3
    change_O1 = -gain + shop.rollup * _heavy(rng, shop.origins, 1)
    before_OS = np.concatenate((champion_OS, rollup_O1), axis=1)
    after_OS = before_OS * np.maximum(1 + np.concatenate((change_OS, change_O1), axis=1), 0.05)
    return Losses(
        champion_OS=before_OS,
        challenger_OS=after_OS,
        units=float(champion_OS.sum()) / 0.7,
        plain=np.arange(shop.series),
        classes=_classes(volume_S) | {"roll-ups": np.array([shop.series])},
    )


def shocks(rng: np.random.Generator, size: int, *, lag: float) -> Doubles:
    """Shocks of unit variance, each correlated by `lag` with the one before."""
    drawn = _heavy(rng, size)
    made = drawn.copy()
    for place in range(1, size):
        made[place] = lag * made[place - 1] + np.sqrt(1 - lag**2) * drawn[place]
    return made


def _heavy(rng: np.random.Generator, *shape: int) -> Doubles:
    drawn: Doubles = rng.standard_t(_TAILS, shape) / np.sqrt(_TAILS / (_TAILS - 2))
    return drawn


def _classes(volume_S: Doubles) -> dict[str, NDArray[np.int64]]:
    """Places of the series with the first half of the volume, the next 30 %, and the rest."""
    before_S = np.cumsum(volume_S) / volume_S.sum() - volume_S / volume_S.sum()
    edges = np.digitize(before_S, (0.5, 0.8))
    return {name: np.flatnonzero(edges == place) for place, name in enumerate("ABC")}
