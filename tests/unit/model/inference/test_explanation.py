"""Contributions sum to the median that they explain, and what is neutral contributes nothing.

Axes: T = buckets, S = series, H = horizon, C = contributions, P = plan columns.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.contract import QuantileForecast
from model.contributions import CONTRIBUTIONS, FACTOR_NAMES, Explanations
from model.durations import DAY_MS, HOUR_MS
from model.inference.forecaster import NetworkForecaster
from model.inputs.carried_statistics import STOCK, STOCKOUT_SHARE
from model.inputs.input_groups import GROUPS
from model.inputs.plans import CLOSURE, PROMOTION, Plans
from model.inputs.static_features import N_STATIC
from model.quantiles.coherence import make_coherent
from tests.support.model_cases import (
    START_MS,
    VARIANTS,
    Floats,
    awkward,
    of_variant,
    real_hours,
    untrained,
    with_clicks,
    with_static,
)


@dataclass
class Explained:
    """The newest forecast of a history, and its explanation."""

    rows_N: NDArray[np.int64]
    forecast: QuantileForecast
    parts: Explanations

    def median(self, block_SHQ: Floats) -> Floats:
        middle = self.forecast.quantiles.index(0.5)
        median_NH: Floats = block_SHQ[self.rows_N, :, middle]
        return median_NH

    def of(self, name: str, row: int = 0) -> NDArray[np.float64]:
        """A contribution [H] to the medians of one series."""
        part_H: NDArray[np.float64] = self.parts.units_SCH[row, CONTRIBUTIONS.index(name)]
        return part_H


def explained(
    forecaster: NetworkForecaster,
    values_TSF: Floats,
    *,
    start_ms: int = START_MS,
    plans: Plans | None = None,
    static_SX: Floats | None = None,
) -> Explained:
    states = forecaster.new_states(1)
    if static_SX is not None:
        states.set_static(static_SX)
    last = len(values_TSF) - 1
    forecaster.warm_up(states, values_TSF[:last], start_ms, plans)
    known = None if plans is None else plans.between(last, last + 1 + forecaster.horizon)
    newest_ms = start_ms + last * forecaster.bucket_ms
    forecast = forecaster.step(states, values_TSF[last], newest_ms, known)
    before = [part.clone() for part in (states.stats_SK, *states.state)]
    everyone = np.arange(values_TSF.shape[1] + 3)
    rows_N, parts = forecaster.explain(states, values_TSF[last], everyone, known)
    for part, old in zip((states.stats_SK, *states.state), before, strict=True):
        assert torch.equal(part, old)
    return Explained(rows_N, forecast, parts)


def require_sums(made: Explained) -> None:
    """Fail unless the contributions sum to the medians, once those are cut at zero."""
    units_NH1, sums_NH1 = (
        torch.from_numpy(block_SCH.sum(axis=1)[..., None]).clamp(min=0.0)
        for block_SCH in (made.parts.units_SCH, made.parts.cumulative_SCH)
    )
    make_coherent(units_NH1.numpy(), sums_NH1.numpy())
    for found_NH1, block_SHQ in (
        (units_NH1, made.forecast.units_SHQ),
        (sums_NH1, made.forecast.cumulative_SHQ),
    ):
        expected_NH = made.median(block_SHQ)
        scale_N1 = np.maximum(1.0, np.abs(expected_NH).max(axis=1, keepdims=True))
        found_NH = found_NH1[..., 0].numpy()
        np.testing.assert_allclose(found_NH / scale_N1, expected_NH / scale_N1, atol=2e-4)


def promoted(rows: int, buckets: int, columns: tuple[int, ...]) -> Plans:
    """Plans of every second series, in all buckets and two days ahead."""
    values_TSP = np.zeros((buckets + 48, rows, 4), np.float32)
    values_TSP[:, ::2, list(columns)] = 0.4
    return Plans.from_dense(values_TSP)


@pytest.mark.parametrize("variant", VARIANTS)
def test_contributions_sum_to_the_median(variant: str) -> None:
    """For every architecture, also as stepped on a GPU, and for difficult series."""
    _, values_TSF = awkward(200)
    values_TSF = np.concatenate((with_clicks(real_hours(days=9, series=12))[:200], values_TSF), 1)

    made = explained(of_variant(variant, untrained), values_TSF)

    require_sums(made)
    assert (made.median(made.forecast.units_SHQ) > 0).any()


def test_they_do_on_the_clock_of_the_shop() -> None:
    """A day that is busy in the evening of Tokyo: another hour would have another factor."""
    values_TSF = real_hours(days=9, series=6)
    hours = np.arange(len(values_TSF))
    values_TSF[hours % 24 == 11, :, 0] += 40  # 20:00 in Tokyo

    made = explained(untrained(timezone="Asia/Tokyo", holidays_country="JP"), values_TSF)

    require_sums(made)


def test_with_plans_static_features_and_all_else_they_still_do() -> None:
    """And every kind of input has an effect somewhere."""
    values_TSF = with_clicks(real_hours(days=9, series=12))
    values_TSF[:, :, 2] *= np.random.default_rng(1).uniform(0.7, 1.3, values_TSF.shape[:2])
    values_TSF[-1, 0, [STOCK, STOCKOUT_SHARE]] = 1.0, 0.3
    static_SX = np.ones((12, N_STATIC), np.float32)
    forecaster = with_static(plans=True)
    answer = forecaster.network.heads.answer
    assert answer is not None
    with torch.inference_mode():
        answer.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
        forecaster.network.heads.project.weight.normal_(
            std=0.3, generator=torch.Generator().manual_seed(2)
        )

    made = explained(
        forecaster, values_TSF, plans=promoted(12, len(values_TSF), (0, 1, 2, 3)),
        static_SX=static_SX,
    )  # fmt: skip

    require_sums(made)
    effect_C = np.abs(made.parts.units_SCH).max(axis=(0, 2))
    silent = {name for name, most in zip(CONTRIBUTIONS, effect_C, strict=True) if most == 0}
    assert silent == {"year", "special_day", "trend"}  # of nine days in October


def test_a_network_that_adds_nothing_leaves_level_and_factors() -> None:
    """Then the median is the level times its factors, less what makes zeros exact."""
    forecaster = untrained()
    with torch.inference_mode():
        forecaster.network.heads.write.weight.zero_()
        forecaster.network.heads.write.bias.zero_()

    made = explained(forecaster, real_hours(days=15, series=6))

    names = ("level", *FACTOR_NAMES, "network")
    others = [c for c, name in enumerate(CONTRIBUTIONS) if name not in names]
    assert (made.parts.units_SCH[:, others] == 0).all()
    level_SH = made.parts.units_SCH[:, CONTRIBUTIONS.index("level")]
    factor_SH = made.parts.factors_SGH.prod(axis=1)
    total_SH = made.parts.units_SCH.sum(axis=1)
    np.testing.assert_allclose(total_SH, level_SH * (factor_SH - 0.01), rtol=1e-6)
    assert factor_SH.std() > 0.1


@pytest.mark.parametrize("bucket_ms", [HOUR_MS, DAY_MS])
def test_a_group_that_is_neutral_contributes_exactly_nothing(bucket_ms: int) -> None:
    """No clicks, no stock, no plans, a price that never changes, a steady level."""
    values_TSF = np.zeros((60, 2, 11), np.float32)
    values_TSF[:, :, [0, 3]], values_TSF[:, :, 2] = 4.0, 10.0
    forecaster = with_static(plans=True, bucket_ms=bucket_ms)

    made = explained(forecaster, values_TSF, static_SX=np.zeros((2, N_STATIC), np.float32))

    groups = set(GROUPS) - {"recent", "trend"} | {"category"}
    assert all((made.of(name) == 0).all() for name in groups)
    assert made.of("history").any()
    require_sums(made)


def test_a_promotion_ahead_moves_only_its_buckets() -> None:
    values_TSF = real_hours(days=5, series=2)
    forecaster = untrained(plans=True)
    answer = forecaster.network.heads.answer
    assert answer is not None
    with torch.inference_mode():
        answer.weight.normal_(generator=torch.Generator().manual_seed(2))
    values_TSP = np.zeros((len(values_TSF) + 48, 2, 4), np.float32)
    values_TSP[len(values_TSF) + 3 : len(values_TSF) + 5, 0, PROMOTION] = 0.5
    values_TSP[len(values_TSF) + 7, 0, CLOSURE] = 1.0

    made = explained(forecaster, values_TSF, plans=Plans.from_dense(values_TSP))

    assert np.flatnonzero(np.abs(made.of("promotion")) > 1e-9).tolist() == [3, 4]
    assert np.flatnonzero(np.abs(made.of("closure")) > 1e-9).tolist() == [7]
    assert not made.of("promotion", row=1).any()
    require_sums(made)


def test_special_days_are_named_and_carried() -> None:
    """A holiday that closed the shop twice is expected to close it again."""
    start = int(np.datetime64("2021-12-27", "ms").astype(np.int64))
    days = np.arange(3 * 365 - 3)
    christmas = np.isin(days, [363, 728])  # 25 December 2022 and 2023
    values_TSF = np.zeros((len(days), 1, 11), np.float32)
    values_TSF[:, 0, 0] = np.where(christmas, 0.0, 40.0 + days % 3)
    forecaster = untrained(bucket_ms=DAY_MS, horizon=7)
    ends = next(t for t in days if (start // DAY_MS + t) == np.datetime64("2024-12-22").astype(int))

    made = explained(forecaster, values_TSF[:ends], start_ms=start)

    names = made.parts.special_days
    at = names.index("Christmas Day")
    assert names[at - 1 : at + 2] == ("day before Christmas Day", "Christmas Day", "Boxing Day")
    assert made.parts.factors_SGH[0, FACTOR_NAMES.index("special_day"), at] < 0.6
    assert made.of("special_day")[at] < -10
    require_sums(made)


def test_a_series_that_has_not_begun_is_left_out() -> None:
    values_TSF = real_hours(days=2, series=4)
    values_TSF[:, 1] = 0

    assert explained(untrained(), values_TSF).rows_N.tolist() == [0, 2, 3]


def test_a_changed_group_contributes_to_the_change() -> None:
    """Twice as many clicks in the newest bucket change the contribution of clicks."""
    values_TSF = with_clicks(real_hours(days=5, series=3))
    values_TSF[-1, :, 4:9] = 10.0
    busier_TSF = values_TSF.copy()
    busier_TSF[-1, :, 4:9] = 60.0
    forecaster = untrained()

    few, many = explained(forecaster, values_TSF), explained(forecaster, busier_TSF)

    assert np.abs(many.of("clicks") - few.of("clicks")).max() > 0
    np.testing.assert_array_equal(many.of("level"), few.of("level"))
