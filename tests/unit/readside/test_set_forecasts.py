"""The demand of any set of series together: calibrated where the shop's total is."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.durations import HOUR_MS
from model.quantiles.sums_of_series import variance_of
from stream.readside.series_answers import Age, SeriesForecast
from stream.readside.set_forecasts import SetForecast, forecast_of_set
from stream.state.forecast_sums import ForecastSums

LEVELS = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
SERIES, DRAWS, ORIGIN_MS = 200, 2_000, 5 * HOUR_MS

Doubles = NDArray[np.float64]


def forecast_from(name: str, draws_DH: Doubles) -> SeriesForecast:
    """A perfect forecast of demand: its own quantiles and means."""
    quantiles_HQ = np.quantile(draws_DH, LEVELS, axis=0).T
    sums_HQ = np.quantile(draws_DH.cumsum(axis=1), LEVELS, axis=0).T
    return SeriesForecast(
        name, ORIGIN_MS, HOUR_MS, LEVELS,
        quantiles_HQ.astype(np.float32), sums_HQ.astype(np.float32),
        draws_DH.mean(axis=0).astype(np.float32),
        "m", True, ORIGIN_MS, ORIGIN_MS, Age(0, stale=False),
    )  # fmt: skip


class DrawnShop:
    """Demand of a shop whose series share a part of their errors, and a forecast of each."""

    def __init__(self, *, shared: float) -> None:
        rng = np.random.default_rng(8)
        level_S = rng.gamma(0.7, 30.0, SERIES) + 0.2
        shop_DH = rng.gamma(1 / shared, shared, (DRAWS, 2)) if shared else np.ones((DRAWS, 2))
        self.demand_DSH = rng.poisson(level_S[:, None] * shop_DH[:, None, :]).astype(np.float64)
        self.forecasts = [
            forecast_from(f"S{slot}", self.demand_DSH[:, slot]) for slot in range(SERIES)
        ]
        self.total = forecast_from("total", self.demand_DSH.sum(axis=1))
        halves = (self.forecasts[::2], self.forecasts[1::2])
        self.partitions = [self._sums(half) for half in halves]

    def _sums(self, forecasts: list[SeriesForecast]) -> ForecastSums:
        mean_SH = np.stack([one.mean_H for one in forecasts])
        units = variance_of(np.stack([one.units_HQ for one in forecasts]), mean_SH, LEVELS)
        sums = variance_of(
            np.stack([one.cumulative_HQ for one in forecasts]), mean_SH.cumsum(axis=1), LEVELS
        )
        variance_2H = np.stack([units.sum(axis=0), sums.sum(axis=0)])
        return ForecastSums.of(ORIGIN_MS, ["total"], mean_SH.sum(axis=0)[None], variance_2H)

    def coverage(self, slots: NDArray[np.int64], made: SetForecast) -> tuple[float, float]:
        """Shares of drawn demand within the 80 % bands, of the second bucket and of the sum."""
        demand_DH = self.demand_DSH[:, slots].sum(axis=1)
        shares = []
        for drawn_D, row_Q in (
            (demand_DH[:, 1], made.units_HQ[1]),
            (demand_DH.sum(axis=1), made.cumulative_HQ[1]),
        ):
            shares.append(float(((drawn_D >= row_Q[1]) & (drawn_D <= row_Q[9])).mean()))
        return shares[0], shares[1]


@pytest.fixture(scope="module", params=[0.0, 0.05, 0.4], ids=["own", "some", "much"])
def shop(request: pytest.FixtureRequest) -> DrawnShop:
    """Shops whose series share nothing, a little and much."""
    return DrawnShop(shared=request.param)


@pytest.mark.parametrize("size", [4, 30, SERIES])
def test_a_set_of_any_size_is_calibrated(shop: DrawnShop, size: int) -> None:
    for seed in range(5):
        slots = np.sort(np.random.default_rng(seed).choice(SERIES, size, replace=False))
        chosen = [shop.forecasts[slot] for slot in slots]
        made = forecast_of_set(chosen, shop.total, shop.partitions)

        assert made.joint
        for share in shop.coverage(slots, made):
            assert 0.72 <= share <= 0.9
        mean = np.sum([one.mean_H for one in chosen], axis=0)
        np.testing.assert_allclose(made.mean_H, mean, rtol=1e-6)


def test_the_forecast_of_a_set_is_coherent_and_whole(shop: DrawnShop) -> None:
    made = forecast_of_set(shop.forecasts[:20], shop.total, shop.partitions)

    for block_HQ in (made.units_HQ, made.cumulative_HQ):
        assert (block_HQ % 1 == 0).all()
        assert (np.diff(block_HQ, axis=1) >= 0).all()
    np.testing.assert_array_equal(made.units_HQ[0], made.cumulative_HQ[0])
    assert (made.cumulative_HQ >= made.units_HQ).all()
    assert (np.diff(made.cumulative_HQ, axis=0) >= 0).all()


def test_a_set_of_one_is_that_one(shop: DrawnShop) -> None:
    one = shop.forecasts[7]
    made = forecast_of_set([one], None, [])

    np.testing.assert_array_equal(made.units_HQ, one.units_HQ)
    assert made.joint


def _later(shop: DrawnShop) -> dict[str, Any]:
    return {"total": replace(shop.total, origin_ms=6 * HOUR_MS), "partitions": shop.partitions}


@pytest.mark.parametrize(
    "known",
    [
        lambda shop: {"total": None, "partitions": shop.partitions},
        lambda shop: {"total": shop.total, "partitions": []},
        _later,
        lambda shop: {
            "total": shop.total,
            "partitions": [ForecastSums.of(0, ["total"], np.ones((1, 2)), np.ones((2, 2)))],
        },
    ],
    ids=["no total", "no sums", "a later total", "sums of another origin"],
)
def test_without_the_total_the_band_says_that_it_is_too_narrow(known: Any) -> None:
    shop = DrawnShop(shared=0.4)
    made = forecast_of_set(shop.forecasts, **known(shop))
    whole = forecast_of_set(shop.forecasts, shop.total, shop.partitions)

    assert not made.joint
    narrow_H, wide_H = (one.units_HQ[:, 9] - one.units_HQ[:, 1] for one in (made, whole))
    assert (narrow_H < wide_H).all()
