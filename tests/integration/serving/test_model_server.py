"""The model that serves is replaced between two closes, by one that has proven itself, or stays.

On a real store with a seeded shop in it; models are small networks with random weights, whose
forecasts are held against fixed ones where they must be sane.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from redis import Redis

from model.baselines.exponential_smoothing import SmoothingForecaster
from model.contract import QuantileForecast
from model.durations import HOUR_MS
from model.inference.forecaster import NetworkForecaster
from stream.errors import ServiceUnavailable
from stream.registry.model_registry import Registry
from stream.serving.champion_watch import ChampionWatch
from stream.serving.model_server import ModelServer
from stream.serving.state_snapshots import Snapshots
from stream.settings import ModelSettings
from stream.state.forecasts import read_forecast
from stream.state.history import StoredHistory, load_history
from stream.state.keys import ROLLUPS, Tag
from tests.support.model_cases import random_model
from tests.support.seeding import QUANTILES, Shop, stocked

TAGS: list[Tag] = [0, 1, ROLLUPS]
FALLBACK = "exponential-smoothing"


class Deployment:
    """A shop, a registry, and a worker's serving side without its event loop."""

    def __init__(self, redis: Redis, folder: Path) -> None:
        self.shop: Shop = stocked(redis, days=3, n_series=12, partitions=2, horizon=6)
        self.registry = Registry(str(folder / "registry"))
        self.folder = folder / "registry"
        self.now_s = 0.0
        self.reads = 0
        self.between: Callable[[], None] = lambda: None
        self.redis = redis
        self.served: dict[Tag, list[QuantileForecast]] = {tag: [] for tag in TAGS}
        self.start()

    def start(self, **limits: Any) -> None:
        """A new worker; `limits` are those of Serving."""
        fallback = SmoothingForecaster(horizon=6, bucket_ms=HOUR_MS, quantiles=QUANTILES)
        self.serving = ModelServer(fallback, self.history, clock_s=lambda: self.now_s, **limits)
        self.watch = ChampionWatch(
            self.registry,
            self.serving,
            ModelSettings(horizon=6, quantiles=QUANTILES, device="cpu"),
            bucket_ms=HOUR_MS,
            tags=lambda: TAGS,
            served=lambda tag: read_forecast(self.redis, tag),
            clock_s=lambda: self.now_s,
        )

    def history(self, tag: Tag, from_ms: int | None, to_ms: int | None) -> Iterator[StoredHistory]:
        """The stored buckets, a few at a time."""
        self.reads += 1
        whole = load_history(self.redis, tag, bucket_ms=HOUR_MS, from_ms=from_ms, to_ms=to_ms)
        if whole is None:
            return
        starts = range(whole.start_ms, whole.end_ms, HOUR_MS)
        for at in range(0, len(starts), 20):
            part = starts[at : at + 20]
            self.between()
            last = part.stop == whole.end_ms
            values_TSF = whole.values_TSF[at : at + 20]
            yield StoredHistory(part.start, part.stop, whole.series, values_TSF, last)

    def publish(self, seed: int, **more: Any) -> str:
        """A model with random weights in the registry."""
        return self.registry.publish(random_model(seed, span_end_ms=self.shop.start_ms), **more)

    def turn(self) -> bool:
        """What the output loop does at each turn: take over, then serve all partitions."""
        swapped = self.serving.swap_in()
        for tag in TAGS:
            forecast = self.serving.advance(tag, self.shop.closed_through_ms)
            if forecast is not None:
                self.served[tag].append(forecast)
        return swapped

    def close(self) -> None:
        """One more bucket closes and is served."""
        self.shop.close()
        self.turn()

    def models_served(self) -> list[list[str]]:
        """Model ids of all forecasts, by partition."""
        return [[forecast.model_id for forecast in made] for made in self.served.values()]


@pytest.fixture
def worker(redis_client: Redis, tmp_path: Path) -> Deployment:
    """A deployment that has served one close by the fallback."""
    deployment = Deployment(redis_client, tmp_path)
    deployment.turn()
    return deployment


def test_without_a_champion_the_fallback_serves(worker: Deployment) -> None:
    worker.watch.look()
    worker.close()

    assert worker.models_served() == [[FALLBACK, FALLBACK]] * 3
    assert worker.watch.problem == ""


def test_each_series_changes_its_model_once_and_between_two_closes(worker: Deployment) -> None:
    """Prepared aside, nothing changes until the turn that takes over; then all partitions do."""
    model_id = worker.publish(1, promote=True)
    worker.watch.look()
    assert worker.serving.model_id == FALLBACK

    assert worker.turn()
    worker.close()
    assert worker.models_served() == [[FALLBACK, model_id, model_id]] * 3


def test_a_model_that_took_over_forecasts_as_if_it_had_always_served(worker: Deployment) -> None:
    """States warmed up in portions aside equal those of one that read every bucket."""
    worker.publish(1, promote=True)
    worker.watch.look()
    worker.turn()
    worker.close()

    network = worker.registry.network(worker.serving.model_id)
    for tag in TAGS:
        history = load_history(worker.redis, tag, bucket_ms=HOUR_MS)
        assert history is not None
        forecaster = NetworkForecaster(network, "anew")
        states = forecaster.new_states(len(history.series))
        forecaster.warm_up(states, history.values_TSF[:-1], history.start_ms)
        anew = forecaster.step(states, history.values_TSF[-1], history.end_ms - HOUR_MS)
        np.testing.assert_allclose(worker.served[tag][-1].units_SHQ, anew.units_SHQ, atol=1e-4)


def test_a_close_that_comes_before_the_take_over_is_caught_up(worker: Deployment) -> None:
    model_id = worker.publish(1, promote=True)
    worker.watch.look()
    worker.shop.close()
    worker.turn()

    assert worker.models_served() == [[FALLBACK, model_id]] * 3
    assert worker.served[0][-1].origin_ms == worker.shop.closed_through_ms


def test_a_rollback_serves_at_once_with_the_states_kept(
    worker: Deployment, monkeypatch: pytest.MonkeyPatch
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


def damaged(worker: Deployment) -> tuple[str, str]:
    """A champion whose weights are cut off behind the registry's back."""
    model_id = worker.publish(1, promote=True)
    weights = worker.folder / "models" / model_id / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    return model_id, "bytes"


def foreign(worker: Deployment) -> tuple[str, str]:
    """A champion of other features."""
    model_id = worker.publish(1, promote=True)
    manifest = worker.folder / "models" / model_id / "manifest.json"
    right = worker.registry.manifest(model_id)
    manifest.write_bytes(replace(right, feature_hash="0" * 16).to_json())
    return model_id, "expects features 0000000000000000"


def of_other_buckets(worker: Deployment) -> tuple[str, str]:
    """A champion for days."""
    span_ms = worker.shop.start_ms
    model = random_model(1, span_end_ms=span_ms, bucket_ms=86_400_000)
    return worker.registry.publish(model, promote=True), "its buckets are 86400000 ms wide"


def wild(worker: Deployment) -> tuple[str, str]:
    """A champion that forecasts a thousand times what is sold."""
    made = random_model(1, span_end_ms=worker.shop.start_ms)
    with torch.no_grad():
        made.network.heads.write.bias.add_(50.0)
    return worker.registry.publish(made, promote=True), "it forecasts"


def deleted(worker: Deployment) -> tuple[str, str]:
    """A champion whose files are gone."""
    model_id = worker.publish(1, promote=True)
    (worker.folder / "models" / model_id / "manifest.json").unlink()
    return model_id, "holds no model"


@pytest.mark.parametrize("spoil", [damaged, foreign, of_other_buckets, wild, deleted])
def test_a_champion_unfit_to_serve_is_refused_and_the_one_before_serves_on(
    worker: Deployment, spoil: Callable[[Deployment], tuple[str, str]]
) -> None:
    """The reason is shown, kept in the audit, said once, and it is tried again later."""
    good = worker.publish(7, promote=True)
    worker.watch.look()
    worker.close()
    bad, reason = spoil(worker)
    for _ in range(3):
        worker.watch.look()
        worker.now_s += 1_000
    worker.close()

    assert worker.serving.model_id == good
    assert bad in worker.watch.problem
    assert reason in worker.watch.problem
    refusals = [line for line in worker.registry.audit() if line["action"] == "refuse"]
    assert [(line["model_id"], reason in line["note"]) for line in refusals] == [(bad, True)]

    worker.registry.rollback()
    worker.watch.look()
    worker.close()
    assert (worker.serving.model_id, worker.watch.problem) == (good, "")


def test_a_first_champion_may_forecast_less_than_the_fallback(worker: Deployment) -> None:
    """A shop closed on Saturdays: the network knows it, exponential smoothing does not."""
    plenty = np.full((12, 6, len(QUANTILES)), 50.0, np.float32)
    worker.watch._served = lambda tag: replace(
        worker.served[tag][-1], units_SHQ=plenty, cumulative_SHQ=plenty.cumsum(axis=1)
    )
    made = random_model(1, span_end_ms=worker.shop.start_ms)
    made.network.heads.write.bias.data.sub_(50.0)
    worker.registry.publish(made, promote=True)
    worker.watch.look()
    worker.close()
    assert (worker.serving.on_fallback, worker.watch.problem) == (False, "")


def test_a_registry_that_cannot_be_read_keeps_the_champion(worker: Deployment) -> None:
    good = worker.publish(7, promote=True)
    worker.watch.look()
    worker.close()
    pointer = worker.folder / "champion.json"
    text = pointer.read_text()
    pointer.write_text("{")
    worker.watch.look()
    worker.close()

    assert worker.serving.model_id == good
    assert "champion.json" in worker.watch.problem
    pointer.write_text(text)
    worker.watch.look()
    assert worker.watch.problem == ""


def test_a_store_that_is_away_only_delays_the_champion(worker: Deployment) -> None:
    model_id = worker.publish(1, promote=True)

    def away() -> None:
        raise ServiceUnavailable("the store did not answer")

    worker.between = away
    worker.watch.look()
    worker.between = lambda: None
    assert worker.watch.problem == ""
    worker.watch.look()
    worker.turn()

    assert worker.serving.model_id == model_id


def test_a_model_overtaken_while_it_warms_up_never_serves(worker: Deployment) -> None:
    """A rollback that arrives during a long warm-up is heard at once."""
    first, second = worker.publish(1, promote=True), worker.publish(2)
    worker.watch.look()
    worker.turn()
    worker.registry.promote(second)

    def told() -> None:
        if worker.registry.champion() == second:
            worker.registry.rollback()
            worker.watch.look_now()

    worker.between = told
    worker.watch.look()
    worker.close()

    assert worker.serving.staged_id is None
    assert worker.serving.model_id == first
    assert [set(made) for made in worker.models_served()] == [{FALLBACK, first}] * 3


def test_a_partition_that_moves_away_meanwhile_leaves_no_states(worker: Deployment) -> None:
    worker.publish(1, promote=True)
    looked = worker.serving.stage

    def moved(candidate: Any) -> None:
        worker.serving.forget(0)
        looked(candidate)

    worker.serving.stage = moved  # type: ignore[method-assign]  # between two steps
    worker.watch.look()
    worker.serving.swap_in()

    assert 0 not in worker.serving._state.active.carried
    assert {1, ROLLUPS} <= worker.serving._state.active.carried.keys()


def test_a_preparation_rests_beside_a_network_and_hurries_beside_the_fallback(
    worker: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ingest shares the interpreter with it; but nobody wants to wait for the first model."""
    rests: list[float] = []
    monkeypatch.setattr("stream.serving.champion_watch.time.sleep", rests.append)
    for seed in (1, 2):
        worker.publish(seed, promote=True)
        worker.watch.look()
        worker.turn()
        assert (sum(rests) > 0) == (seed == 2)


def test_a_partition_that_moves_away_while_it_is_stepped_breaks_nothing(
    worker: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop drops its states while the serving thread reads them on, and keeps them."""
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


# -- the fallback --------------------------------------------------------------------------------


@pytest.fixture
def serving_champion(worker: Deployment) -> Deployment:
    """A deployment whose champion has served a close."""
    worker.publish(1, promote=True)
    worker.watch.look()
    worker.close()
    return worker


def test_a_device_that_is_lost_brings_the_fallback_until_the_champion_works_again(
    serving_champion: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = serving_champion
    champion = worker.serving.model_id

    def lost(*_: Any, **__: Any) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

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
    serving_champion: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its first close: the model before goes on, not the fallback."""
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
    worker: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three slow steps in a row, so that a machine's hiccup changes nothing."""
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


def test_a_model_that_is_too_old_gives_way_until_a_younger_one_comes(worker: Deployment) -> None:
    """Age is event time, so a replay judges alike."""
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


async def test_a_worker_that_leaves_breaks_a_warm_up_off_and_refuses_nobody(
    worker: Deployment,
) -> None:
    """What a warm-up meets while the process ends is no fault of the model's."""
    worker.publish(1, promote=True)
    began = asyncio.Event()
    loop = asyncio.get_running_loop()
    left = threading.Event()

    def leaves() -> None:
        loop.call_soon_threadsafe(began.set)
        left.wait(30)

    worker.between = leaves
    running = asyncio.create_task(worker.watch.run(every_s=60))
    await began.wait()
    running.cancel()
    await asyncio.wait([running])
    left.set()
    worker.watch._thread.shutdown()

    assert worker.serving.staged_id is None
    assert [line["action"] for line in worker.registry.audit()] == ["publish", "promote"]
