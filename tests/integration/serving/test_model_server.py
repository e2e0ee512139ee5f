"""The serving model: swaps between two closes, rollbacks, and the fallback when it fails."""

from typing import Any

import numpy as np
import pytest
import torch

from model.baselines.exponential_smoothing import SmoothingForecaster
from model.contract import QuantileForecast
from model.durations import HOUR_MS
from model.inference.forecaster import NetworkForecaster
from stream.serving.state_snapshots import Snapshots
from stream.state.history import load_history
from stream.state.keys import ROLLUPS
from tests.support.model_cases import random_model
from tests.support.served_shop import FALLBACK, TAGS, ServedShop


def test_without_a_champion_the_fallback_serves(worker: ServedShop) -> None:
    worker.watch.look()
    worker.close()

    assert worker.models_served() == [[FALLBACK, FALLBACK]] * 3
    assert worker.watch.problem == ""


def test_a_step_breaks_off_while_the_worker_stops(worker: ServedShop) -> None:
    """Its successor takes it; the model is not at fault."""
    model_id = worker.publish(1, promote=True)
    worker.watch.look()
    worker.turn()
    worker.serving.leave()
    worker.close()

    assert worker.serving.model_id == model_id
    assert worker.serving.problem == ""
    assert worker.serving.advance(TAGS[0], 10**15) is None


def test_each_series_changes_its_model_once_and_between_two_closes(worker: ServedShop) -> None:
    """A warm-up changes nothing; the swap changes all partitions at once."""
    model_id = worker.publish(1, promote=True)
    worker.watch.look()
    assert worker.serving.model_id == FALLBACK

    assert worker.turn()
    worker.close()
    assert worker.models_served() == [[FALLBACK, model_id, model_id]] * 3


def test_a_swapped_in_model_forecasts_as_if_it_had_always_served(worker: ServedShop) -> None:
    """States warmed up in portions equal those of a model that read every bucket."""
    worker.publish(1, promote=True)
    worker.watch.look()
    worker.turn()
    worker.close()

    network = worker.registry.network(worker.serving.model_id)
    for tag in TAGS:
        history = load_history(worker.redis, tag, bucket_ms=HOUR_MS)
        assert history is not None
        forecaster = NetworkForecaster(network, "again")
        states = forecaster.new_states(len(history.series))
        forecaster.warm_up(states, history.values_TSF[:-1], history.start_ms)
        again = forecaster.step(states, history.values_TSF[-1], history.end_ms - HOUR_MS)
        np.testing.assert_allclose(worker.served[tag][-1].units_SHQ, again.units_SHQ, atol=1e-4)


def test_a_close_before_the_swap_is_caught_up(worker: ServedShop) -> None:
    model_id = worker.publish(1, promote=True)
    worker.watch.look()
    worker.shop.close()
    worker.turn()

    assert worker.models_served() == [[FALLBACK, model_id]] * 3
    assert worker.served[0][-1].origin_ms == worker.shop.closed_through_ms


def test_a_rollback_serves_at_once_with_the_states_in_memory(
    worker: ServedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model before is still in memory: nothing is loaded."""
    first, second = worker.publish(1, promote=True), worker.publish(2)
    worker.watch.look()
    worker.close()
    worker.registry.promote(second)
    worker.watch.look()
    worker.close()
    assert worker.serving.model_id == second

    worker.registry.rollback(note="too high")
    monkeypatch.setattr(worker.registry, "load", None)
    worker.watch.look()
    worker.turn()

    assert worker.serving.model_id == first
    assert [made[-1].model_id for made in worker.served.values()] == [first] * 3
    assert worker.served[0][-1].origin_ms == worker.shop.closed_through_ms


def test_a_partition_that_moves_away_while_it_is_stepped_breaks_nothing(
    worker: ServedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop drops its states while the serving thread steps them."""
    worker.start(snapshots=Snapshots(worker.redis, str(worker.folder / "states")))
    stepped = SmoothingForecaster.warm_up

    def moved(*arguments: Any) -> None:
        stepped(*arguments)
        worker.serving.forget(0)

    with monkeypatch.context() as patched:
        patched.setattr(SmoothingForecaster, "warm_up", moved)
        assert worker.serving.advance(0, worker.shop.closed_through_ms) is not None
    worker.close()
    assert worker.served[0][-1].origin_ms == worker.shop.closed_through_ms


@pytest.fixture
def serving_champion(worker: ServedShop) -> ServedShop:
    """A deployment whose champion has served a close."""
    worker.publish(1, promote=True)
    worker.watch.look()
    worker.close()
    return worker


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        torch.OutOfMemoryError("CUDA error: out of memory. Tried to allocate 2.00 GiB"),
        MemoryError("no CUDA error, but no memory either"),
    ],
    ids=["lost", "full", "machine full"],
)
def test_a_device_that_is_lost_brings_the_fallback_until_the_champion_works_again(
    serving_champion: ServedShop, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    worker = serving_champion
    champion = worker.serving.model_id

    def lost(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(NetworkForecaster, "step", lost)
        worker.close()
        assert [made[-1].model_id for made in worker.served.values()] == [FALLBACK] * 3
        assert "CUDA error" in worker.watch.problem
        worker.watch.look()  # tried at once, and it fails again
        worker.close()
        assert worker.serving.model_id == FALLBACK
    worker.watch.look()
    assert worker.serving.staged_id is None, "not before some time has gone by"
    worker.now_s += 1_000
    worker.watch.look()
    worker.close()

    assert worker.serving.model_id == champion
    assert worker.watch.problem == ""
    assert worker.served[0][-1].origin_ms == worker.shop.closed_through_ms


def test_a_new_model_that_fails_gives_way_to_the_one_before(
    serving_champion: ServedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its first close: the model before serves, not the fallback."""
    worker = serving_champion
    before = worker.serving.model_id
    second = worker.publish(2, promote=True)
    worker.watch.look()
    step = NetworkForecaster.step

    def fails(self: NetworkForecaster, *arguments: Any) -> QuantileForecast:
        if self.model_id == second:
            raise RuntimeError("no memory")
        return step(self, *arguments)

    monkeypatch.setattr(NetworkForecaster, "step", fails)
    worker.close()

    assert worker.serving.model_id == before
    assert [made[-1].model_id for made in worker.served.values()] == [before] * 3
    assert f"{second} failed: no memory" in worker.watch.problem


def test_a_model_that_is_too_slow_gives_way_to_the_fallback(
    worker: ServedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three slow steps in a row: a single hiccup changes nothing."""
    worker.start(max_step_ms=500)
    worker.turn()
    champion = worker.publish(1, promote=True)
    worker.watch.look()
    worker.turn()
    step = NetworkForecaster.step

    def slow(self: NetworkForecaster, *arguments: Any) -> QuantileForecast:
        worker.now_s += 0.6
        return step(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(NetworkForecaster, "step", slow)
        worker.shop.close()
        for tag in TAGS[:2]:
            worker.serving.advance(tag, worker.shop.closed_through_ms)
        assert worker.serving.model_id == champion
        worker.serving.advance(ROLLUPS, worker.shop.closed_through_ms)
    assert worker.serving.model_id == FALLBACK
    assert "too slow" in worker.watch.problem

    worker.now_s += 1_000
    worker.watch.look()
    worker.close()
    assert worker.serving.model_id == champion


def test_a_model_that_is_too_old_gives_way_until_a_younger_one_comes(worker: ServedShop) -> None:
    """Age is event time, so a replay decides alike."""
    age_ms = worker.shop.closed_through_ms - worker.shop.start_ms
    worker.start(max_age_ms=age_ms + HOUR_MS)
    worker.turn()
    worker.publish(1, promote=True)
    worker.watch.look()
    worker.close()
    assert worker.serving.model_id != FALLBACK
    worker.close()
    worker.close()
    assert worker.serving.model_id == FALLBACK
    assert "too old" in worker.watch.problem
    worker.now_s += 1_000
    worker.watch.look()
    assert worker.serving.staged_id is None

    young = random_model(3, span_end_ms=worker.shop.closed_through_ms)
    model_id = worker.registry.publish(young, promote=True)
    worker.watch.look()
    worker.close()
    assert worker.serving.model_id == model_id
