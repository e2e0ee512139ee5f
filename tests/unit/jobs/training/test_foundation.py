"""A foundation model beside a verdict: judged by the same rules, it never changes the decision."""

from pathlib import Path

import numpy as np
import pytest

from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.contract import FEATURE_NAMES, QuantileForecast
from model.durations import DAY_MS
from model.evaluation.backtest import Backtest, backtest
from model.evaluation.promotion import Verdict
from model.inference.forecaster import Floats, States
from model.inputs.plans import Plans
from model.training.dataset import History, last_buckets
from stream.jobs.training import foundation as module
from stream.jobs.training.comparison import verdict_metrics
from stream.jobs.training.foundation import beside_foundation
from stream.settings import ModelSettings

DAYS, HORIZON, SERVING = 120, 7, "seasonal naive"
REFUSED = Verdict(False, "no better beyond noise", champion_wql=0.5, challenger_wql=0.5)


class Oracle(SeasonalNaiveForecaster):
    """Knows the profile of the week, shifted by `error` units; counts the buckets it has read."""

    model_id = "chronos-2"

    def __init__(self, error: float) -> None:
        super().__init__(horizon=HORIZON, bucket_ms=DAY_MS)
        self.error = error
        self.read = 0

    def warm_up(
        self, states: States, history_TSF: Floats, start_ms: int, plans: Plans | None = None
    ) -> None:
        """Count the buckets."""
        self.read += len(history_TSF)
        super().warm_up(states, history_TSF, start_ms, plans)

    def step(
        self, states: States, values_SF: Floats, bucket_start_ms: int, plans: Plans | None = None
    ) -> QuantileForecast:
        """Forecast the profile, whatever was read."""
        made = super().step(states, values_SF, bucket_start_ms, plans)
        days_H = bucket_start_ms // DAY_MS + 1 + np.arange(HORIZON)
        made.units_SHQ[:] = _profile(days_H)[None, :, None] + np.float32(self.error)
        return made


class OutOfMemory(Oracle):
    """A foundation model that the device has no room for."""

    def step(
        self, states: States, values_SF: Floats, bucket_start_ms: int, plans: Plans | None = None
    ) -> QuantileForecast:
        """Fail as torch does."""
        raise RuntimeError("CUDA out of memory")


def _profile(days_T: np.ndarray) -> Floats:
    profile_T: Floats = (20 + 10 * (days_T % 7 == 5)).astype(np.float32)
    return profile_T


@pytest.fixture(scope="module")
def history() -> History:
    """Noise around a weekly profile, which last week's demand forecasts badly."""
    rng = np.random.default_rng(2)
    values_TSF = np.zeros((DAYS, 25, len(FEATURE_NAMES)), np.float32)
    values_TSF[:, :, 0] = rng.poisson(_profile(np.arange(DAYS))[:, None], (DAYS, 25))
    names = [f"s{place}" for place in range(25)]
    return History(values_TSF=values_TSF, start_ms=0, bucket_ms=DAY_MS, series=names)


@pytest.fixture(scope="module")
def result(history: History) -> Backtest:
    """The serving model on four origins, warmed up on four weeks."""
    naive = SeasonalNaiveForecaster(horizon=HORIZON, bucket_ms=DAY_MS)
    origins_ms = [(DAYS - HORIZON * back) * DAY_MS for back in (4, 3, 2, 1)]
    return backtest(last_buckets(history, 56), {SERVING: naive}, origins_ms)


@pytest.fixture
def challenger(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Oracle:
    """What the settings load as their challenger."""
    chosen: Oracle = request.param
    monkeypatch.setattr(module, "foundation_forecaster", lambda *_, **__: chosen)
    return chosen


@pytest.mark.parametrize("challenger", [Oracle(0.0)], indirect=True)
def test_a_verdict_says_when_the_foundation_model_would_be_better(
    challenger: Oracle, history: History, result: Backtest
) -> None:
    verdict = beside_foundation(REFUSED, result, history, ModelSettings(), serving=SERVING)

    assert verdict.promoted is False
    assert verdict.reason.startswith(
        "no better beyond noise; chronos-2, never live, against seasonal naive: better beyond "
    )
    assert verdict.outsider_wql is not None
    assert verdict_metrics(verdict)["wql_foundation"] == verdict.outsider_wql
    assert f"WQL {verdict.outsider_wql:.3f} against" in verdict.reason
    assert challenger.read >= DAYS - 4 * HORIZON - 1, "it reads more than the warm-up"


@pytest.mark.parametrize("challenger", [Oracle(9.0)], indirect=True)
@pytest.mark.usefixtures("challenger")
def test_a_verdict_says_when_it_would_not(history: History, result: Backtest) -> None:
    promoted = Verdict(True, "better beyond noise", champion_wql=0.5, challenger_wql=0.4)
    verdict = beside_foundation(promoted, result, history, ModelSettings(), serving=SERVING)

    assert verdict.promoted is True
    assert "chronos-2, never live, against seasonal naive: no better beyond noise" in verdict.reason
    assert (verdict.champion_wql, verdict.challenger_wql) == (0.5, 0.4)


@pytest.mark.parametrize("challenger", [Oracle(0.0)], indirect=True)
@pytest.mark.usefixtures("challenger")
def test_sold_out_buckets_do_not_count(history: History, result: Backtest) -> None:
    nothing_OSH = np.zeros(result.actual_OSH.shape, bool)
    verdict = beside_foundation(
        REFUSED, result, history, ModelSettings(), serving=SERVING, known_OSH=nothing_OSH
    )

    assert verdict.reason.endswith("nothing was sold at the origins compared: WQL is undefined")


@pytest.mark.parametrize("challenger", [OutOfMemory(0.0)], indirect=True)
@pytest.mark.usefixtures("challenger")
def test_a_foundation_model_that_fails_costs_no_verdict(history: History, result: Backtest) -> None:
    assert beside_foundation(REFUSED, result, history, ModelSettings(), serving=SERVING) == REFUSED


@pytest.mark.parametrize(
    "settings", [ModelSettings(), ModelSettings(challenger="tirex", challenger_path=Path("none"))]
)
def test_a_verdict_stays_without_a_foundation_model_that_can_be_loaded(
    settings: ModelSettings, history: History, result: Backtest
) -> None:
    assert beside_foundation(REFUSED, result, history, settings, serving=SERVING) == REFUSED
    assert "wql_foundation" not in verdict_metrics(REFUSED)
