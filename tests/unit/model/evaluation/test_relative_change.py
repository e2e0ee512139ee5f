"""The change between two losses and its standard error, with few origins and series."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.evaluation.looks import ERROR, error_to_spend
from model.evaluation.relative_change import RelativeChange, relative_change, student_t

#: Upper quantiles of Student's t from printed tables.
TABLE = {
    (0.025, 1): 12.706, (0.025, 2): 4.303, (0.025, 6): 2.447, (0.025, 30): 2.042,
    (0.005, 3): 5.841, (0.005, 13): 3.012, (0.0005, 6): 5.959, (0.1, 4): 1.533,
}  # fmt: skip


@pytest.mark.parametrize(("place", "value"), TABLE.items())
def test_quantiles_of_student_t(place: tuple[float, int], value: float) -> None:
    assert student_t(*place) == pytest.approx(value, abs=5e-4)


def test_a_shock_of_a_whole_origin_counts_once_however_many_series_share_it() -> None:
    """Independent cells average out with more series; common shocks do not."""
    rng = np.random.default_rng(0)

    def errors(series: int, *, common: bool) -> float:
        before_OS = np.ones((7, series))
        noise = rng.normal(0, 0.1, (7, 1 if common else series))
        return relative_change(before_OS, before_OS * (1 + noise)).error

    assert errors(2_000, common=False) < errors(20, common=False) / 5
    assert errors(2_000, common=True) == pytest.approx(0.1 / np.sqrt(7), rel=0.6)


def test_a_habit_of_a_series_counts_once_however_many_origins_show_it() -> None:
    rng = np.random.default_rng(1)
    before_OS = np.ones((7, 30))
    habit_S = rng.normal(0, 0.1, 30)
    change = relative_change(before_OS, before_OS * (1 + habit_S))

    assert change.error == pytest.approx(0.1 / np.sqrt(30), rel=0.4)


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(0.01, 100), ratio=st.floats(0.1, 3), seed=st.integers(0, 1_000))
def test_units_do_not_matter(scale: float, ratio: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    before_OS = rng.gamma(2, 1, (5, 8))
    after_OS = before_OS * ratio * rng.gamma(9, 1 / 9, (5, 8))
    one, other = (relative_change(by * before_OS, by * after_OS) for by in (1.0, scale))

    assert one.value == pytest.approx(other.value)
    assert one.error == pytest.approx(other.error)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Origins with shocks of heavy tails: at least 95 % of the intervals, not far above."""
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(400):
        shock_O1 = 0.02 * rng.standard_t(4, (7, 1))
        before_OS = rng.gamma(2, 1, (7, 40))
        after_OS = before_OS * (0.98 + shock_O1 + 0.05 * rng.normal(size=(7, 40)))
        low, high = relative_change(before_OS, after_OS).interval(0.025)
        covered += low <= -0.02 <= high

    assert 0.94 <= covered / 400 <= 0.995


def test_a_single_origin_tells_nothing() -> None:
    change = relative_change(np.array([[4.0, 1.0]]), np.array([[1.0, 1.0]]))

    assert change.interval(0.025) == (-np.inf, np.inf)
    assert RelativeChange(-0.5, 0.0, 0).interval(0.025) == (-0.5, -0.5)


def test_all_looks_at_one_set_of_origins_spend_no_more_than_the_error() -> None:
    origins = [0, 10, 20]
    spent = 0.0
    looks: list[tuple[int, int]] = []
    for _ in range(50):
        spent += error_to_spend(origins, horizon_ms=10, looks=looks)
        looks.append((0, 30))

    assert spent == pytest.approx(ERROR)


def test_new_origins_bring_new_error_to_spend() -> None:
    """A look a day at the last seven days settles; a week without a look restores all."""
    looks: list[tuple[int, int]] = []
    spent = []
    for day in range(70):
        origins = range(day, day + 7)
        spent.append(error_to_spend(origins, horizon_ms=1, looks=looks))
        looks.append((day, day + 7))

    assert spent[0] == ERROR / 2
    assert spent[-1] == pytest.approx(ERROR / 7, rel=0.01)
    assert sum(spent) <= ERROR * (70 + 7) / 7
    assert error_to_spend(range(80, 87), horizon_ms=1, looks=looks) == ERROR / 2
