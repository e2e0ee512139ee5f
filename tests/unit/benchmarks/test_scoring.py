"""Scores of the accuracy benchmark: unknown truths are skipped, panels count the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.problem import OriginForecast, Problem
from benchmarks.accuracy.scoring.bootstrap import compare, compare_pooled, drawn_log_ratios
from benchmarks.accuracy.scoring.results import TaskResult, write
from benchmarks.accuracy.scoring.scores import Truth, losses, naive_error, scores
from benchmarks.accuracy.scoring.table import comparisons, pooled
from benchmarks.accuracy.tasks import Task
from model.config import DECILES
from model.contract import FEATURE_NAMES
from model.durations import DAY_MS
from model.history import History
from model.inputs.carried_statistics import RETURNS, UNITS

PLACES = (6, 8)


def _problem(*, unknown: list[tuple[int, int]] | None = None) -> Problem:
    """Two SKUs of 4 and 8 units a day, and their total; `unknown` are (bucket, series)."""
    values_TSF = np.zeros((10, 3, len(FEATURE_NAMES)), np.float32)
    values_TSF[:, :, UNITS] = [4, 8, 12]
    observed_TS = np.ones((10, 3), bool)
    for cell in unknown or ():
        observed_TS[cell] = False
        values_TSF[cell][UNITS] = 0
    history = History(values_TSF, 0, DAY_MS, ["a", "b", "total"])
    origins_ms = [place * DAY_MS for place in PLACES]
    task = Task("tiny", history, 3, 2, origins_ms, [], season=1, observed_TS=observed_TS)
    return Problem(task, origins_ms)


def _forecasts(problem: Problem, factor: float) -> list[OriginForecast]:
    """Every quantile is the demand of the series times `factor`."""
    units_SHQ = np.ones((3, 2, len(DECILES)), np.float32) * factor
    units_SHQ *= np.array([4, 8, 12], np.float32)[:, None, None]
    return [OriginForecast(units_SHQ, 1.0, 0.5) for _ in problem.places]


def _result(task: str, factors: dict[str, float]) -> TaskResult:
    problem = _problem()
    truth = replace(Truth.of(problem), whole_S=np.zeros(3, np.bool_))
    result = TaskResult(task, truth)
    for name, factor in factors.items():
        result.add(name, _forecasts(problem, factor))
    return result


def test_unknown_truths_count_in_no_score() -> None:
    """A bucket of a series that is not observed would be a silent one."""
    whole, part = Truth.of(_problem()), Truth.of(_problem(unknown=[(7, 1)]))
    units_OSHQ = np.stack([one.units_SHQ for one in _forecasts(_problem(), 1.5)])
    skus = np.array([0, 1])

    assert scores(whole, units_OSHQ, skus)["wql"] == 0.5
    assert scores(part, units_OSHQ, skus)["wql"] == 0.5
    assert scores(whole, units_OSHQ, skus)["truths"] == 8
    assert scores(part, units_OSHQ, skus)["truths"] == 7
    loss_OS, demand_OS = losses(part, units_OSHQ)
    assert demand_OS[0].tolist() == [8, 8, 24]
    assert loss_OS[0].round(4).tolist() == [4, 4, 12]


def test_a_truth_is_net_of_returns() -> None:
    problem = _problem()
    problem.task.history.values_TSF[7, 0, [UNITS, RETURNS]] = (0, 3)

    assert Truth.of(problem).actual_OSH[0, 0].tolist() == [4, -3]


def test_levels_are_scored_apart() -> None:
    rows = {row["level"]: row for row in _result("one", {"m": 0.5}).rows}

    assert {level: row["series"] for level, row in rows.items()} == {"sku": 2, "total": 1, "all": 3}
    assert rows["sku"]["wql_by_origin"] == [0.5, 0.5]
    assert rows["sku"]["wql_by_step"] == [0.5, 0.5]


def test_the_naive_error_skips_unknown_buckets() -> None:
    past_TS = np.array([[1.0], [3.0], [np.nan], [9.0], [9.0], [10.0]])

    assert naive_error(past_TS, 1).tolist() == [1.0]
    assert naive_error(past_TS, 2).tolist() == [pytest.approx((6 + 1) / 2)]


def test_what_sells_in_whole_units_is_scored_in_whole_units() -> None:
    problem = _problem()
    result = TaskResult("tiny", Truth.of(problem))
    result.add("near", _forecasts(problem, 1.04))

    assert result.wql("near", "sku") == 0.0


def test_rows_of_other_models_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "results" / "tiny.jsonl"
    write(_result("tiny", {"old": 0.5, "same": 0.5}), path)
    write(_result("tiny", {"same": 0.9}), path)

    lines = path.read_text().splitlines()
    assert len(lines) == 6
    assert sum('"model": "old"' in line for line in lines) == 3
    assert sum('"wql": 0.1,' in line for line in lines) == 3


def test_panels_count_the_same_in_the_pooled_mean() -> None:
    """Ratios 0.2 and 0.8 have the geometric mean 0.4, whatever the units."""
    results = [
        _result("one", {"naive": 0.5, "m": 0.9}),
        _result("two", {"naive": 0.5, "m": 0.6}),
    ]
    rows = {(row["level"], row["model"]): row for row in pooled(results, "naive")}

    assert rows["sku", "m"]["ratio"] == pytest.approx(0.4)
    assert rows["sku", "naive"]["ratio"] == 1
    assert rows["total", "m"]["panels"] == 2


def test_the_best_peer_is_chosen_for_each_panel() -> None:
    results = [
        _result("one", {"naive": 0.5, "m": 0.9, "trees": 0.8}),
        _result("two", {"naive": 0.9, "m": 0.6, "trees": 0.8}),
    ]
    rows = comparisons(results, "m", ["naive", "trees"], "trees")

    best = {row["panel"]: row["peer"] for row in rows if row["best"]}
    assert best == {"one": "trees", "two": "naive"}
    assert [(row["panel"], row["peer"]) for row in rows if not row["best"]] == [
        ("two", "trees"),
        ("all 2", "the best peer"),
        ("all 2", "trees"),
    ]
    assert rows[0]["ratio"] == 0.5
    assert rows[0]["beyond_noise"]
    assert rows[-1]["ratio"] == pytest.approx(1.0)


def _noisy(seed: int, *, gain: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Losses [4, 50] of two models with a common part; the first has `gain` less."""
    rng = np.random.default_rng(seed)
    common_OS = rng.gamma(2.0, 1.0, (4, 50))
    first_OS = common_OS * rng.lognormal(0.0, 0.2, (4, 50)) * (1 - gain)
    return first_OS, common_OS * rng.lognormal(0.0, 0.2, (4, 50))


def test_equal_models_are_seldom_different_beyond_noise() -> None:
    made = [compare(*_noisy(seed)) for seed in range(40)]

    assert sum(one.beyond_noise for one in made) <= 6
    assert compare(*_noisy(0, gain=0.2)).beyond_noise
    assert compare(*_noisy(0, gain=0.2)).better > 0.99


def test_an_origin_is_drawn_as_a_block() -> None:
    """A model that is better at one origin alone is not better beyond noise."""
    first_OS, second_OS = np.ones((3, 200)), np.ones((3, 200))
    first_OS[0] = 0.5
    made = compare(first_OS, second_OS)

    assert made.ratio == pytest.approx(2.5 / 3)
    assert made.high == pytest.approx(1.0)


def test_pooling_narrows_the_interval() -> None:
    pairs = [_noisy(seed) for seed in range(9)]
    alone, together = compare(*pairs[0]), compare_pooled(pairs)

    assert together.high - together.low < 0.5 * (alone.high - alone.low)
    ratio_D = drawn_log_ratios(*pairs[0])
    assert ratio_D.std() > 0
    assert together == compare_pooled(pairs)
    assert replace(together, low=1.1, high=1.2).beyond_noise
