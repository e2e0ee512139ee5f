"""Promotion: the decision whether a challenger replaces the champion, and its reason.

Both have forecast the same held-out origins. The challenger is better only if its loss is lower
*beyond noise*: a paired bootstrap over the series (Efron & Tibshirani 1993, ch. 16) draws the same
series for both, so difficulties common to both cancel. A gain overall must not come at the cost of
one volume class or of the roll-ups. Pure and seeded.

Axes: O = origins, S = series, H = horizon, Q = quantiles, R = bootstrap draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.evaluation.backtest import Backtest, volume_classes
from model.evaluation.metrics import pinball_loss

Doubles = NDArray[np.float64]

#: Share of the draws inside the reported interval.
CONFIDENCE: Final = 0.95
#: Maximum relative loss of a volume class in a promotion.
CLASS_TOLERANCE: Final = 0.02
DRAWS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and its evidence.

    `change` is the relative change of WQL, challenger against champion (negative is better),
    ``[low, high]`` its bootstrap interval, `class_changes` the same of each class. `reason` is one
    sentence for people. `outsider_wql` is that of a model that never serves live, if one was
    scored.
    """

    promoted: bool
    reason: str
    champion_wql: float | None = None
    challenger_wql: float | None = None
    change: float = 0.0
    low: float = 0.0
    high: float = 0.0
    class_changes: Mapping[str, float] = field(default_factory=dict)
    outsider_wql: float | None = None


def series_loss(result: Backtest, name: str) -> Doubles:
    """``2 · Σ pinball`` [S] of each series over origins and steps, mean over the quantiles.

    With **the factor 2** of WQL: their sum over Σ|actual| is the WQL.
    """
    forecast_OSHQ = result.forecast[name]
    losses = np.zeros(len(result.series))
    for actual_SH, forecast_SHQ in zip(result.actual_OSH, forecast_OSHQ, strict=True):
        loss_NQ = pinball_loss(
            actual_SH.reshape(-1), forecast_SHQ.reshape(-1, forecast_SHQ.shape[-1]),
            result.quantiles,
        )  # fmt: skip
        losses += 2 * loss_NQ.mean(axis=1).reshape(actual_SH.shape).sum(axis=1)
    return losses


def bootstrap_change(
    champion_S: Doubles, challenger_S: Doubles, *, seed: int, draws: int = DRAWS
) -> tuple[float, float]:
    """Interval of the relative change of the summed loss, the same series drawn for both.

    >>> low, high = bootstrap_change(np.array([4.0, 2.0, 6.0]), np.array([2.0, 1.0, 3.0]), seed=1)
    >>> low, high
    (-0.5, -0.5)
    """
    rng = np.random.default_rng(seed)
    size = len(champion_S)
    changes_R = np.empty(draws)
    for first in range(0, draws, 100):
        count = min(100, draws - first)
        drawn_RS = rng.multinomial(size, np.full(size, 1 / size), size=count)
        before_R, after_R = drawn_RS @ champion_S, drawn_RS @ challenger_S
        changes_R[first : first + count] = _relative(before_R, after_R)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(changes_R, (tail, 1 - tail))
    return float(low), float(high)


def decide(
    result: Backtest,
    *,
    champion: str,
    challenger: str,
    rollups: NDArray[np.int64] | None = None,
    tolerance: float = CLASS_TOLERANCE,
    seed: int = 7,
) -> Verdict:
    """Decide whether `challenger` replaces `champion`; both are names in `result`.

    `rollups` are the places of sums over other series: they form their own class and are not part
    of the overall figure, which already counts their members. A class is worse if its loss rises by
    more than `tolerance`.

    >>> actual = np.array([[[4.0], [2.0], [6.0]]], np.float32)
    >>> close, off = (np.repeat((actual + by)[..., None], 1, -1) for by in (0.5, 2.0))
    >>> result = Backtest(["a", "b", "c"], [0], 60_000, (0.5,), actual,
    ...                   {"old": off, "new": close}, np.ones((1, 3)))
    >>> decide(result, champion="old", challenger="new").promoted
    True
    >>> decide(result, champion="old", challenger="old").reason
    'no better beyond noise: WQL 0.500 against 0.500, change +0.0 % (95 % interval +0.0 … +0.0 %)'
    """
    plain, parts = _parts(result, rollups)
    if not plain.size or not float(np.abs(result.actual_OSH[:, plain]).sum()):
        return Verdict(False, "nothing was sold at the origins compared: WQL is undefined")
    champion_S, challenger_S = series_loss(result, champion), series_loss(result, challenger)
    if not np.isfinite(challenger_S).all():
        return Verdict(False, "the challenger's forecasts are not finite")
    units = float(np.abs(result.actual_OSH[:, plain]).sum())
    before, after = float(champion_S[plain].sum()), float(challenger_S[plain].sum())
    low, high = bootstrap_change(champion_S[plain], challenger_S[plain], seed=seed)
    changes = {
        name: float(_relative(champion_S[part].sum(), challenger_S[part].sum()))
        for name, part in parts.items()
        if part.size
    }
    verdict = Verdict(
        promoted=high < 0,
        reason="",
        champion_wql=before / units,
        challenger_wql=after / units,
        change=float(_relative(before, after)),
        low=low,
        high=high,
        class_changes=changes,
    )
    hurt = {name: change for name, change in changes.items() if change > tolerance}
    if not verdict.promoted:
        return replace(verdict, reason=f"no better beyond noise: {_figures(verdict)}")
    if hurt:
        worst = max(hurt, key=lambda name: hurt[name])
        reason = (
            f"class {worst} loses {100 * hurt[worst]:.1f} %, more than {100 * tolerance:.1f} %: "
        )
        return replace(verdict, promoted=False, reason=reason + _figures(verdict))
    return replace(verdict, reason=f"better beyond noise: {_figures(verdict)}")


def decide_first(
    result: Backtest,
    *,
    yardstick: str,
    challenger: str,
    rollups: NDArray[np.int64] | None = None,
    seed: int = 7,
) -> Verdict:
    """Decide whether a first model serves: its WQL need only be below that of the yardstick.

    It replaces a baseline, so no class is protected.
    """
    verdict = decide(result, champion=yardstick, challenger=challenger, rollups=rollups, seed=seed)
    if verdict.champion_wql is None or verdict.challenger_wql is None:
        return verdict
    better = verdict.challenger_wql < verdict.champion_wql
    word = "better" if better else "no better"
    reason = f"{word} than the {yardstick}: {_figures(verdict)}"
    return replace(verdict, promoted=better, reason=reason)


def _parts(
    result: Backtest, rollups: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Places of the series that are not roll-ups, and of each class."""
    sums = np.zeros(0, np.int64) if rollups is None else np.asarray(rollups, np.int64)
    plain = np.setdiff1d(np.arange(len(result.series)), sums)
    members = replace(
        result,
        series=[result.series[place] for place in plain.tolist()],
        actual_OSH=result.actual_OSH[:, plain],
        forecast={},
        naive_error_OS=result.naive_error_OS[:, plain],
    )
    classes = {name: plain[places] for name, places in volume_classes(members).items()}
    return plain, classes | {"roll-ups": sums}


def _relative(before: Doubles | float, after: Doubles | float) -> Doubles:
    """``after / before − 1``; 0 if both are equal, infinite if only `before` is 0."""
    before_X, after_X = np.asarray(before, np.float64), np.asarray(after, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        change: Doubles = np.where(after_X == before_X, 0.0, after_X / before_X - 1)
    return change


def _figures(verdict: Verdict) -> str:
    return (
        f"WQL {verdict.challenger_wql:.3f} against {verdict.champion_wql:.3f}, "
        f"change {100 * verdict.change:+.1f} % ({100 * CONFIDENCE:.0f} % interval "
        f"{100 * verdict.low:+.1f} … {100 * verdict.high:+.1f} %)"
    )
