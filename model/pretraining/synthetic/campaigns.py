"""Promotions, prices, closures and events of a synthetic shop, and the demand they move.

Plans have three scopes, like the product's: everything, a category, a series. Some are never
announced: their effect is in the demand, but not in the plans.

Axes: C = cells, T = buckets, S = series, G = groups of a scope, P = plan columns, N = campaigns.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from model.inputs.plans import CLOSURE, EVENT, N_PLANS, PRICE, PROMOTION
from model.pretraining.synthetic.clock import Clock
from model.pretraining.synthetic.draws import (
    Floats,
    Ints,
    Spells,
    log_uniform,
    magnitude,
    normal,
    some,
    spells,
)
from model.pretraining.synthetic.kinds import Kind

_MAX_LIFT: Final = np.float32(np.log(8.0))
_DISCOUNTS: Final = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
_FLAGS: Final = (0.1, 0.2, 0.3, 1.0)


@dataclass(slots=True)
class Campaigns:
    """Effects and plans: `rate_CS` factors of demand, `paid_CS` of the price, plans by scope.

    `plan_CSP` are the announced plans of each series, `category_CGP` those that apply to a whole
    category, `total_CP` those of everything; only these two concern roll-ups.
    """

    rate_CS: Floats
    paid_CS: Floats
    plan_CSP: Floats
    category_CGP: Floats
    total_CP: Floats


@dataclass(frozen=True, slots=True)
class _Scope:
    """The groups that a campaign may have: `of_S` is the group of each series."""

    groups: int
    of_S: Ints


def draw_campaigns(
    rng: np.random.Generator, kind: Kind, clock: Clock, category_S: Ints, price_S: Floats
) -> Campaigns:
    """Draw the campaigns of a shop whose series have the list prices `price_S`."""
    series, categories = len(category_S), int(category_S.max()) + 1
    shape = (clock.cells, series)
    drawn = Campaigns(
        np.ones(shape, np.float32),
        np.ones(shape, np.float32),
        np.zeros((*shape, N_PLANS), np.float32),
        np.zeros((clock.cells, categories, N_PLANS), np.float32),
        np.zeros((clock.cells, N_PLANS), np.float32),
    )
    scopes = (
        _Scope(1, np.zeros(series, np.int64)),
        _Scope(categories, category_S),
        _Scope(series, np.arange(series)),
    )
    if some(rng, kind.promoted):
        _promotions(rng, clock, scopes, drawn)
    if some(rng, 0.45):
        _prices(rng, clock, price_S, drawn)
    if some(rng, 0.35):
        _events(rng, clock, scopes[: 1 + some(rng, 0.4)], drawn)
    if some(rng, 0.3):
        _closures(rng, clock, scopes[0], drawn)
    return drawn


def _announce(drawn: Campaigns, scope: _Scope, column: int, value_CG: Floats) -> None:
    """Enter plans; where some overlap, the largest value applies."""
    of_S = scope.of_S if scope.groups > 1 else np.zeros(len(scope.of_S), np.int64)
    plan_CS = drawn.plan_CSP[:, :, column]
    np.maximum(plan_CS, value_CG[:, of_S], out=plan_CS)
    if scope.groups == 1:
        drawn.total_CP[:, column] = np.maximum(drawn.total_CP[:, column], value_CG[:, 0])
        wider_CG = drawn.category_CGP[:, :, column]
        np.maximum(wider_CG, value_CG, out=wider_CG)
    elif scope.groups == drawn.category_CGP.shape[1]:
        wider_CG = drawn.category_CGP[:, :, column]
        np.maximum(wider_CG, value_CG, out=wider_CG)


def _days(clock: Clock, low: float, high: float) -> tuple[float, float]:
    """Cells of a span between `low` and `high` days, within a sixth of the window."""
    most = max(clock.cells / 6, 1.0)
    return min(low * clock.cells_per_day, most), min(high * clock.cells_per_day, most)


def _promotions(
    rng: np.random.Generator, clock: Clock, scopes: tuple[_Scope, ...], drawn: Campaigns
) -> None:
    series = len(scopes[0].of_S)
    elastic_S = magnitude(rng, (1.0, 6.0)) * log_uniform(rng, (0.5, 2.0), series)
    lasting, dip = rng.uniform(0.2, 1.0), rng.uniform(0.0, 0.6) * some(rng, 0.6)
    told = 0.0 if some(rng, 0.2) else 1.0 if some(rng, 0.7) else rng.uniform(0.5, 1.0)
    flag = float(rng.choice(_FLAGS)) if some(rng, 0.3) else 0.0
    log_CS = np.zeros(drawn.rate_CS.shape, np.float32)
    paid_CS = np.zeros_like(log_CS)
    used = some(rng, (0.35, 0.35, 0.8), 3) if some(rng, 0.6) else np.array([False, False, True])
    for scope, uses in zip(scopes, used, strict=True):
        if not uses:
            continue
        found = _campaigns(rng, clock, scope.groups)
        if not found.count:
            continue
        discount_N = rng.choice(_DISCOUNTS, found.count).astype(np.float32)
        off_CG = found.values(discount_N)
        pull_N = -np.log1p(-discount_N) * log_uniform(rng, (0.6, 1.6), found.count)
        fading_CG = np.exp(-found.since_start() / (2.0 * clock.cells_per_day))
        pull_CG = found.values(pull_N) * (lasting + (1.0 - lasting) * fading_CG)
        if dip:
            later = found.after(np.maximum(found.length_N, 1))
            left_CG = np.exp(-2.0 * later.since_start() / np.maximum(later.values(
                found.length_N.astype(np.float32)), 1.0))  # fmt: skip
            pull_CG -= dip * later.values(pull_N) * left_CG
        np.maximum(paid_CS, off_CG[:, scope.of_S], out=paid_CS)
        stronger_CS = pull_CG[:, scope.of_S] * elastic_S
        log_CS = np.where(np.abs(stronger_CS) > np.abs(log_CS), stronger_CS, log_CS)
        if told:
            known_N = some(rng, told, found.count)
            _announce(drawn, scope, PROMOTION, found.values((flag or discount_N) * known_N))
    drawn.rate_CS *= np.exp(np.clip(log_CS, -1.5, _MAX_LIFT))
    drawn.paid_CS *= 1.0 - paid_CS


def _campaigns(rng: np.random.Generator, clock: Clock, groups: int) -> Spells:
    """Spells of campaigns: short, with pauses of several times their length; not for all groups."""
    low = magnitude(rng, (0.1, 4.0))
    length = _days(clock, low, low * magnitude(rng, (1.5, 8.0)))
    often = magnitude(rng, (3.0, 60.0))
    gap_G = np.sqrt(length[0] * length[1]) * often * log_uniform(rng, (0.5, 2.0), groups)
    if groups > 1:
        without_G = some(rng, rng.uniform(0.0, 0.8), groups)
        gap_G[without_G] = 50.0 * clock.cells
    return spells(rng, steps=clock.cells, groups=groups, gap=gap_G + 1.0, length=length)


def _prices(rng: np.random.Generator, clock: Clock, price_S: Floats, drawn: Campaigns) -> None:
    """Lasting price steps, unannounced, and announced prices for a while."""
    cells, series = clock.cells, len(price_S)
    elastic_S = magnitude(rng, (0.4, 2.5)) * log_uniform(rng, (0.5, 2.0), series)
    log_CS = np.zeros((cells, series), np.float32)
    if some(rng, 0.7):
        length = (cells / 12, cells * 2.0)
        steps = spells(rng, steps=cells, groups=series, gap=0.0, length=length)
        log_CS += steps.values(rng.uniform(0.02, 0.2) * normal(rng, (steps.count,)))
    if some(rng, 0.6):
        length = _days(clock, 3.0, 60.0)
        found = spells(rng, steps=cells, groups=series, gap=cells / 2.0, length=length)
        new_N = np.clip(rng.uniform(0.05, 0.25) * normal(rng, (found.count,)) - 0.05, -0.6, 0.5)
        log_CS = np.where(found.id_TG > 0, found.values(new_N), log_CS)
        if some(rng, 0.75):
            here_CS = found.id_TG > 0
            drawn.plan_CSP[:, :, PRICE] = np.where(here_CS, np.exp(log_CS) * price_S, 0.0)
    drawn.paid_CS *= np.exp(log_CS)
    drawn.rate_CS *= np.exp(np.clip(-elastic_S * log_CS, -2.0, 1.5))


def _events(
    rng: np.random.Generator, clock: Clock, scopes: tuple[_Scope, ...], drawn: Campaigns
) -> None:
    """One-off events, announced: fairs, matches, strikes; each with its own effect."""
    usual, spread = rng.normal(0.3, 0.5), rng.uniform(0.05, 0.5)
    told = some(rng, 0.75)
    for scope in scopes:
        gap = clock.cells * magnitude(rng, (0.02, 1.0)) + 1.0
        length = _days(clock, 0.1, 4.0)
        found = spells(rng, steps=clock.cells, groups=scope.groups, gap=gap, length=length)
        log_N = np.clip(usual + spread * normal(rng, (found.count,)), -2.5, 2.0)
        follow_S = np.clip(1.0 + 0.4 * normal(rng, (len(scope.of_S),)), 0.0, 2.0)
        drawn.rate_CS *= np.exp(np.clip(found.values(log_N)[:, scope.of_S] * follow_S, -3.0, 2.0))
        if told:
            _announce(drawn, scope, EVENT, (found.id_TG > 0).astype(np.float32))


def _closures(rng: np.random.Generator, clock: Clock, scope: _Scope, drawn: Campaigns) -> None:
    """Times at which the whole shop is closed: stocktaking, holidays of the staff, renovation."""
    gap = clock.cells * magnitude(rng, (0.1, 1.5)) + 1.0
    length = _days(clock, 0.2, magnitude(rng, (1.0, 40.0)))
    found = spells(rng, steps=clock.cells, groups=1, gap=gap, length=length)
    shut_C1 = (found.id_TG > 0).astype(np.float32)
    drawn.rate_CS *= 1.0 - shut_C1
    if some(rng, 0.75):
        _announce(drawn, scope, CLOSURE, shut_C1)


def plans_by_bucket(clock: Clock, plan_CGP: Floats) -> Floats:
    """Plans [T, G, P] of buckets: shares of the bucket, and a price if it covers half of it."""
    if clock.cells == clock.buckets:
        return plan_CGP
    cells_T = np.diff(np.append(clock.first_T, clock.cells)).astype(np.float32)[:, None, None]
    plan_TGP = np.add.reduceat(plan_CGP, clock.first_T, axis=0) / cells_T
    price_CG = plan_CGP[:, :, PRICE]
    covered_TG = np.add.reduceat(price_CG > 0, clock.first_T, axis=0, dtype=np.float32)
    mean_TG = plan_TGP[:, :, PRICE] * cells_T[:, 0] / np.maximum(covered_TG, 1.0)
    plan_TGP[:, :, PRICE] = np.where(covered_TG >= 0.5 * cells_T[:, 0], mean_TG, 0.0)
    return plan_TGP
