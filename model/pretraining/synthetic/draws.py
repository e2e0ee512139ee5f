"""Random draws that the parts of a synthetic shop have in common.

Axes: T = steps in time, G = groups or series, N = spells.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: Real values; large blocks are float32.
Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
#: A probability, or one for each draw.
Share = float | tuple[float, ...] | Floats
Size = int | tuple[int, ...] | None
#: Lowest and highest value of a draw.
Range = tuple[float, float]

_MAX_SPELLS: Final = 2_000


def log_uniform(rng: np.random.Generator, low_high: Range, size: Size = None) -> Floats:
    """Positive values whose logarithm is uniform; all `low` where `high` is less.

    >>> values = log_uniform(np.random.default_rng(0), (0.1, 10.0), 1_000)
    >>> bool((values < 1.0).mean() > 0.45), bool(values.min() >= 0.1)
    (True, True)
    """
    low, high = np.log(low_high)
    return np.exp(rng.uniform(low, max(low, high), size)).astype(np.float32)


def magnitude(rng: np.random.Generator, low_high: Range) -> float:
    """One positive value whose logarithm is uniform.

    >>> 0.1 <= magnitude(np.random.default_rng(0), (0.1, 10.0)) <= 10.0
    True
    """
    return float(log_uniform(rng, low_high))


def some(rng: np.random.Generator, share: Share, size: Size = None) -> Flags:
    """True for a share of the draws.

    >>> some(np.random.default_rng(0), 1.0, 2).tolist()
    [True, True]
    """
    return np.asarray(rng.random(size) < share)


def normal(rng: np.random.Generator, size: tuple[int, ...]) -> Floats:
    """Standard normal values."""
    return rng.standard_normal(size, dtype=np.float32)


def autoregressive(noise_TG: Floats, decay_G: Floats) -> Floats:
    """Stationary AR(1) of variance one [T, G] from standard normal noise, in place.

    >>> white = normal(np.random.default_rng(0), (4_000, 1))
    >>> smooth = autoregressive(white, np.array([0.9], np.float32))[:, 0]
    >>> round(float(smooth.std())), round(float((smooth[1:] * smooth[:-1]).mean()), 1)
    (1, 0.9)
    """
    noise_TG[1:] *= np.sqrt(1.0 - decay_G**2)
    for before_G, now_G in pairwise(noise_TG):
        np.add(now_G, decay_G * before_G, out=now_G)
    return noise_TG


def decay_of(half_life: Floats) -> Floats:
    """Decay a step of a half-life in steps.

    >>> decay_of(np.array([1.0, 2.0], np.float32)).round(3).tolist()
    [0.5, 0.707]
    """
    decay: Floats = np.exp2(-1.0 / half_life)
    return decay


@dataclass(frozen=True, slots=True)
class Spells:
    """Spans of steps during which something lasts, per group, without overlap.

    `id_TG[t, g]` is 0 outside of spells, else 1 + the index n of the spell, which begins at step
    `start_N[n]` in group `group_N[n]`.
    """

    id_TG: NDArray[np.int32]
    start_N: Ints
    length_N: Ints
    group_N: Ints

    def values(self, value_N: Floats, outside: float = 0.0) -> Floats:
        """The value [T, G] of the spell at each step.

        >>> spells = paint(np.array([1]), np.array([2]), np.array([0]), steps=4, groups=1)
        >>> spells.values(np.array([5.0], np.float32))[:, 0].tolist()
        [0.0, 5.0, 5.0, 0.0]
        """
        table = np.concatenate((np.array([outside], np.float32), value_N.astype(np.float32)))
        return table[self.id_TG]

    def since_start(self) -> Floats:
        """Steps [T, G] since the start of the spell; undefined outside of spells."""
        start_TG = np.concatenate((np.zeros(1, np.int64), self.start_N))[self.id_TG]
        return (np.arange(len(start_TG))[:, None] - start_TG).astype(np.float32)

    def after(self, length_N: Ints) -> "Spells":
        """The spans [T, G] that follow each spell, cut where the group's next spell begins."""
        steps, groups = self.id_TG.shape
        end_N = self.start_N + self.length_N
        order = np.lexsort((self.start_N, self.group_N))
        same = self.group_N[order][1:] == self.group_N[order][:-1]
        next_N = np.full(len(end_N), steps, np.int64)
        next_N[order[:-1]] = np.where(same, self.start_N[order][1:], steps)
        room_N = np.maximum(np.minimum(next_N, steps) - end_N, 0)
        return paint(end_N, np.minimum(length_N, room_N), self.group_N, steps=steps, groups=groups)

    @property
    def count(self) -> int:
        """Number of spells N."""
        return len(self.start_N)


def paint(start_N: Ints, length_N: Ints, group_N: Ints, *, steps: int, groups: int) -> Spells:
    """Spells from their starts, lengths and groups; those of a group must not overlap."""
    change_TG = np.zeros((steps + 1, groups), np.int32)
    ids_N = 1 + np.arange(len(start_N), dtype=np.int32)
    np.add.at(change_TG, (np.minimum(start_N, steps), group_N), ids_N)
    np.add.at(change_TG, (np.minimum(start_N + length_N, steps), group_N), -ids_N)
    id_TG = np.cumsum(change_TG[:steps], axis=0, dtype=np.int32)
    return Spells(id_TG, start_N, length_N, group_N)


def spells(
    rng: np.random.Generator, *, steps: int, groups: int, gap: float | Floats, length: Range
) -> Spells:
    """Spells after exponential gaps of mean `gap` steps, of log-uniform lengths in steps.

    A gap of 0 gives spells without any step between them, so that every step is in one.

    >>> both = spells(np.random.default_rng(0), steps=50, groups=2, gap=0.0, length=(3, 9))
    >>> bool((both.id_TG > 0).all()), sorted(set(both.group_N.tolist()))
    (True, [0, 1])
    """
    low = max(length[0], 1.0)
    length = (low, max(length[1], low))
    gap_G = np.broadcast_to(np.asarray(gap, np.float64), (groups,))
    mean = float(gap_G.min()) + sum(length) / 4
    most = int(min(4 + 2 * steps / mean, _MAX_SPELLS))
    length_KG = np.rint(log_uniform(rng, length, (most, groups))).astype(np.int64)
    gap_KG = np.ceil(rng.standard_exponential((most, groups)) * gap_G).astype(np.int64)
    end_KG = np.cumsum(gap_KG + length_KG, axis=0)
    start_KG = end_KG - length_KG
    if gap_G.max() == 0:
        length_KG[-1] = np.maximum(length_KG[-1], steps - start_KG[-1])
    rank_N, group_N = np.nonzero(start_KG < steps)
    start_N, length_N = start_KG[rank_N, group_N], length_KG[rank_N, group_N]
    return paint(start_N, length_N, group_N.astype(np.int64), steps=steps, groups=groups)
