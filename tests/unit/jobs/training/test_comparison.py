"""A comparison with what serves, on origins held back from the training."""

import numpy as np
import pytest

from model.baselines.exponential_smoothing import SmoothingForecaster
from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.contract import QuantileForecast
from model.durations import HOUR_MS
from model.errors import HistoryTooShort
from model.evaluation.promotion import Verdict
from model.inference.forecaster import Floats, Forecaster, States
from model.inputs.plans import Plans
from model.training.dataset import History
from stream.jobs.training.comparison import compare, look_of, origins_to_hold_back, verdict_metrics
from stream.settings import ModelSettings
from tests.support.model_cases import START_MS, history_of, real_hours, stock_up

HORIZON = 12
SETTINGS = ModelSettings(horizon=HORIZON)


class Scaled(SmoothingForecaster):
    """Exponential smoothing whose forecasts are multiplied."""

    factor = 1.0

    def step(
        self, states: States, values_SF: Floats, bucket_start_ms: int, plans: Plans | None = None
    ) -> QuantileForecast:
        made = super().step(states, values_SF, bucket_start_ms, plans)
        made.units_SHQ[:] *= self.factor
        return made


def judged(
    history: History,
    challenger: Forecaster,
    incumbent: Forecaster,
    *,
    origins: int,
    looks: list[tuple[int, int]],
) -> Verdict:
    """The verdict without a foundation model."""
    return compare(history, challenger, incumbent, origins=origins, looks=looks, settings=SETTINGS)


def scaled(factor: float) -> Scaled:
    """A model `factor` times too high."""
    made = Scaled(horizon=HORIZON, bucket_ms=HOUR_MS)
    made.factor, made.model_id = factor, f"times-{factor}"
    return made


def test_any_forecaster_can_challenge_any_other() -> None:
    history = history_of(real_hours(days=21, series=20))
    naive = SeasonalNaiveForecaster(horizon=HORIZON, bucket_ms=HOUR_MS)
    smoothing = SmoothingForecaster(horizon=HORIZON, bucket_ms=HOUR_MS)
    verdict = judged(history, smoothing, naive, origins=8, looks=[])

    assert verdict.promoted, verdict.reason
    assert f"of {naive.model_id}" in verdict.reason
    assert len(verdict.origins_ms) == 8
    assert look_of(verdict, history) == (history.end_ms - 8 * HORIZON * HOUR_MS, history.end_ms)
    assert verdict_metrics(verdict)["origins_compared"] == 8
    assert not judged(history, naive, smoothing, origins=8, looks=[]).promoted


def test_a_challenger_gains_nothing_from_forecasting_empty_shelves() -> None:
    """Most series are sold out at the origins compared: there zero is right by accident."""
    values_TSF = np.zeros((21 * 24, 20, 11), np.float32)
    values_TSF[..., 0] = np.random.default_rng(0).poisson(6, values_TSF.shape[:2])
    out_T = np.zeros(len(values_TSF), bool)
    out_T[-6 * HORIZON :] = True
    for slot in range(15):
        values_TSF[out_T, slot] = 0
        stock_up(values_TSF, slot, out_T)
    verdict = judged(history_of(values_TSF), scaled(0.8), scaled(1.0), origins=6, looks=[])
    unknown_TSF = values_TSF.copy()
    unknown_TSF[:, :, 9:] = 0
    blind = judged(history_of(unknown_TSF), scaled(0.8), scaled(1.0), origins=6, looks=[])

    assert verdict.champion_wql is not None
    assert blind.champion_wql is not None
    assert verdict.change > 0 > blind.change
    assert verdict.champion_wql < blind.champion_wql


def test_earlier_looks_at_the_same_origins_widen_the_interval() -> None:
    history = history_of(real_hours(days=14, series=10))
    first = judged(history, scaled(1.1), scaled(1.0), origins=4, looks=[])
    look = look_of(first, history)
    assert look is not None
    second = judged(history, scaled(1.1), scaled(1.0), origins=4, looks=[look])

    assert second.change == first.change
    assert second.high > first.high


@pytest.mark.parametrize(
    ("buckets", "wanted", "held_back"), [(2_000, 7, 7), (200, 7, 5), (2_000, 1, 3)]
)
def test_origins_held_back(buckets: int, wanted: int, held_back: int) -> None:
    """A third of the buckets at most, three origins at least."""
    assert origins_to_hold_back(buckets, horizon=HORIZON, wanted=wanted) == held_back


def test_a_history_too_short_to_hold_origins_back_says_how_long_it_must_be() -> None:
    with pytest.raises(HistoryTooShort, match="give at least 108"):
        origins_to_hold_back(107, horizon=HORIZON, wanted=7)
    assert origins_to_hold_back(108, horizon=HORIZON, wanted=7) == 3


def test_a_verdict_without_a_comparison_is_no_look() -> None:
    history = history_of(real_hours(days=14, series=3))
    quiet = history_of(np.zeros_like(history.values_TSF))
    verdict = judged(quiet, scaled(1.1), scaled(1.0), origins=4, looks=[])

    assert "nothing was sold" in verdict.reason
    assert history.start_ms == START_MS
