"""The weekly ring gives the network last year's level of the coming weeks."""

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.durations import DAY_MS, WEEK_MS
from model.inputs.series_inputs import input_names, new_carried, observe
from tests.support.model_cases import Floats

CONFIG = ModelConfig(horizon=28, bucket_ms=DAY_MS, yearly=True)
NAMES = input_names(CONFIG)
#: A Monday.
START_MS = 1_262_563_200_000


def _inputs_after(units_T: Floats) -> dict[str, float]:
    stats = new_carried(1, CONFIG)
    for t, units in enumerate(units_T):
        bucket = torch.zeros(1, 11)
        bucket[0, 0] = float(units)
        inputs = observe(stats, bucket, START_MS + t * DAY_MS, CONFIG)
    return dict(zip(NAMES, inputs[0].tolist(), strict=True))


@pytest.mark.slow
def test_a_series_younger_than_a_year_has_zero_inputs() -> None:
    seen = _inputs_after(np.full(300, 7.0, np.float32))

    assert {seen[name] for name in NAMES if name.startswith("year_")} == {0.0}


@pytest.mark.slow
def test_a_season_of_last_year_shows_in_the_weeks_ahead() -> None:
    """Demand that doubled in week 60 shows as an input a year later."""
    days = np.arange(7 * (60 + 52))
    week = days // 7
    units_T = np.where((week >= 60) & (week < 66), 60.0, 20.0).astype(np.float32)
    seen = _inputs_after(units_T[: 7 * (58 + 52)])
    levels = [seen[f"year_level_{k}"] for k in range(5)]

    assert seen["year_known"] == 1.0
    assert abs(levels[0]) < 0.1
    assert levels[3] > 0.6
    assert levels == sorted(levels)


@pytest.mark.slow
def test_growth_over_last_year_is_the_log_of_the_ratio() -> None:
    units_T = np.where(np.arange(7 * 120) < 7 * 70, 10.0, 40.0).astype(np.float32)

    assert _inputs_after(units_T)["year_growth"] == pytest.approx(
        np.log((40 * 7 * 1.2 + 1) / (10 * 7 + 40 * 7 * 0.2 + 1)), rel=0.02
    )


@pytest.mark.slow
def test_the_year_depends_on_the_buckets_not_on_the_start_of_the_history() -> None:
    """Weeks older than the ring have no effect."""
    rng = np.random.default_rng(0)
    units_T = rng.poisson(5.0, 7 * 130).astype(np.float32)
    stats = [new_carried(1, CONFIG) for _ in range(2)]
    for t, units in enumerate(units_T):
        bucket = torch.zeros(1, 11)
        bucket[0, 0] = float(units)
        for which, first in enumerate((0, 7 * 40)):
            if t >= first:
                inputs = observe(stats[which], bucket, START_MS + t * DAY_MS, CONFIG)
                if which == 0:
                    long = inputs[:, NAMES.index("year_level_0") :]

    torch.testing.assert_close(inputs[:, NAMES.index("year_level_0") :], long, rtol=0, atol=1e-3)
    assert START_MS % WEEK_MS
