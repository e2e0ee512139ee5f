"""Promotion: the decision whether a challenger replaces the model that serves, and its reason.

Both have forecast the same held-out origins. The challenger is promoted if its loss is lower beyond
noise (`relative_change.py`), at a probability of error that shrinks with each comparison on the
same origins (`looks.py`), by a gain that is worth a swap, and if no volume class and not the
roll-ups lose beyond noise. What serves is any forecaster: a champion or the fallback. Pure.

Axes: O = origins, S = series, H = horizon, Q = quantiles.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.evaluation.backtest import Backtest, volume_classes
from model.evaluation.looks import ERROR
from model.evaluation.metrics import pinball_loss
from model.evaluation.relative_change import relative_change

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Relative gain below which a swap is not worth its cost.
LEAST_GAIN: Final = 0.005
#: Relative loss of a volume class that a promotion tolerates,
CLASS_TOLERANCE: Final = 0.02
#: and the probability that noise alone makes a class look worse: roll-ups are few, and vary more.
CLASS_ERROR: Final = 0.1
#: Fewest origins for a decision: two leave a single degree of freedom.
LEAST_ORIGINS: Final = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and its evidence.

    `change` is the relative change of WQL, challenger against the model that serves (negative is
    better), ``[low, high]`` its interval, which leaves out the probability `tail` on each side.
    `class_changes` are the changes of each class, `origins_ms` the origins compared. `reason` is
    one sentence for people. `outsider_wql` is that of a model that never serves live, if one was
    scored.
    """

    promoted: bool
    reason: str
    champion_wql: float | None = None
    challenger_wql: float | None = None
    change: float = 0.0
    low: float = 0.0
    high: float = 0.0
    tail: float = 0.0
    class_changes: Mapping[str, float] = field(default_factory=dict)
    origins_ms: tuple[int, ...] = ()
    outsider_wql: float | None = None


@dataclass(frozen=True, slots=True)
class Losses:
    """Losses [O, S] of both models, with the factor 2 of WQL; `units` is their Σ|actual|.

    `plain` are the places of the series that are not roll-ups, `classes` those of each class,
    roll-ups included. `against` is the id of the model that serves.
    """

    champion_OS: Doubles
    challenger_OS: Doubles
    units: float
    plain: Ints
    classes: Mapping[str, Ints]
    against: str = "the champion"


def loss_of(result: Backtest, name: str, known_OSH: NDArray[np.bool_] | None = None) -> Doubles:
    """``2 · Σ pinball`` [O, S] over the known steps, mean over the quantiles.

    With **the factor 2** of WQL: their sum over Σ|actual| is the WQL.
    """
    loss_OS = np.zeros(result.actual_OSH.shape[:2])
    for place, (actual_SH, forecast_SHQ) in enumerate(
        zip(result.actual_OSH, result.forecast[name], strict=True)
    ):
        loss_NQ = pinball_loss(
            actual_SH.reshape(-1), forecast_SHQ.reshape(-1, forecast_SHQ.shape[-1]),
            result.quantiles,
        )  # fmt: skip
        loss_SH = 2 * loss_NQ.mean(axis=1).reshape(actual_SH.shape)
        known_SH = True if known_OSH is None else known_OSH[place]
        loss_OS[place] = np.where(known_SH, loss_SH, 0).sum(axis=1)
    return loss_OS


def decide(
    result: Backtest,
    *,
    champion: str,
    challenger: str,
    rollups: Ints | None = None,
    known_OSH: NDArray[np.bool_] | None = None,
    tail: float = ERROR / 2,
    tolerance: float = CLASS_TOLERANCE,
) -> Verdict:
    """Decide whether `challenger` replaces `champion`; both are names in `result`.

    `rollups` are the places of sums over other series: they form their own class and are not part
    of the overall figure, which already counts their members. `known_OSH` is False for actuals that
    are no demand, such as sold-out buckets. `tail` is the probability of error to spend
    (`looks.error_to_spend`).

    >>> rng = np.random.default_rng(1)
    >>> actual = rng.gamma(4.0, 1.0, (4, 5, 2)).astype(np.float32)
    >>> close, off = (np.repeat((actual + by)[..., None], 1, -1) for by in (0.5, 2.0))
    >>> result = Backtest([*"abcde"], [0, 1, 2, 3], 60_000, (0.5,), actual,
    ...                   {"old": off, "new": close}, np.ones((4, 5)))
    >>> decide(result, champion="old", challenger="new").promoted
    True
    >>> decide(result, champion="old", challenger="old").reason
    'no better beyond noise: WQL 0.553 against 0.553 of old, change +0.0 % (95 % ..., 4 origins)'
    """
    known = np.ones(result.actual_OSH.shape, bool) if known_OSH is None else known_OSH
    actual_OSH = np.where(known, result.actual_OSH, 0)
    plain, classes = _classes(replace(result, actual_OSH=actual_OSH), rollups)
    losses = Losses(
        champion_OS=loss_of(result, champion, known),
        challenger_OS=loss_of(result, challenger, known),
        units=float(np.abs(actual_OSH[:, plain]).sum(dtype=np.float64)),
        plain=plain,
        classes=classes,
        against=champion,
    )
    verdict = judge(losses, tail=tail, tolerance=tolerance)
    return replace(verdict, origins_ms=tuple(result.origins_ms))


def judge(
    losses: Losses, *, tail: float = ERROR / 2, tolerance: float = CLASS_TOLERANCE
) -> Verdict:
    """Decide on the losses of both models; `decide` computes them from forecasts."""
    if len(losses.champion_OS) < LEAST_ORIGINS:
        return Verdict(False, f"fewer than {LEAST_ORIGINS} origins cannot tell a gain from noise")
    if not losses.plain.size or not losses.units:
        return Verdict(False, "nothing was sold at the origins compared: WQL is undefined")
    if not np.isfinite(losses.challenger_OS).all():
        return Verdict(False, "the challenger's forecasts are not finite")
    changes = {
        name: relative_change(losses.champion_OS[:, part], losses.challenger_OS[:, part])
        for name, part in losses.classes.items()
        if part.size
    }
    champion_OS = losses.champion_OS[:, losses.plain]
    challenger_OS = losses.challenger_OS[:, losses.plain]
    overall = relative_change(champion_OS, challenger_OS)
    low, high = overall.interval(tail)
    verdict = Verdict(
        promoted=False,
        reason="",
        champion_wql=float(champion_OS.sum()) / losses.units,
        challenger_wql=float(challenger_OS.sum()) / losses.units,
        change=overall.value,
        low=low,
        high=high,
        tail=tail,
        class_changes={name: change.value for name, change in changes.items()},
    )
    hurt = {
        name: change.value
        for name, change in changes.items()
        if change.value > tolerance and change.interval(CLASS_ERROR)[0] > 0
    }
    fault = _fault(verdict, hurt, tolerance)
    figures = _figures(verdict, losses.against, len(champion_OS))
    reason = f"{fault or 'better beyond noise'}: {figures}"
    return replace(verdict, promoted=not fault, reason=reason)


def _fault(verdict: Verdict, hurt: Mapping[str, float], tolerance: float) -> str:
    """Why a challenger is not promoted; empty if it is."""
    if verdict.high >= 0:
        return "no better beyond noise"
    if -verdict.change < LEAST_GAIN:
        return f"a gain under {100 * LEAST_GAIN:.1f} % is not worth a swap"
    if hurt:
        worst = max(hurt, key=lambda name: hurt[name])
        return f"class {worst} loses {100 * hurt[worst]:.1f} %, more than {100 * tolerance:.1f} %"
    return ""


def _classes(result: Backtest, rollups: Ints | None) -> tuple[Ints, dict[str, Ints]]:
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


def _figures(verdict: Verdict, against: str, origins: int) -> str:
    return (
        f"WQL {verdict.challenger_wql:.3f} against {verdict.champion_wql:.3f} of {against}, "
        f"change {100 * verdict.change:+.1f} % ({100 * (1 - 2 * verdict.tail):.3g} % interval "
        f"{100 * verdict.low:+.1f} … {100 * verdict.high:+.1f} %, {origins} origins)"
    )
