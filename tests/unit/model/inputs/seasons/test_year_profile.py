"""The season of earlier years shows in the weeks ahead, compared with the weeks just passed."""

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.durations import DAY_MS, WEEK_MS
from model.inputs.seasons.season_layout import layout_of
from model.inputs.seasons.year_profile import year_ahead, year_growth, year_known, year_weights
from tests.support.model_cases import carried_through

#: A nominal month, a twelfth of a year.
MONTH_MS = 2_629_746_000
#: 2010-01-01, a Friday.
START_MS = 1_262_304_000_000
YEAR = 365.2425


def _config(bucket_ms: int) -> ModelConfig:
    return ModelConfig(horizon=4, bucket_ms=bucket_ms, holidays_country=None)


def _carried(units_TS: np.ndarray, bucket_ms: int = WEEK_MS) -> torch.Tensor:
    return carried_through(units_TS, _config(bucket_ms), start_ms=START_MS)


def _ahead(
    stats_SK: torch.Tensor, buckets: int, horizon: int, bucket_ms: int = WEEK_MS
) -> np.ndarray:
    """Log factors [S, H] of the `horizon` buckets after the first `buckets`, both parts."""
    layout = layout_of(bucket_ms)
    ahead = layout.horizon(START_MS + bucket_ms * buckets, horizon, None)
    smooth_SH, rest_SH = year_ahead(stats_SK, ahead, layout)
    sum_SH: np.ndarray = (smooth_SH + rest_SH).numpy()
    return sum_SH


def _season(buckets: int, bucket_ms: int = WEEK_MS, *, height: float = 3.0) -> np.ndarray:
    """Demand [T] around 40, `height` times as much from the end of May to mid-July."""
    of_year_T = (bucket_ms * (np.arange(buckets) + 0.5) / DAY_MS) % YEAR / YEAR
    season_T: np.ndarray = 40.0 * np.where((of_year_T > 0.4) & (of_year_T < 0.55), height, 1.0)
    return season_T


@pytest.mark.slow
def test_the_profile_is_flat_for_a_year_and_a_month() -> None:
    """Then it is used, and the age is that of the series, not that of the history."""
    buckets = round(1.2 * YEAR)
    units_TS = np.stack((_season(buckets, DAY_MS), _season(buckets, DAY_MS)), axis=1)
    units_TS[: round(0.15 * YEAR), 1] = 0.0
    known, growth = [], []
    for years in (1.0, 1.06, 1.1):
        end = round(years * YEAR)
        stats_SK = _carried(units_TS[:end], DAY_MS)
        ahead_SH = np.abs(_ahead(stats_SK, end, 200, DAY_MS)).max(axis=1)
        known.append((ahead_SH > 0).tolist())
        growth.append((year_growth(stats_SK, layout_of(DAY_MS)) != 0).tolist())
        assert year_known(stats_SK, layout_of(DAY_MS)).tolist() == known[-1]

    assert known == [[False, False], [False, False], [True, False]]
    assert growth[0] == growth[1] == [False, False]


@pytest.mark.parametrize(
    ("bucket_ms", "least"),
    [(WEEK_MS, 0.8), (MONTH_MS, 0.3), pytest.param(DAY_MS, 0.8, marks=pytest.mark.slow)],
)
def test_a_peak_of_last_year_shows_in_the_buckets_ahead(bucket_ms: int, least: float) -> None:
    """In April of the second year: two quiet months ahead, then three times as much.

    Months are few, so the error of a month counts as noise for longer.
    """
    per_year = YEAR * DAY_MS / bucket_ms
    buckets, horizon = round(1.3 * per_year), round(0.3 * per_year)
    season_T = _season(buckets + horizon, bucket_ms)
    stats_SK = _carried(season_T[:buckets, None], bucket_ms)
    log_H = _ahead(stats_SK, buckets, horizon, bucket_ms)[0]

    peak_H = season_T[buckets:] > 100
    edge = {DAY_MS: 8, WEEK_MS: 1, MONTH_MS: 0}[bucket_ms]  # the edge shares a phase with the peak
    near_H = np.convolve(peak_H, np.ones(2 * edge + 1), mode="same")
    inside_H = near_H == 2 * edge + 1
    assert inside_H.any()
    assert log_H[inside_H].min() > least
    assert log_H[inside_H].max() < np.log(3) + 0.05
    assert np.abs(log_H[near_H == 0]).max() < 0.35 * least


def test_factors_are_relative_to_the_weeks_just_passed() -> None:
    """At the end of the peak, the weeks after it are expected lower."""
    end = 52 + round(0.53 * 52)
    after_H = _ahead(_carried(_season(end)[:, None]), end, 12)[0]

    assert after_H[-1] < -0.3
    assert after_H[0] > 0.2


def test_growth_cancels_and_is_an_input_of_its_own() -> None:
    """Four times as much in the second year: the same factors, and the growth."""
    end = round(1.35 * 52)
    steady_T = _season(end)
    grown_T = steady_T * np.where(np.arange(end) < 53, 1.0, 4.0)
    stats_SK = _carried(np.stack((steady_T, grown_T), axis=1))
    steady_H, grown_H = _ahead(stats_SK, end, 10)
    growth_S = year_growth(stats_SK, layout_of(WEEK_MS))

    assert steady_H.max() > 0.7
    assert grown_H == pytest.approx(steady_H, abs=0.15)
    assert growth_S[0].item() == pytest.approx(0.0, abs=0.1)
    assert growth_S[1].item() == pytest.approx(np.log(4), abs=0.35)


def test_several_years_are_averaged() -> None:
    """Peaks of one and a half and six times in turn: something between is expected."""
    year = 52.1775
    end = round(2.3 * year)
    low_T, high_T = _season(end, height=1.5), _season(end, height=6.0)
    first = np.arange(end) < year
    units_TS = np.stack((np.where(first, low_T, high_T), np.where(first, high_T, low_T)), axis=1)
    low_high, high_low = _ahead(_carried(units_TS), end, 14).max(axis=1).tolist()

    for peak in (low_high, high_low):
        assert 0.3 < peak < np.log(4)


@pytest.mark.slow
def test_a_sparse_series_is_damped() -> None:
    """Random counts without any season: the fewer there are, the less of last year is believed."""
    end = round(1.5 * YEAR)
    levels_S = np.repeat([0.03, 1.0], 20)
    units_TS = np.random.default_rng(3).poisson(levels_S, (end, 40))
    stats_SK = _carried(units_TS, DAY_MS)
    log_SH = np.abs(_ahead(stats_SK, end, 180, DAY_MS))

    assert log_SH[:20].max() < 1.5  # one sale in a phase is many times the mean of the year
    assert log_SH[:20].mean() < 0.25
    for weight_S in year_weights(stats_SK, layout_of(DAY_MS)):
        assert weight_S.min() >= 0
        assert weight_S.max() <= 1.2


def test_a_season_is_believed_and_noise_is_not() -> None:
    """Two years of weeks: a strong season, and counts without one of the same mean."""
    end = 110
    rng = np.random.default_rng(4)
    season_T = rng.poisson(_season(end, height=6.0))
    scatter_TS = rng.lognormal(0.0, 0.3, (end, 30))
    noise_TS = rng.poisson(float(season_T.mean()), scatter_TS.shape) * scatter_TS
    stats_SK = _carried(np.column_stack((season_T, noise_TS)))
    weight_S, rest_S = year_weights(stats_SK, layout_of(WEEK_MS))

    assert weight_S[0].item() > weight_S[1:].max().item()
    assert rest_S[1:].mean().item() < 0.2


def test_only_what_years_have_in_common_is_believed() -> None:
    """Three years with the same season, and three of which each has its own."""
    end = 52 * 3
    rng = np.random.default_rng(9)
    own_TS = 40.0 * np.exp(np.repeat(rng.normal(0.0, 0.5, (end // 4, 20)), 4, axis=0))
    stats_SK = _carried(np.column_stack((_season(end), own_TS)))
    weight_S, rest_S = year_weights(stats_SK, layout_of(WEEK_MS))

    assert weight_S[0].item() > 0.9
    assert weight_S[1:].mean().item() < 0.35
    assert rest_S[1:].mean().item() < 0.35


def test_empty_buckets_before_the_start_of_a_series_have_no_effect() -> None:
    """A history that begins earlier gives the same profile."""
    end, late = 120, 40
    units_T = np.random.default_rng(5).poisson(_season(end)).astype(float)
    units_T[:late] = 0.0
    long = _carried(units_T[:, None])
    short = carried_through(
        units_T[late:, None], _config(WEEK_MS), start_ms=START_MS + late * WEEK_MS
    )

    torch.testing.assert_close(short, long, rtol=0, atol=0)


def test_a_series_that_starts_in_the_middle_of_a_year_has_the_same_season() -> None:
    end = 130
    units_TS = np.stack((_season(end), _season(end)), axis=1)
    units_TS[:30, 1] = 0.0
    one_H, other_H = _ahead(_carried(units_TS), end, 30)

    assert np.abs(one_H).max() > 0.5
    assert other_H == pytest.approx(one_H, abs=0.25)


def test_no_factor_is_extreme() -> None:
    """A series that stopped for most of the year, and one with a spike of a thousand."""
    end = 110
    units_TS = np.full((end, 2), 2.0)
    units_TS[20:50, 0] = 0.0
    units_TS[25, 1] = 2_000.0
    stats_SK = _carried(units_TS)
    log_SH = _ahead(stats_SK, end, 52)

    assert np.isfinite(log_SH).all()
    assert np.abs(log_SH).max() <= 6.0
    assert torch.isfinite(stats_SK).all()
