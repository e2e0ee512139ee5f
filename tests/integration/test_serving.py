"""States outlive a worker: a restart continues from a snapshot, or from the history.

Axes: T = buckets, S = series, F = features.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from redis import Redis

from model.config import Architecture, ModelConfig
from model.contract import QuantileForecast
from model.durations import HOUR_MS
from model.inference.forecaster import NetworkForecaster
from model.networks.quantile_network import QuantileNetwork
from stream.serving.carried_states import SNAPSHOT_EVERY
from stream.serving.model_server import ModelServer
from stream.serving.state_snapshots import Snapshots
from stream.state import keys
from stream.state.history import StoredHistory
from tests.support.model_cases import START_MS, awkward

_NAMES, VALUES_TSF = awkward(120)


class Store:
    """Stored history in portions of seven buckets; `read` counts the buckets read."""

    def __init__(self) -> None:
        self.kept_from = 0
        self.read = 0

    def history(
        self, tag: keys.Tag, from_ms: int | None, to_ms: int | None
    ) -> Iterator[StoredHistory]:
        first = self.kept_from if from_ms is None else (from_ms - START_MS) // HOUR_MS
        last = len(VALUES_TSF) if to_ms is None else (to_ms - START_MS) // HOUR_MS
        first = max(first, self.kept_from)
        for at in range(first, last, 7):
            stop = min(at + 7, last)
            self.read += stop - at
            yield StoredHistory(
                START_MS + at * HOUR_MS, START_MS + stop * HOUR_MS,
                _NAMES, VALUES_TSF[at:stop], stop == last,
            )  # fmt: skip


def forecaster(model_id: str = "m", architecture: Architecture = "lstm") -> NetworkForecaster:
    torch.manual_seed(1)
    config = ModelConfig(horizon=4, bucket_ms=HOUR_MS, hidden=8, architecture=architecture)
    return NetworkForecaster(QuantileNetwork(config), model_id)


def at(buckets: int) -> int:
    return START_MS + buckets * HOUR_MS


def advance(serving: ModelServer, buckets: int) -> QuantileForecast:
    forecast = serving.advance(0, at(buckets))
    assert forecast is not None
    return forecast


def same(a: QuantileForecast, b: QuantileForecast) -> bool:
    return bool(
        a.origin_ms == b.origin_ms
        and (a.units_SHQ == b.units_SHQ).all()
        and (a.cumulative_SHQ == b.cumulative_SHQ).all()
    )


def whole() -> ModelServer:
    """A worker that has read the whole history."""
    return ModelServer(forecaster(), Store().history)


def kept_after(
    redis: Redis, folder: Path, buckets: int, *, architecture: Architecture = "lstm"
) -> None:
    """A worker that served through `buckets` and ended."""
    snapshots = Snapshots(redis, str(folder))
    serving = ModelServer(
        forecaster(architecture=architecture), Store().history, snapshots=snapshots,
    )  # fmt: skip
    advance(serving, buckets)
    snapshots.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "registry" / "states"


@pytest.mark.parametrize("architecture", ["lstm", "gru"])
def test_a_restart_continues_bit_for_bit(
    redis_client: Redis, folder: Path, architecture: Architecture
) -> None:
    """It reads only the buckets closed since the snapshot and makes the same forecast."""
    kept_after(redis_client, folder, 90, architecture=architecture)
    unbroken = ModelServer(forecaster(architecture=architecture), Store().history)
    before = advance(unbroken, 90)
    store = Store()
    serving = ModelServer(
        forecaster(architecture=architecture), store.history,
        snapshots=Snapshots(redis_client, str(folder)),
    )  # fmt: skip

    assert same(advance(serving, 90), before)
    assert store.read == 1
    assert same(advance(serving, 97), advance(unbroken, 97))


def test_snapshots_are_made_at_intervals(redis_client: Redis, folder: Path) -> None:
    """Not at every close; each partition keeps one file."""
    snapshots = Snapshots(redis_client, str(folder))
    serving = ModelServer(forecaster(), Store().history, snapshots=snapshots)
    through = []
    for buckets in range(2, 3 * SNAPSHOT_EVERY):
        advance(serving, buckets)
        while not all(saving.done() for saving in snapshots._saving.values()):
            pass
        text = redis_client.hget(keys.of(0, "kept"), "m")
        assert isinstance(text, bytes)
        through.append(json.loads(text)["through_ms"])

    assert sorted(set(through)) == [at(1), at(1 + SNAPSHOT_EVERY), at(1 + 2 * SNAPSHOT_EVERY)]
    assert len(list(folder.glob("0-*"))) == 1


@pytest.mark.parametrize("fault", ["other model", "store emptied", "file torn", "file gone"])
def test_an_unusable_snapshot_costs_a_warm_up(
    redis_client: Redis, folder: Path, fault: str
) -> None:
    """One of another model or store, a damaged or a lost one: the history is read instead."""
    kept_after(redis_client, folder, 90)
    (file,) = folder.glob("0-*")
    if fault == "store emptied":
        redis_client.flushdb()
    elif fault == "file torn":
        file.write_bytes(file.read_bytes()[:-50])
    elif fault == "file gone":
        file.unlink()
    store = Store()
    model_id = "another" if fault == "other model" else "m"
    serving = ModelServer(
        forecaster(model_id), store.history,
        snapshots=Snapshots(redis_client, str(folder)),
    )  # fmt: skip

    assert same(advance(serving, 91), advance(whole(), 91))
    assert store.read == 91


def test_snapshots_of_the_three_newest_models_are_kept(redis_client: Redis, folder: Path) -> None:
    """Each model continues from its own snapshot."""
    for buckets, model_id in enumerate(("a", "b", "c", "d", "b"), start=90):
        snapshots = Snapshots(redis_client, str(folder))
        advance(ModelServer(forecaster(model_id), Store().history, snapshots=snapshots), buckets)
        snapshots.close()

    assert set(redis_client.hkeys(keys.of(0, "kept"))) == {b"b", b"c", b"d"}
    assert len(list(folder.glob("0-*"))) == 3
    store = Store()
    snapshots = Snapshots(redis_client, str(folder))
    serving = ModelServer(forecaster("c"), store.history, snapshots=snapshots)
    assert same(advance(serving, 95), advance(whole(), 95))
    assert store.read == 4


def test_snapshots_newer_or_older_than_the_store_are_ignored(
    redis_client: Redis, folder: Path
) -> None:
    """The store lost its newest buckets, or has deleted those after the snapshot."""
    kept_after(redis_client, folder, 90)
    snapshots = Snapshots(redis_client, str(folder))
    back = ModelServer(forecaster(), Store().history, snapshots=snapshots)
    assert same(advance(back, 60), advance(whole(), 60))

    kept_after(redis_client, folder, 60)
    late = Store()
    late.kept_from = 80
    serving = ModelServer(forecaster(), late.history, snapshots=snapshots)
    fresh = Store()
    fresh.kept_from = 80
    expected = ModelServer(forecaster("without states"), fresh.history, snapshots=snapshots)
    assert same(advance(serving, 100), advance(expected, 100))


def test_an_interrupted_warm_up_continues(redis_client: Redis, folder: Path) -> None:
    """The store fails between two portions: the next attempt continues after the last one."""
    store = Store()
    broken = True

    def history(tag: keys.Tag, from_ms: int | None, to_ms: int | None) -> Iterator[StoredHistory]:
        for number, portion in enumerate(store.history(tag, from_ms, to_ms)):
            if broken and number == 3:
                raise ConnectionError("gone")
            yield portion

    serving = ModelServer(forecaster(), history)
    with pytest.raises(ConnectionError):
        serving.advance(0, at(100))
    broken = False

    assert same(advance(serving, 100), advance(whole(), 100))
    assert store.read <= 100 + 2 * 7


def test_a_stopping_worker_makes_no_snapshot(redis_client: Redis, folder: Path) -> None:
    """The forecasts that it still publishes need none."""
    snapshots = Snapshots(redis_client, str(folder))
    serving = ModelServer(forecaster(), Store().history, snapshots=snapshots)
    snapshots.close()

    assert same(advance(serving, 90), advance(whole(), 90))
    assert not folder.exists()
