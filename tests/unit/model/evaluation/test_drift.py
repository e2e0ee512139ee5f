"""Alarms of the drift test on synthetic days."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model.evaluation.drift import ClassDrift, PageHinkley
from model.evaluation.score_sums import N_SUMS, SUMS


def days(
    n: int, *, loss: float = 0.3, pit: float = 0.5, seed: int = 0
) -> list[NDArray[np.float64]]:
    """Sums of several days around a relative loss and a PIT."""
    rng = np.random.default_rng(seed)
    listed = []
    for _ in range(n):
        sums_K = np.zeros(N_SUMS)
        actual = rng.uniform(800, 1_200)
        values = {
            "labels": 500, "weight": 500, "actual": actual,
            "loss": actual * loss / 2 * rng.uniform(0.9, 1.1),
            "pit": 500 * (pit + rng.normal(0, 0.01)),
        }  # fmt: skip
        for name, value in values.items():
            sums_K[SUMS.index(name)] = value
        listed.append(sums_K)
    return listed


def alarms(drift: ClassDrift, given: list[NDArray[np.float64]], signal: str) -> list[bool]:
    return [drift.update(sums_K)[signal].alarm for sums_K in given]


def test_two_hundred_ordinary_days_raise_no_alarm() -> None:
    drift = ClassDrift(8.0, 14)
    for sums_K in days(200):
        assert not any(reading.alarm for reading in drift.update(sums_K).values())


@pytest.mark.parametrize(
    ("signal", "change"), [("loss", {"loss": 0.5}), ("pit", {"pit": 0.6}), ("pit", {"pit": 0.4})]
)
def test_a_lasting_change_is_found_within_a_week(signal: str, change: dict[str, float]) -> None:
    drift = ClassDrift(8.0, 14)
    alarms(drift, days(40), signal)

    found = alarms(drift, days(7, seed=1, **change), signal)

    assert any(found)
    assert found[0] is False  # one outlier is no drift


def test_outliers_hardly_move_the_usual_level() -> None:
    """Shortly after the warm-up, the drift itself must not become the usual level."""
    drift = ClassDrift(8.0, 5)
    alarms(drift, days(8), "loss")

    assert alarms(drift, days(3, seed=1, loss=0.9), "loss") == [False, False, True]


def test_forecasts_that_become_better_are_no_drift() -> None:
    drift = ClassDrift(8.0, 14)
    alarms(drift, days(40), "loss")

    assert not any(alarms(drift, days(20, loss=0.15, seed=1), "loss"))


def test_an_alarm_ends_when_the_scores_recover() -> None:
    drift = ClassDrift(8.0, 14)
    alarms(drift, days(40), "loss")
    alarms(drift, days(7, loss=0.6, seed=1), "loss")

    found = alarms(drift, days(6, seed=2), "loss")

    assert found[0]
    assert not found[-1]


def test_after_four_weeks_an_incident_is_the_new_normal() -> None:
    drift = ClassDrift(8.0, 14)
    alarms(drift, days(40), "loss")

    found = alarms(drift, days(90, loss=0.6, seed=1), "loss")

    assert any(found[:7])
    assert not any(found[40:])


def test_a_restored_state_continues_exactly() -> None:
    drift = ClassDrift(8.0, 14)
    alarms(drift, days(30), "pit")

    twin = ClassDrift.from_state(drift.state())

    for sums_K in days(20, pit=0.58, seed=3):
        assert twin.update(sums_K) == drift.update(sums_K)


def test_a_day_without_demand_changes_nothing() -> None:
    drift = ClassDrift(8.0, 14)
    alarms(drift, days(20), "loss")
    before = drift.state()

    assert drift.update(np.zeros(N_SUMS)) == {}
    assert drift.state() == before


def test_no_alarm_during_the_warm_up() -> None:
    test = PageHinkley(threshold=1.0, warm_up=14)

    assert not any(test.update(value) for value in np.linspace(1, 50, 14))


def season(
    *,
    demand: float = 1.0,
    loss: float = 1.0,
    naive: list[float] | None = None,
    seed: int = 0,
    n: int = 35,
) -> list[NDArray[np.float64]]:
    """Days in which demand and loss grow to multiples of what `days` has, and the naive's WQL.

    `naive` are multiples of 0.45 by day, by default those of the loss.
    """  # fmt: skip
    rng = np.random.default_rng(seed)
    grown_T = np.arange(1, n + 1) / n
    listed = []
    for t, sums_K in enumerate(days(n, seed=seed)):
        actual = sums_K[SUMS.index("actual")] * demand ** grown_T[t]
        sums_K[SUMS.index("loss")] *= (demand * loss) ** grown_T[t]
        harder = loss ** grown_T[t] if naive is None else naive[t]
        sums_K[SUMS.index("actual")] = sums_K[SUMS.index("naive_actual")] = actual
        naive_loss = 0.45 / 2 * harder * actual * rng.uniform(0.8, 1.2)
        sums_K[SUMS.index("naive_loss")] = naive_loss
        listed.append(sums_K)
    return listed


@pytest.mark.parametrize("seed", range(5))
def test_demand_that_doubles_in_five_weeks_is_no_drift(seed: int) -> None:
    """The WQL stays the same, the loss doubles."""
    drift = ClassDrift(8.0, 14)
    alarms(drift, season(n=60, seed=seed), "loss")

    assert not any(alarms(drift, season(demand=2.0, seed=10 + seed), "loss"))


@pytest.mark.parametrize("seed", range(5))
def test_a_season_that_is_harder_for_the_naive_as_well_is_no_drift(seed: int) -> None:
    drift = ClassDrift(8.0, 14)
    alarms(drift, season(n=60, seed=seed), "loss")

    assert not any(alarms(drift, season(demand=1.5, loss=1.5, seed=10 + seed), "loss"))


@pytest.mark.parametrize("seed", range(5))
def test_a_season_that_is_harder_for_the_model_alone_is_a_drift(seed: int) -> None:
    drift = ClassDrift(8.0, 14)
    alarms(drift, season(n=60, seed=seed), "loss")

    given = season(demand=1.5, loss=1.8, naive=[1.0] * 35, seed=10 + seed)
    assert any(alarms(drift, given, "loss"))


@pytest.mark.parametrize("seed", range(5))
def test_a_change_that_the_naive_has_not_seen_either_is_a_drift(seed: int) -> None:
    """Its WQL is as much worse for a week, until it repeats the change."""
    drift = ClassDrift(8.0, 14)
    alarms(drift, season(n=60, seed=seed), "loss")

    given = season(naive=[1.8] * 7 + [1.0] * 7, n=14, seed=10 + seed)
    for sums_K in given:
        sums_K[SUMS.index("loss")] *= 1.8
    assert any(alarms(drift, given, "loss")[:4])


def first_is_wild(given: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """The same days; on the first one next to nothing sold, and the naive forecast a usual day."""
    given[0][SUMS.index("naive_loss")] *= 12
    return given


@pytest.mark.parametrize("seed", range(5))
def test_a_wild_first_day_does_not_hide_a_drift(seed: int) -> None:
    drift = ClassDrift(8.0, 14)
    alarms(drift, first_is_wild(season(n=45, seed=seed)), "loss")

    given = season(naive=[1.8] * 7 + [1.0] * 7, n=14, seed=10 + seed)
    for sums_K in given:
        sums_K[SUMS.index("loss")] *= 1.8
    assert any(alarms(drift, given, "loss")[:4])


@pytest.mark.parametrize("seed", range(5))
def test_a_wild_first_day_does_not_make_a_busy_season_a_drift(seed: int) -> None:
    drift = ClassDrift(8.0, 14)
    alarms(drift, first_is_wild(season(n=25, seed=seed)), "loss")

    assert not any(alarms(drift, season(demand=1.5, loss=1.5, n=21, seed=10 + seed), "loss"))


@pytest.mark.parametrize("seed", range(5))
def test_a_naive_that_begins_a_week_later_does_not_make_a_busy_season_a_drift(seed: int) -> None:
    drift = ClassDrift(8.0, 14)
    alarms(drift, days(7, seed=seed), "loss")
    alarms(drift, season(n=18, seed=seed), "loss")

    assert not any(alarms(drift, season(demand=1.5, loss=1.5, n=21, seed=10 + seed), "loss"))
