"""How often promotion is right: verdicts on simulated losses, with other rules beside it.

    python -m benchmarks.promotion.run

Three tables: rules on single comparisons; a champion's life with a challenger every day; pairs of
real networks follow with `benchmarks.promotion.pairs`.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.promotion.shops import Shop, losses, shocks
from model.evaluation.looks import error_to_spend
from model.evaluation.promotion import Losses, judge
from model.evaluation.relative_change import RelativeChange, relative_change

Doubles = NDArray[np.float64]
Rule = Callable[[Losses, np.random.Generator], bool]

#: Draws of a bootstrap; tail on each side of all rules.
DRAWS, TAIL = 400, 0.025
#: The gain that a verdict should find.
GAIN: Final = 0.02

SHOPS: Final = {
    "as measured: 7 origins, 400 series": Shop(),
    "14 origins": Shop(origins=14),
    "4 origins": Shop(origins=4),
    "3 origins (after drift)": Shop(origins=3),
    "20 series": Shop(series=20),
    "2 series": Shop(series=2),
    "shocks twice as large": Shop(shock=0.012),
    "shocks correlated by 0.4": Shop(lag=0.4),
    "series with habits (5 %)": Shop(own=0.05),
    "no shocks": Shop(shock=0.0),
}


def _plain(given: Losses) -> tuple[Doubles, Doubles]:
    return given.champion_OS[:, given.plain], given.challenger_OS[:, given.plain]


def by_series(given: Losses, rng: np.random.Generator) -> bool:
    """Percentile bootstrap over the series alone."""
    before_OS, after_OS = _plain(given)
    size = before_OS.shape[1]
    drawn_RS = rng.multinomial(size, np.full(size, 1 / size), size=DRAWS)
    changes_R = drawn_RS @ after_OS.sum(axis=0) / (drawn_RS @ before_OS.sum(axis=0)) - 1
    return bool(np.quantile(changes_R, 1 - TAIL) < 0)


def pigeonhole(given: Losses, rng: np.random.Generator) -> bool:
    """Percentile bootstrap over origins and series (Owen 2007)."""
    before_OS, after_OS = _plain(given)
    origins, size = before_OS.shape
    drawn_RS = rng.multinomial(size, np.full(size, 1 / size), size=DRAWS)
    drawn_RO = rng.multinomial(origins, np.full(origins, 1 / origins), size=DRAWS)
    after_R, before_R = (
        np.einsum("ro,os,rs->r", drawn_RO, part, drawn_RS, optimize=True)
        for part in (after_OS, before_OS)
    )
    return bool(np.quantile(after_R / before_R - 1, 1 - TAIL) < 0)


def by_origins(given: Losses, _: np.random.Generator) -> bool:
    """Student's t on the origins alone (Ibragimov & Müller 2010)."""
    before_O, after_O = (part.sum(axis=1, keepdims=True) for part in _plain(given))
    return _below_zero(relative_change(before_O, after_O))


def two_way(given: Losses, _: np.random.Generator) -> bool:
    """Student's t with clusters of origins and of series (Cameron, Gelbach & Miller 2011)."""
    return _below_zero(relative_change(*_plain(given)))


def promotion(given: Losses, _: np.random.Generator) -> bool:
    """The product's rule: two-way, a gain worth a swap, no class hurt."""
    return judge(given).promoted


def _below_zero(change: RelativeChange) -> bool:
    return change.interval(TAIL)[1] < 0


RULES: Final[Mapping[str, Rule]] = {
    "series": by_series,
    "pigeonhole": pigeonhole,
    "origins, t": by_origins,
    "two-way, t": two_way,
    "promotion": promotion,
}


def promoted(
    shop: Shop, rules: Mapping[str, Rule], *, gain: float, verdicts: int, seed: int
) -> dict[str, float]:
    """Share of the verdicts in which each rule promotes the challenger."""
    rng = np.random.default_rng(seed)
    count = dict.fromkeys(rules, 0)
    for _ in range(verdicts):
        given = losses(shop, rng, gain=gain)
        for name, rule in rules.items():
            count[name] += rule(given, rng)
    return {name: wins / verdicts for name, wins in count.items()}


def life(
    shop: Shop, *, days: int, seed: int, gain: float = 0.0, controlled: bool = True
) -> list[bool]:
    """Verdicts on a challenger a day; each has the last origins of the shop, all but one old.

    All challengers are equal, or better by `gain`. The champion's luck at an origin is part of
    every comparison with it. `controlled` spends the error of repeated looks.
    """
    rng = np.random.default_rng(seed)
    luck_O = shop.shock / np.sqrt(2) * shocks(rng, days + shop.origins, lag=shop.lag)
    looks: list[tuple[int, int]] = []
    verdicts = []
    for day in range(days):
        origins = range(day, day + shop.origins)
        given = losses(replace(shop, shock=shop.shock / np.sqrt(2)), rng, gain=gain)
        lucky_OS = given.challenger_OS.copy()
        lucky_OS[:, given.plain] += given.champion_OS[:, given.plain] * luck_O[origins][:, None]
        tail = error_to_spend(origins, horizon_ms=1, looks=looks if controlled else [])
        verdicts.append(judge(replace(given, challenger_OS=lucky_OS), tail=tail).promoted)
        looks.append((day, day + shop.origins))
    return verdicts


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--verdicts", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=11)
    given = parser.parse_args()
    console = Console(width=120)
    for gain, title in ((0.0, "equal networks"), (GAIN, f"a network {100 * GAIN:.0f} % better")):
        table = Table("comparison", *RULES, title=f"promoted, % of {given.verdicts}: {title}")
        for name, shop in SHOPS.items():
            shares = promoted(shop, RULES, gain=gain, verdicts=given.verdicts, seed=given.seed)
            table.add_row(name, *(_percent(share) for share in shares.values()))
        console.print(table)
    table = Table(
        "a challenger a day, for 200 days", "promoted, %", "first promotion after, days",
        title="repeated looks at the same origins, 20 lives",
    )  # fmt: skip
    for gain in (0.0, 0.01, GAIN):
        for controlled in (False, True):
            lives = [
                life(Shop(), days=200, seed=given.seed + place, gain=gain, controlled=controlled)
                for place in range(20)
            ]
            first = [one.index(True) + 1 for one in lives if any(one)]
            word = "error spent by looks" if controlled else "every look at 2.5 %"
            table.add_row(
                f"{100 * gain:.0f} % better, {word}",
                _percent(float(np.mean(lives))),
                f"{np.median(first):.0f} (in {len(first)} lives)" if first else "never",
            )
    console.print(table)


if __name__ == "__main__":
    main()
