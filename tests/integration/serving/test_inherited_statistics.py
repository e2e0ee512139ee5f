"""Carried statistics outlive the model that carried them, the store's history and the worker.

Axes: T = buckets, S = series, F = features, I = statistics that a model may inherit.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from redis import Redis

from model.config import ModelConfig
from model.durations import HOUR_MS
from model.inference.forecaster import NetworkForecaster
from model.inputs.carried_statistics import AGE
from model.inputs.statistics_identity import inherited_width
from model.networks.quantile_network import QuantileNetwork
from stream.serving.carried_states import SNAPSHOT_EVERY, StatefulModel
from stream.serving.model_server import ModelServer
from stream.serving.state_snapshots import Snapshots
from stream.state import keys
from stream.state.history import StoredHistory
from tests.support.model_cases import START_MS, real_hours

_SERIES = 9
VALUES_TSF = real_hours(days=21, series=_SERIES)
_NAMES = [f"s{slot}" for slot in range(_SERIES)]


class Shop:
    """A store that keeps the last `kept` closed hours, its snapshots, and workers on it."""

    def __init__(self, redis: Redis, folder: Path, *, kept: int = 240) -> None:
        self.redis = redis
        self.folder = folder
        self.kept = kept
        self.closed = 0
        self.fails_at: int | None = None
        self.snapshots = Snapshots(redis, str(folder))

    def close(self, buckets: int) -> None:
        """Close buckets up to this one."""
        self.closed = buckets
        first = max(0, buckets - self.kept)
        span: Any = {"first_bucket_ms": _at(first), "closed_through_ms": _at(buckets)}
        self.redis.hset(keys.of(0, "meta"), mapping=span)

    def history(
        self, tag: keys.Tag, from_ms: int | None, to_ms: int | None
    ) -> Iterator[StoredHistory]:
        first = max(0, self.closed - self.kept)
        if from_ms is not None:
            first = max(first, (from_ms - START_MS) // HOUR_MS)
        last = self.closed if to_ms is None else min(self.closed, (to_ms - START_MS) // HOUR_MS)
        for at in range(first, last, 17):
            stop = min(at + 17, last)
            if self.fails_at is not None and at >= self.fails_at:
                raise ConnectionError("gone")
            yield StoredHistory(_at(at), _at(stop), _NAMES, VALUES_TSF[at:stop], stop == last)

    def serve(self, model: NetworkForecaster, *, first: int, last: int, every: int = 5) -> None:
        """A worker that closes and serves buckets from `first` to `last`."""
        server = ModelServer(model, self.history, snapshots=self.snapshots)
        for closed in [*range(first, last, every), last]:
            self.close(closed)
            server.advance(0, _at(closed))
            for saving in self.snapshots._saving.values():
                saving.result()

    def caught_up(self, model: NetworkForecaster) -> NDArray[np.float32]:
        """Statistics [S, I] of a model new to the partition, before the newest closed bucket."""
        ready = StatefulModel(model).catch_up(0, None, self.history, snapshots=self.snapshots)
        assert ready is not None
        assert ready.carried.through_ms == _at(self.closed - 1)
        return _statistics(ready.carried.states, model)

    def pointers(self) -> list[Any]:
        return list(self.redis.hkeys(keys.of(0, "statistics")))


def _at(buckets: int) -> int:
    return START_MS + buckets * HOUR_MS


def _model(model_id: str, **changes: Any) -> NetworkForecaster:
    torch.manual_seed(1)
    settings = {"horizon": 4, "bucket_ms": HOUR_MS, "hidden": 8, "layers": 1, "rank": 4}
    return NetworkForecaster(QuantileNetwork(ModelConfig(**settings | changes)), model_id)


def _statistics(states: Any, model: NetworkForecaster) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = states.stats_SK[: states.size].numpy()
    return rows[:, : inherited_width(model.config)].copy()


def _never_swapped(model: NetworkForecaster, buckets: int) -> NDArray[np.float32]:
    """Statistics of a model that has carried every bucket."""
    states = model.new_states(_SERIES)
    model.warm_up(states, VALUES_TSF[:buckets], START_MS)
    return _statistics(states, model)


@pytest.fixture
def shop(redis_client: Redis, tmp_path: Path) -> Shop:
    return Shop(redis_client, tmp_path / "states")


@pytest.mark.parametrize("changes", [{}, {"hidden": 16, "prior": True}, {"architecture": "gru"}])
def test_a_promoted_model_has_the_statistics_of_the_one_before(
    shop: Shop, changes: dict[str, Any]
) -> None:
    """Exactly, although the store has half of the buckets that they are of."""
    shop.serve(_model("before"), first=2, last=480)
    promoted = _model("promoted", **changes)

    made_SI = shop.caught_up(promoted)

    np.testing.assert_array_equal(made_SI, _never_swapped(promoted, 479))
    assert made_SI[:, AGE].max() > shop.kept


def test_a_third_model_inherits_what_the_second_inherited(shop: Shop) -> None:
    """They are known to be of the whole life of the shop."""
    shop.kept = 120
    shop.serve(_model("first"), first=2, last=200)
    shop.serve(_model("second"), first=201, last=440)
    third = _model("third")

    np.testing.assert_array_equal(shop.caught_up(third), _never_swapped(third, 439))
    pointers = shop.redis.hvals(keys.of(0, "statistics"))
    assert {json.loads(text)["since_ms"] for text in pointers} == {_at(0)}


def test_a_worker_that_lost_the_states_still_has_the_statistics(shop: Shop) -> None:
    """As after a damaged file; the partition may move to another worker meanwhile."""
    model = _model("m")
    shop.serve(model, first=2, last=480)
    shop.redis.delete(keys.of(0, "kept"))
    shop.snapshots = Snapshots(shop.redis, str(shop.folder))

    np.testing.assert_array_equal(shop.caught_up(model), _never_swapped(model, 479))


def test_only_statistics_of_the_same_memory_are_inherited(shop: Shop) -> None:
    """The younger ones of the same memory, not the older ones of another one."""
    shop.kept = 300
    shop.serve(_model("before"), first=2, last=300)
    shop.serve(_model("shorter", memory_days=3.0), first=310, last=450)
    shop.close(460)
    promoted = _model("promoted", memory_days=3.0)

    age_S = shop.caught_up(promoted)[:, AGE]

    assert shop.kept < age_S.max() < _never_swapped(promoted, 459)[:, AGE].max()


def test_an_interrupted_warm_up_still_inherits(shop: Shop) -> None:
    """The store fails between the start and the time of the statistics."""
    shop.serve(_model("before"), first=2, last=480)
    promoted = _model("promoted")
    model = StatefulModel(promoted)
    shop.fails_at = 290
    with pytest.raises(ConnectionError):
        model.catch_up(0, None, shop.history, snapshots=shop.snapshots)
    shop.fails_at = None

    ready = model.catch_up(0, None, shop.history, snapshots=shop.snapshots)

    assert ready is not None
    made_SI = _statistics(ready.carried.states, promoted)
    np.testing.assert_array_equal(made_SI, _never_swapped(promoted, 479))


def test_statistics_that_no_stored_bucket_follows_are_not_inherited(shop: Shop) -> None:
    """Buckets are missing between the two: the statistics would be wrong for ever."""
    shop.serve(_model("before"), first=100, last=200)
    shop.close(480)

    assert shop.caught_up(_model("promoted"))[:, AGE].max() < shop.kept


def test_damaged_statistics_cost_no_more_than_before(shop: Shop) -> None:
    shop.serve(_model("before"), first=2, last=480)
    for file in shop.folder.glob("statistics-*"):
        file.write_bytes(file.read_bytes()[:-9])

    assert 0 < shop.caught_up(_model("promoted"))[:, AGE].max() < shop.kept


def test_a_history_that_is_whole_is_read_from_its_start(shop: Shop) -> None:
    """Nothing is older than the store: zeros at its start are exact."""
    shop.kept = 1_000
    shop.serve(_model("before"), first=100, last=300)
    promoted = _model("promoted")
    ready = StatefulModel(promoted).catch_up(0, None, shop.history, snapshots=shop.snapshots)
    assert ready is not None

    expected = promoted.new_states(_SERIES)
    promoted.warm_up(expected, VALUES_TSF[:299], START_MS)
    for made, right in zip(ready.carried.states.state, expected.state, strict=True):
        np.testing.assert_array_equal(made[:_SERIES], right[:_SERIES])


def test_few_files_are_kept_and_half_of_the_store_always_follows_one(shop: Shop) -> None:
    """At every time, however long the shop has lived."""
    shop.kept = 5 * SNAPSHOT_EVERY
    model = _model("m")
    server = ModelServer(model, shop.history, snapshots=shop.snapshots)
    for closed in range(2, 500):
        shop.close(closed)
        server.advance(0, _at(closed))
        for saving in shop.snapshots._saving.values():
            saving.result()
        first = closed - shop.kept
        if first <= 0:
            continue
        found = shop.snapshots.statistics(
            0, model.config, from_ms=_at(first), through_ms=_at(closed)
        )
        assert found is not None
        assert found.since_ms == _at(0)
        follow = closed - (found.through_ms - START_MS) // HOUR_MS
        assert follow >= shop.kept / 2 - SNAPSHOT_EVERY
        assert len(shop.pointers()) <= 4
        assert len(list(shop.folder.glob("statistics-*"))) == len(shop.pointers())
