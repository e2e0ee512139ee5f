"""The way of a champion into service: warmed up, checked, and refused when it is unfit."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from stream.errors import ServiceUnavailable
from stream.state.keys import ROLLUPS
from tests.support.model_cases import random_model
from tests.support.seeding import QUANTILES
from tests.support.served_shop import FALLBACK, ServedShop


def damaged(worker: ServedShop) -> tuple[str, str]:
    """A champion with truncated weights."""
    model_id = worker.publish(1, promote=True)
    weights = worker.folder / "models" / model_id / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    return model_id, "bytes"


def foreign(worker: ServedShop) -> tuple[str, str]:
    """A champion of other features."""
    model_id = worker.publish(1, promote=True)
    manifest = worker.folder / "models" / model_id / "manifest.json"
    right = worker.registry.manifest(model_id)
    manifest.write_bytes(replace(right, feature_hash="0" * 16).to_json())
    return model_id, "expects features 0000000000000000"


def of_other_buckets(worker: ServedShop) -> tuple[str, str]:
    """A champion of daily buckets."""
    span_ms = worker.shop.start_ms
    model = random_model(1, span_end_ms=span_ms, bucket_ms=86_400_000)
    return worker.registry.publish(model, promote=True), "its buckets are 86400000 ms wide"


def wild(worker: ServedShop) -> tuple[str, str]:
    """A champion that forecasts a thousand times the sales."""
    made = random_model(1, span_end_ms=worker.shop.start_ms)
    with torch.no_grad():
        made.network.heads.write.bias.add_(50.0)
    return worker.registry.publish(made, promote=True), "it forecasts"


def deleted(worker: ServedShop) -> tuple[str, str]:
    """A champion whose files are gone."""
    model_id = worker.publish(1, promote=True)
    (worker.folder / "models" / model_id / "manifest.json").unlink()
    return model_id, "holds no model"


@pytest.mark.parametrize("spoil", [damaged, foreign, of_other_buckets, wild, deleted])
def test_an_unfit_champion_is_refused_and_the_one_before_still_serves(
    worker: ServedShop, spoil: Callable[[ServedShop], tuple[str, str]]
) -> None:
    """The reason is shown, audited and logged once; it is tried again later."""
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


def test_a_first_champion_may_forecast_less_than_the_fallback(worker: ServedShop) -> None:
    """A shop closed on Saturdays: the network learns it, exponential smoothing does not."""
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


def test_a_registry_that_cannot_be_read_keeps_the_champion(worker: ServedShop) -> None:
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


def test_a_store_that_is_away_only_delays_the_champion(worker: ServedShop) -> None:
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


def test_a_model_superseded_during_its_warm_up_never_serves(worker: ServedShop) -> None:
    """A rollback during a long warm-up takes effect at once."""
    first, second = worker.publish(1, promote=True), worker.publish(2)
    worker.watch.look()
    worker.turn()
    worker.registry.promote(second)

    def notified() -> None:
        if worker.registry.champion() == second:
            worker.registry.rollback()
            worker.watch.look_now()

    worker.between = notified
    worker.watch.look()
    worker.close()

    assert worker.serving.staged_id is None
    assert worker.serving.model_id == first
    assert [set(made) for made in worker.models_served()] == [{FALLBACK, first}] * 3


def test_a_partition_that_moves_away_during_a_warm_up_leaves_no_states(worker: ServedShop) -> None:
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


def test_a_warm_up_rests_while_a_network_serves_and_hurries_while_the_fallback_does(
    worker: ServedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shares the interpreter with the ingest; the first model must not wait."""
    rests: list[float] = []
    monkeypatch.setattr("stream.serving.champion_watch.time.sleep", rests.append)
    for seed in (1, 2):
        worker.publish(seed, promote=True)
        worker.watch.look()
        worker.turn()
        assert (sum(rests) > 0) == (seed == 2)


async def test_a_worker_that_stops_cancels_a_warm_up_and_refuses_no_model(
    worker: ServedShop,
) -> None:
    """An error while the process ends is no fault of the model."""
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
