"""The accuracy benchmark: no forecaster sees the future, and an interrupted run continues."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.accuracy.heads import count_loss, counting
from benchmarks.accuracy.models import STATISTICAL
from benchmarks.accuracy.ours import Surgecast, configured
from benchmarks.accuracy.peers.statistical import SeasonalNaive, Statistical
from benchmarks.accuracy.problem import OriginForecast, Peer, Problem
from benchmarks.accuracy.store import ForecastStore
from benchmarks.accuracy.tasks import Task
from model.contract import FEATURE_NAMES
from model.durations import DAY_MS
from model.training.dataset import History

START_MS = 15_000 * DAY_MS
PLACES = (150, 157)
SMALL = {"hidden": 8, "layers": 1, "rank": 4, "updates": 4, "chunk": 16, "lanes": 8}


def _problem(*, later: float = 1.0) -> Problem:
    values_TSF = np.zeros((180, 5, len(FEATURE_NAMES)), np.float32)
    values_TSF[:, :, 0] = np.random.default_rng(0).poisson(4.0, (180, 5))
    values_TSF[:, :, 2] = 2 * values_TSF[:, :, 0]
    values_TSF[:, :, 3] = values_TSF[:, :, 0] > 0
    values_TSF[PLACES[1] :] *= later
    history = History(values_TSF, START_MS, DAY_MS, [f"s{k}" for k in range(5)])
    origins_ms = [START_MS + place * DAY_MS for place in PLACES]
    task = Task("daily", history, 4, 7, origins_ms, [])
    return Problem(task, origins_ms)


def _surgecast(problem: Problem, folder: Path, **retrained: object) -> Peer:
    folder.mkdir(parents=True, exist_ok=True)
    config = configured(problem, seed=0, overrides=dict(SMALL))
    return Surgecast(problem, folder, config, retrained=retrained or None)


def _lightgbm(problem: Problem, folder: Path) -> Peer:
    from benchmarks.accuracy.peers.trees import LightGbm, TreeSettings

    return LightGbm(problem, TreeSettings(trees=3), refit_every=1)


MAKERS: dict[str, Callable[[Problem, Path], Peer]] = {
    "seasonal-naive": lambda problem, _: SeasonalNaive(problem),
    "surgecast": _surgecast,
    "surgecast-retrained": lambda problem, folder: _surgecast(problem, folder, updates=4),
}
if find_spec("lightgbm"):  # of the extra `benchmarks`; it needs a system library
    MAKERS["LightGBM"] = _lightgbm


class _DistributionHead:
    """A network with a distribution head, trained and used inside the experiment's context."""

    def __init__(self, problem: Problem, folder: Path) -> None:
        self.peer = _surgecast(problem, folder)

    def forecast(self, place: int) -> OriginForecast:
        with counting(equal_weights=False):
            return self.peer.forecast(place)


def _neural(name: str) -> Callable[[Problem, Path], Peer]:
    from benchmarks.accuracy.peers.neural import Neural

    return lambda problem, _: Neural(problem, name, steps=2)


def _statistical(name: str) -> Callable[[Problem, Path], Peer]:
    return lambda problem, _: Statistical(problem, name, refit_every=2)


if find_spec("neuralforecast"):
    MAKERS |= {name: _neural(name) for name in ("NHITS", "DeepAR")}
if find_spec("statsforecast"):
    MAKERS |= {name: _statistical(name) for name in STATISTICAL}
if find_spec("scipy"):
    MAKERS["negative-binomial"] = _DistributionHead


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the peers' libraries raise many warnings
@pytest.mark.parametrize("name", MAKERS)
def test_the_future_changes_no_forecast(name: str, tmp_path: Path) -> None:
    made = []
    for later in (1.0, 50.0):
        peer = MAKERS[name](_problem(later=later), tmp_path / f"{later}")
        made.append([peer.forecast(place).units_SHQ for place in PLACES])

    assert made[0][0].shape == (4, 7, 9)
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0][0], made[0][1])


@pytest.mark.slow
def test_a_stored_network_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = _problem()
    first = _surgecast(problem, tmp_path, updates=4)
    whole = [first.forecast(place) for place in PLACES]
    monkeypatch.delattr("benchmarks.accuracy.ours.train")
    again = _surgecast(problem, tmp_path, updates=4).forecast(PLACES[1])

    np.testing.assert_allclose(again.units_SHQ, whole[1].units_SHQ, rtol=1e-5)


def test_a_forecast_is_stored_until_the_settings_change(tmp_path: Path) -> None:
    made = OriginForecast(np.ones((2, 3, 9), np.float32), 1.5, 0.25)
    ForecastStore(tmp_path / "m", {"updates": 1}).put(START_MS, made)
    kept = ForecastStore(tmp_path / "m", {"updates": 1})
    found = kept.get(START_MS)

    assert found is not None
    assert (found.fit_seconds, found.refresh_seconds) == (1.5, 0.25)
    np.testing.assert_array_equal(found.units_SHQ, made.units_SHQ)
    assert kept.get(START_MS + DAY_MS) is None
    assert ForecastStore(tmp_path / "m", {"updates": 2}).get(START_MS) is None


@pytest.mark.parametrize(("mean", "shape"), [(0.2, 0.05), (40.0, 0.5), (700.0, 900.0)])
def test_the_count_loss_is_that_of_a_distribution_with_this_mean(mean: float, shape: float) -> None:
    units = torch.arange(20_000)
    logs = (torch.log(torch.tensor(value)) for value in (mean, shape))

    chance = torch.exp(-count_loss(units, *logs))

    assert float(chance.sum()) == pytest.approx(1, abs=1e-5)
    assert float((chance * units).sum()) == pytest.approx(mean, rel=1e-4)
    assert float((chance * (units - mean) ** 2).sum()) == pytest.approx(
        mean + mean**2 / shape, rel=1e-3
    )
