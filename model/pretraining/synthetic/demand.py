"""Counts around a rate: Poisson, overdispersed, by the dozen, zero-inflated, nearly exact.

Axes: T = buckets, S = series.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from model.pretraining.synthetic.draws import (
    Flags,
    Floats,
    log_uniform,
    magnitude,
    normal,
    some,
    spells,
)
from model.pretraining.synthetic.kinds import Kind

_PACKS: Final = (2, 3, 4, 5, 6, 6, 8, 10, 12, 12, 20, 24, 25, 48, 50, 100)
_MAX_RATE: Final = 1e6


@dataclass(frozen=True, slots=True)
class Demand:
    """Units and order lines [T, S]; `whole` is False where units are money or weight."""

    units_TS: Floats
    orders_TS: Floats
    whole: bool


def draw_demand(rng: np.random.Generator, kind: Kind, rate_TS: Floats, *, days: float) -> Demand:
    """Draw the demand around its expected units `rate_TS`, in buckets of `days` days.

    It is 0 where the rate is 0, and relatively calmer in buckets that sum up many days.
    """
    rate_TS = np.minimum(_spikes(rng, rate_TS), _MAX_RATE)
    whole = not some(rng, 0.08)
    if some(rng, 0.5 if kind.density[1] > 3 else 0.06):
        return _nearly_exact(rng, rate_TS, whole=whole)
    series = rate_TS.shape[1]
    mean_S, pack_S = _order_sizes(rng, kind, series)
    lines_TS = rate_TS / (mean_S * pack_S)
    silent_S = np.zeros(series)
    if some(rng, kind.intermittent):
        silent_S = np.clip(rng.uniform(0.05, 0.9) + rng.normal(0.0, 0.1, series), 0.0, 0.95)
        silent_S /= 1.0 + rate_TS.mean(axis=0) / magnitude(rng, (0.5, 50.0))
    lines_TS = lines_TS / (1.0 - silent_S)
    calm = 4.0 if kind.steady else 1.0
    orders_TS = _overdispersed(rng, lines_TS, days=days, calm=calm)
    if silent_S.any():
        orders_TS *= rng.random(orders_TS.shape, dtype=np.float32) >= silent_S
    units_TS = _units(rng, orders_TS, mean_S, whole=whole) * pack_S.astype(np.float32)
    if some(rng, 0.35):
        units_TS += _bulk_orders(rng, rate_TS, pack_S) if whole else 0.0
    if not whole:
        units_TS *= magnitude(rng, (0.1, 100.0))
    orders_TS = np.where(units_TS > 0, np.maximum(orders_TS, 1.0), 0.0)
    return Demand(units_TS.astype(np.float32), orders_TS.astype(np.float32), whole)


def _spikes(rng: np.random.Generator, rate_TS: Floats) -> Floats:
    """Unexplained rushes that fade, of single series; outages of the whole shop."""
    steps, series = rate_TS.shape
    if some(rng, 0.4):
        gap = steps * magnitude(rng, (0.2, 5.0))
        found = spells(rng, steps=steps, groups=series, gap=gap, length=(1.0, 12.0))
        log_N = rng.uniform(0.2, 1.5) * np.abs(normal(rng, (found.count,)))
        fade_TS = np.exp(-found.since_start() / 3.0)
        rate_TS = rate_TS * np.exp(np.minimum(found.values(log_N), 3.0) * fade_TS)
    if some(rng, 0.12):
        gap = steps * magnitude(rng, (0.1, 1.0))
        found = spells(rng, steps=steps, groups=1, gap=gap, length=(1.0, 4.0))
        rate_TS = rate_TS * (found.id_TG == 0)
    return rate_TS


def _nearly_exact(rng: np.random.Generator, rate_TS: Floats, *, whole: bool) -> Demand:
    """Dense demand with a small relative error instead of the Poisson's."""
    error = magnitude(rng, (0.002, 0.08))
    units_TS = rate_TS * np.exp(error * normal(rng, rate_TS.shape))
    orders_TS = np.rint(units_TS)
    if not whole:
        return Demand(units_TS, np.ceil(units_TS), whole=False)
    sparse_TS = units_TS < 20.0  # what is left of a whole unit is drawn, so that means are kept
    left_TS = np.floor(units_TS + rng.random(units_TS.shape, dtype=np.float32))
    units_TS = np.where(sparse_TS, left_TS, orders_TS)
    return Demand(units_TS, units_TS.copy(), whole=True)


def _order_sizes(rng: np.random.Generator, kind: Kind, series: int) -> tuple[Floats, Floats]:
    """Mean packs an order and units a pack, of each series [S]."""
    ones_S = np.ones(series, np.float32)
    if not some(rng, kind.lumpy):
        few = float(rng.uniform(0.0, 0.6)) * some(rng, 0.7)
        return ones_S + few * rng.random(series, dtype=np.float32), ones_S
    mean_S = magnitude(rng, (1.0, 12.0)) * log_uniform(rng, (0.4, 3.0), series)
    by_pack_S = some(rng, rng.choice([0.0, 0.3, 0.8]), series)
    pack_S = np.where(by_pack_S, rng.choice(_PACKS, series), 1.0)
    return np.maximum(mean_S / np.sqrt(pack_S), 1.0).astype(np.float32), pack_S


def _overdispersed(
    rng: np.random.Generator, mean_TS: Floats, *, days: float, calm: float
) -> Floats:
    """Poisson counts [T, S], or negative binomial with a variance of either form."""
    if some(rng, 0.6):
        denser_S = (1.0 + mean_TS.mean(axis=0)) ** rng.uniform(0.2, 0.9)  # dense ones are calmer
        shape_S = magnitude(rng, (0.5, 150.0)) * log_uniform(rng, (0.5, 2.0), len(denser_S))
        shape_S = np.clip(shape_S * calm * denser_S * max(days, 1.0) ** 0.7, 0.3, 2_000.0)
        mean_TS = mean_TS * rng.standard_gamma(shape_S, mean_TS.shape) / shape_S
    if some(rng, 0.3):  # variance in proportion to the mean
        excess = magnitude(rng, (0.1, 6.0))
        mean_TS = rng.standard_gamma(mean_TS / excess) * excess
    return rng.poisson(np.minimum(mean_TS, _MAX_RATE)).astype(np.float32)


def _units(rng: np.random.Generator, orders_TS: Floats, mean_S: Floats, *, whole: bool) -> Floats:
    """Units [T, S] of all orders of a bucket: sums of gamma sizes with a light or heavy tail."""
    shape = magnitude(rng, (0.2, 5.0))
    if not whole:
        return rng.standard_gamma(orders_TS * shape) * mean_S / shape
    extra_S = mean_S - 1.0
    if not extra_S.any():
        return orders_TS
    more_TS = rng.standard_gamma(orders_TS * shape) * extra_S / shape
    return orders_TS + np.floor(more_TS + rng.random(more_TS.shape))


def _bulk_orders(rng: np.random.Generator, rate_TS: Floats, pack_S: Floats) -> Floats:
    """Rare single orders [T, S] of many times the usual demand, where anything can be sold."""
    often = magnitude(rng, (1e-4, 4e-3))
    hit_TS: Flags = (rng.random(rate_TS.shape, dtype=np.float32) < often) & (rate_TS > 0)
    t_N, s_N = np.nonzero(hit_TS)
    usual_S = np.maximum(rate_TS.mean(axis=0), 1.0)
    usual_S = usual_S / (1.0 + usual_S / 10.0) ** 0.4  # less of a surprise where much is sold
    size_N = usual_S[s_N] * log_uniform(rng, (2.0, 30.0), len(s_N))
    bulk_TS = np.zeros_like(rate_TS)
    bulk_TS[t_N, s_N] = np.ceil(np.minimum(size_N, _MAX_RATE) / pack_S[s_N]) * pack_S[s_N]
    return bulk_TS
