"""False alarms of the drift test in busy seasons, and its delay after a change, on synthetic days.

python scripts/drift_seasons.py
"""

import numpy as np
from numpy.typing import NDArray

from model.evaluation.drift import ClassDrift
from model.evaluation.score_sums import N_SUMS, SUMS

SEEDS, BEFORE, DAYS, LONG = 40, 60, 35, 40_000
WEEK = (1.0, 1.0, 1.0, 1.1, 1.2, 1.4, 0.5)
WQL, NAIVE_WQL = 0.3, 0.45


def day(rng: np.random.Generator, number: int, demand: float, loss: float, naive: float) -> NDArray:
    """Sums of a day; `demand`, `loss` and `naive` are multiples of the usual ones."""
    actual = 1_000 * demand * WEEK[number % 7] * np.exp(rng.normal(0, 0.08))
    shared = rng.normal(0, 0.05)
    values = {
        "labels": 500, "weight": 500, "actual": actual, "naive_actual": actual,
        "loss": actual * loss * WQL / 2 * np.exp(rng.normal(0, 0.08) + shared),
        "naive_loss": actual * naive * NAIVE_WQL / 2 * np.exp(rng.normal(0, 0.15) + shared),
        "pit": 500 * (0.5 + rng.normal(0, 0.01)),
    }  # fmt: skip
    sums_K = np.zeros(N_SUMS)
    for name, value in values.items():
        sums_K[SUMS.index(name)] = value
    return sums_K


def first_alarm(seed: int, demand: NDArray, loss: NDArray, naive: NDArray) -> int | None:
    """Day of the season on which the loss raises an alarm."""
    rng, drift = np.random.default_rng(seed), ClassDrift(8.0, 14)
    for number in range(BEFORE):
        drift.update(day(rng, number, 1, 1, 1))
    for t in range(DAYS):
        sums_K = day(rng, BEFORE + t, demand[t], loss[t], naive[t])
        if drift.update(sums_K)["loss"].alarm:
            return t + 1
    return None


def long_run() -> int:
    """Alarms in many ordinary days."""
    rng, drift = np.random.default_rng(9), ClassDrift(8.0, 14)
    alarms = [drift.update(day(rng, t, 1, 1, 1))["loss"].alarm for t in range(LONG)]
    return int(np.diff(alarms, prepend=False).sum()) // 2


def main() -> None:
    """Print a line per scenario: how many of the shops had an alarm, and when."""
    grown = np.arange(1, DAYS + 1) / DAYS
    usual = np.ones(DAYS)

    def jump(factor: float) -> tuple[NDArray, NDArray, NDArray]:
        return usual, factor * usual, np.where(np.arange(DAYS) < 7, factor, 1.0)

    scenarios = {
        "demand doubles in 5 weeks": (2**grown, usual, usual),
        "both WQLs rise by half in 5 weeks": (usual, 1.5**grown, 1.5**grown),
        "both, together": (2**grown, 1.5**grown, 1.5**grown),
        **{f"WQL × {factor}, the naive's for a week": jump(factor) for factor in (1.2, 1.3, 1.67)},
    }
    for name, changes in scenarios.items():
        found = [first_alarm(seed, *changes) for seed in range(SEEDS)]
        days = [at for at in found if at is not None]
        when = f", median day {np.median(days):g}" if days else ""
        print(f"{name}: {len(days)} of {SEEDS}{when}")
    print(f"ordinary days: {long_run()} alarms in {LONG:,}")


if __name__ == "__main__":
    main()
