"""The level of each series: growth, trends, shifts, life cycles, pauses, and its noise.

Axes: T = buckets, S = series, F = factors that the series of a shop share.
"""

import numpy as np

from model.pretraining.synthetic.clock import Clock
from model.pretraining.synthetic.draws import (
    Floats,
    autoregressive,
    decay_of,
    log_uniform,
    magnitude,
    normal,
    some,
    spells,
)
from model.pretraining.synthetic.kinds import Kind

_LIMIT = 2.5


def level_log(rng: np.random.Generator, kind: Kind, clock: Clock, series: int) -> Floats:
    """Log level [T, S] around 0: the shop's growth, random walks, trends and shifts."""
    steps, moving = clock.buckets, kind.moving * magnitude(rng, (0.3, 2.0))
    log_TS = np.zeros((steps, series), np.float32)
    hourly = min(clock.buckets_per_day**-0.25, 2.0)  # an hour moves less than a day
    if some(rng, 0.7):
        step_S = hourly * moving * magnitude(rng, (0.001, 0.03)) * log_uniform(
            rng, (0.3, 3.0), series
        )  # fmt: skip
        log_TS += np.cumsum(normal(rng, (steps, series)) * step_S, axis=0)
    if some(rng, 0.5):  # trends that turn
        bends = spells(rng, steps=steps, groups=series, gap=0.0, length=(steps / 6, steps * 1.5))
        rise_N = moving * magnitude(rng, (0.05, 0.9)) * normal(rng, (bends.count,))
        rise_N *= some(rng, rng.uniform(0.2, 0.9), bends.count)
        log_TS += np.cumsum(bends.values(rise_N / np.maximum(bends.length_N, 1)), axis=0)
    if some(rng, 0.1 if kind.steady else 0.4):
        shifts = spells(rng, steps=steps, groups=series, gap=0.0, length=(steps / 8, steps * 3.0))
        size_N = rng.uniform(0.1, 0.8) * normal(rng, (shifts.count,))
        size_N *= some(rng, rng.uniform(0.1, 0.8), shifts.count)
        log_TS += shifts.values(size_N)
    log_TS += _growth(rng, clock) * (0.5 if kind.steady else 1.0)
    log_TS -= log_TS.mean(axis=0)
    level_TS: Floats = np.float32(_LIMIT) * np.tanh(log_TS / _LIMIT)
    return level_TS


def _growth(rng: np.random.Generator, clock: Clock) -> Floats:
    """The shop's log growth [T, 1]: steady, turning, or a shift that all series share."""
    years = max(clock.days / 365.25, 0.02)
    total = rng.normal(0.05, 0.3) * np.sqrt(years)
    along_T = np.linspace(0.0, 1.0, clock.buckets)
    turn = rng.uniform(0.1, 1.0) if some(rng, 0.4) else 1.0
    growth_T = total * np.minimum(along_T, turn)
    if some(rng, 0.2):
        at, width = rng.uniform(0.05, 0.95), magnitude(rng, (0.001, 0.1))
        growth_T += rng.normal(0.0, 0.35) / (1.0 + np.exp(np.clip((at - along_T) / width, -50, 50)))
    growth_T1: Floats = growth_T.astype(np.float32)[:, None]
    return growth_T1


def noise_log(rng: np.random.Generator, kind: Kind, clock: Clock, series: int) -> Floats:
    """Log noise [T, S]: AR(1) at two time scales for each series, and shocks all series share."""
    steps = clock.buckets
    scale = magnitude(rng, kind.noise) * min(clock.buckets_per_day, 1.0) ** 0.15
    log_TS = np.zeros((steps, series), np.float32)
    for half_life, share in (((0.3, 8.0), 0.9), ((5.0, 200.0), 0.7)):
        if some(rng, share):
            sd_S = scale * rng.uniform(0.2, 1.0) * log_uniform(rng, (0.5, 2.0), series)
            decay_S = decay_of(log_uniform(rng, half_life, series))
            log_TS += autoregressive(normal(rng, (steps, series)), decay_S) * sd_S
    if some(rng, 0.75):
        count = int(rng.integers(1, 4))
        common_TF = autoregressive(
            normal(rng, (steps, count)), decay_of(log_uniform(rng, (0.2, 40.0), count))
        )
        if some(rng, 0.4):  # heavy tails: weather, news, outages
            common_TF *= np.sqrt(3.0 / np.maximum(rng.chisquare(3.0, (steps, count)), 0.2))
        follow_FS = rng.uniform(0.1, 0.9) * (1.0 + 0.4 * normal(rng, (count, series)))
        log_TS += (scale * common_TF).astype(np.float32) @ follow_FS.astype(np.float32)
    return np.clip(log_TS, -3.0, 2.0, out=log_TS)


def life(rng: np.random.Generator, kind: Kind, clock: Clock, series: int) -> Floats:
    """Factors [T, S]: births and ends within the window, ramps, fashions, pauses; 0 is unborn."""
    steps, often = clock.buckets, 0.3 if kind.steady else 1.0
    rate_TS = np.ones((steps, series), np.float32)
    t_T1 = np.arange(steps, dtype=np.float32)[:, None]
    if some(rng, 0.5 * often):
        born = np.flatnonzero(some(rng, magnitude(rng, (0.01, 0.5)), series))
        rate_TS[:, born] *= _growing(rng, t_T1, len(born))
    if some(rng, 0.35 * often):
        ends = np.flatnonzero(some(rng, magnitude(rng, (0.01, 0.3)), series))
        end_E = rng.uniform(0.2, 1.1, len(ends)).astype(np.float32) * steps
        fade_E = log_uniform(rng, (0.5, steps / 5), len(ends))
        rate_TS[:, ends] *= 1.0 - np.exp(-np.maximum(end_E - t_T1, 0.0) / fade_E)
    if some(rng, 0.25 * often):
        gap = steps * magnitude(rng, (1.0, 20.0))
        pauses = spells(rng, steps=steps, groups=series, gap=gap, length=(3.0, steps / 4))
        rate_TS[pauses.id_TG > 0] *= 0.0 if some(rng, 0.7) else 0.1
    return rate_TS


def _growing(rng: np.random.Generator, t_T1: Floats, count: int) -> Floats:
    """Factors [T, B] of series that begin within the window."""
    steps = len(t_T1)
    age_TB = t_T1 - np.floor(rng.uniform(0.0, 0.98, count) * steps).astype(np.float32)
    ramp_B = log_uniform(rng, (0.3, steps / 8), count)
    rate_TB = 1.0 - np.exp(-(np.maximum(age_TB, 0.0) + 0.5) / ramp_B)
    if some(rng, 0.4):  # a fashion: a peak, then a decline
        fades_B = some(rng, 0.6, count)
        tail_B = log_uniform(rng, (steps / 30, steps), count)
        rate_TB *= np.where(fades_B, np.exp(-np.maximum(age_TB, 0.0) / tail_B), 1.0)
    elif some(rng, 0.3):  # news: a rush on the first days
        rush_B = rng.uniform(0.0, 3.0, count)
        rate_TB *= 1.0 + rush_B * np.exp(-np.maximum(age_TB, 0.0) / (2.0 * ramp_B))
    return (rate_TB * (age_TB >= 0)).astype(np.float32)
