"""A model with non-finite, crossing or absurd forecasts never takes over."""

from dataclasses import replace

import numpy as np
import pytest

from model.contract import QuantileForecast
from model.evaluation.sanity_check import find_fault


def forecast(mean: float = 5.0, *, series: int = 40, model_id: str = "served") -> QuantileForecast:
    """A sane forecast of three buckets and three quantiles."""
    units_SHQ = np.broadcast_to(mean * np.array([0.5, 1.0, 1.5], np.float32), (series, 3, 3)).copy()
    return QuantileForecast(
        0, 60_000, (0.1, 0.5, 0.9), units_SHQ, units_SHQ.cumsum(axis=1),
        units_SHQ[..., 1].copy(), model_id,
    )  # fmt: skip


def test_a_sane_forecast_passes_against_any_sane_one_or_none() -> None:
    for served in (None, forecast(), forecast(2.0), forecast(20.0), forecast(series=10)):
        assert find_fault(forecast(model_id="new"), served) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["units_SHQ", "cumulative_SHQ"])
def test_one_value_that_is_not_finite_is_a_fault(value: float, name: str) -> None:
    made = forecast()
    getattr(made, name)[7, 1, 2] = value

    assert "not finite" in str(find_fault(made, forecast()))


def test_negative_demand_and_crossing_quantiles_are_faults() -> None:
    negative, crossing = forecast(), forecast()
    negative.units_SHQ[3, 0, 0] = -1
    crossing.units_SHQ[3, 2, 1] = 9

    assert "negative" in str(find_fault(negative, None))
    assert "cross" in str(find_fault(crossing, None))


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_a_hundredth_or_a_hundredfold_of_the_demand_is_absurd(factor: float) -> None:
    assert "forecasts" in str(find_fault(forecast(50.0 * factor), forecast(50.0)))


def test_against_a_fallback_much_less_passes_and_much_more_does_not() -> None:
    """Exponential smoothing forecasts sales for a day on which the shop is closed."""
    assert find_fault(forecast(0.5), forecast(50.0), may_be_less=True) is None
    assert "forecasts" in str(find_fault(forecast(5_000.0), forecast(50.0), may_be_less=True))


def test_many_implausible_series_are_a_fault_even_if_the_total_is_plausible() -> None:
    served, made = forecast(), forecast()
    served.cumulative_SHQ[0] *= 2_000
    served.mean_SH[0] *= 2_000
    made.cumulative_SHQ[1:9] *= 1_000
    made.mean_SH[1:9] *= 1_000

    assert "for 8 series" in str(find_fault(made, served))


def test_with_little_demand_no_factor_is_absurd() -> None:
    """At night, 0.001 units against 0.1 is a hundredth, but not absurd."""
    assert find_fault(forecast(0.001, series=4), forecast(0.1, series=4)) is None


def test_other_quantiles_cannot_be_compared() -> None:
    other = replace(forecast(500.0), quantiles=(0.2, 0.5, 0.8))

    assert find_fault(forecast(), other) is None
