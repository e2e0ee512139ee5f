"""Kinds of shops: what is typical of a grocery, a wholesaler, a metro line, spare parts.

A kind gives the ranges and probabilities that the shop's own character is drawn from; every shop
differs from every other of its kind.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from model.pretraining.synthetic.draws import Range


@dataclass(frozen=True, slots=True)
class Kind:
    """Priors of a kind of shop.

    `density` is the decimal logarithm of the median units a bucket; `noise` the standard deviation
    of the log rate; `whole_day` and the other `closed_*` are probabilities that a shop is closed at
    night, on Sunday or Monday, on the weekend, on holidays; `weekend` is the log effect of a
    Saturday; `annual` the standard deviation of the log annual season; `holiday` the log effect of
    a holiday on which it is open; `promoted` the share of shops with promotions; `lumpy` the share
    whose orders are of many units; `intermittent` the share with a zero-inflated demand; `moving`
    scales the changes of the level. A `steady` shop has calmer seasons, levels,
    lives and noise, and sells more.
    """

    name: str
    weight: float
    density: Range
    noise: Range
    closed_night: float
    closed_sunday: float
    closed_monday: float
    closed_weekend: float
    closed_holiday: float
    weekend: Range
    annual: Range
    holiday: Range
    promoted: float
    lumpy: float
    intermittent: float
    moving: float
    peaks: tuple[float, ...]
    steady: bool = False


_RETAIL: Final = (11.0, 15.0, 17.5, 20.5)
KINDS: Final = (
    Kind("online", 3, (-1.8, 2.6), (0.03, 0.45), 0.05, 0.02, 0.0, 0.02, 0.03, (-0.6, 0.5),
         (0.07, 0.8), (-0.5, 0.5), 0.6, 0.2, 0.25, 1.0, (11.0, 14.0, 20.5, 21.5)),
    Kind("store", 3, (-1.5, 3.0), (0.02, 0.4), 0.9, 0.35, 0.03, 0.02, 0.4, (-0.2, 0.9),
         (0.1, 0.7), (-1.0, 0.6), 0.65, 0.1, 0.2, 0.8, _RETAIL),
    Kind("grocery", 2, (-0.5, 3.8), (0.02, 0.3), 0.9, 0.25, 0.01, 0.01, 0.4, (-0.2, 0.7),
         (0.05, 0.5), (-1.0, 0.5), 0.75, 0.15, 0.1, 0.6, (9.5, 12.0, 17.5, 18.5)),
    Kind("restaurant", 1.5, (0.3, 2.3), (0.05, 0.45), 0.95, 0.15, 0.3, 0.03, 0.15, (0.0, 1.2),
         (0.06, 0.6), (-0.6, 0.9), 0.1, 0.05, 0.1, 0.8, (12.3, 12.8, 19.3, 20.0)),
    Kind("wholesale", 2, (-1.5, 2.8), (0.05, 0.6), 0.8, 0.2, 0.02, 0.75, 0.8, (-1.5, 0.0),
         (0.06, 0.6), (-2.0, 0.0), 0.25, 0.8, 0.3, 1.0, (9.0, 10.5, 11.5, 14.5)),
    Kind("transport", 2, (0.8, 4.0), (0.01, 0.2), 0.2, 0.03, 0.0, 0.05, 0.02, (-1.0, 0.3),
         (0.05, 0.6), (-1.2, 0.2), 0.03, 0.02, 0.02, 0.6, (8.0, 8.3, 13.0, 17.5, 18.0)),
    Kind("bookings", 1.5, (-1.0, 2.8), (0.05, 0.5), 0.2, 0.1, 0.05, 0.1, 0.1, (-0.6, 0.8),
         (0.15, 1.0), (-0.6, 0.7), 0.3, 0.15, 0.15, 1.0, (10.0, 15.0, 20.0, 21.0)),
    Kind("spares", 1.5, (-2.0, 0.3), (0.1, 0.8), 0.5, 0.3, 0.0, 0.4, 0.5, (-1.0, 0.2),
         (0.0, 0.3), (-1.0, 0.1), 0.05, 0.6, 0.6, 1.0, (8.5, 10.0, 13.5, 15.0)),
    Kind("platform", 1.5, (1.0, 4.0), (0.01, 0.2), 0.02, 0.01, 0.0, 0.03, 0.01, (-0.5, 0.5),
         (0.05, 0.6), (-0.5, 0.4), 0.3, 0.02, 0.01, 1.0, (12.0, 15.0, 20.0, 22.0)),
)  # fmt: skip


def draw_kind(rng: np.random.Generator) -> Kind:
    """Draw a kind by its weight; half of the shops are steady.

    >>> draw_kind(np.random.default_rng(0)).name in {kind.name for kind in KINDS}
    True
    """
    weights = np.array([kind.weight for kind in KINDS])
    kind = KINDS[rng.choice(len(KINDS), p=weights / weights.sum())]
    if rng.random() < 0.5:
        return kind
    return replace(
        kind,
        steady=True,
        density=(kind.density[0] + 0.5, kind.density[1] + 1.0),
        noise=(0.4 * kind.noise[0], 0.25 * kind.noise[1]),
        annual=(0.5 * kind.annual[0], 0.35 * kind.annual[1]),
        promoted=0.4 * kind.promoted,
        lumpy=0.4 * kind.lumpy,
        intermittent=0.3 * kind.intermittent,
        moving=0.2 * kind.moving,
    )
