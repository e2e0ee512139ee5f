"""States handed over to workers know more than the store: kept statistics, or the archive's.

Axes: T = buckets, S = series, F = features, I = statistics that a model may inherit.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from redis import Redis

from model.config import ModelConfig
from model.durations import DAY_MS, HOUR_MS
from model.inference.forecaster import NetworkForecaster
from model.inference.network_states import NetworkStates
from model.inputs.carried_statistics import AGE
from model.inputs.statistics_identity import inherited_width, statistics_identity
from model.networks.quantile_network import QuantileNetwork
from model.pretraining.walks import at_width
from stream.jobs.archive.export import archive
from stream.jobs.backfill import claim
from stream.jobs.training.handover import hand_over_states
from stream.jobs.training.stored_history import stored_history
from stream.jobs.training.train import train_config
from stream.serving.state_snapshots import Snapshots
from stream.settings import Settings
from stream.state import keys
from stream.state.history import load_history
from tests.support.seeding import Shop, stocked

Floats = NDArray[np.float32]
TAGS: list[keys.Tag] = [0, 1, keys.ROLLUPS]
DAYS, KEPT_DAYS = 10, 4


class Deployment:
    """A shop of ten days whose store keeps the last four, and the folder of its states."""

    def __init__(self, redis: Redis, folder: Path) -> None:
        self.redis = redis
        self.states = str(folder / "states")
        self.archive = folder / "archive"
        self.shop: Shop = stocked(redis, days=DAYS, n_series=12, partitions=2, horizon=6)
        self.whole = self._values()

    def _values(self) -> dict[keys.Tag, Floats]:
        parts = {tag: load_history(self.redis, tag, bucket_ms=HOUR_MS) for tag in TAGS}
        return {tag: part.values_TSF for tag, part in parts.items() if part is not None}

    def drop_old_buckets(self, *, kept_days: int = KEPT_DAYS) -> None:
        """The store's retention passes."""
        first_ms = self.shop.start_ms + (DAYS - kept_days) * DAY_MS
        self.kept = (self.shop.closed_through_ms - first_ms) // HOUR_MS
        for tag in TAGS:
            self.redis.hset(keys.of(tag, "meta"), "first_bucket_ms", first_ms)

    def hand_over(self, model: NetworkForecaster, archive: str | None = None) -> dict[str, Floats]:
        """Statistics [S, I] of the states handed over, by partition."""
        hand_over_states(self.redis, self.states, model, archive=archive)
        snapshots = Snapshots(self.redis, self.states)
        found = {}
        for tag in TAGS:
            snapshot = snapshots.load(tag, model)
            assert snapshot is not None
            assert isinstance(snapshot.states, NetworkStates)
            assert snapshot.through_ms == self.shop.closed_through_ms - HOUR_MS
            stats_SK = snapshot.states.stats_SK[: snapshot.states.size]
            found[str(tag)] = stats_SK[:, : inherited_width(model.config)].numpy()
        snapshots.close()
        return found

    def of_whole_life(self, model: NetworkForecaster) -> dict[str, Floats]:
        """The same of a model that has carried every bucket but the newest."""
        found = {}
        for tag, values_TSF in self.whole.items():
            states = model.new_states(values_TSF.shape[1])
            model.warm_up(states, values_TSF[:-1], self.shop.start_ms)
            stats_SK = states.stats_SK[: states.size]
            found[str(tag)] = stats_SK[:, : inherited_width(model.config)].numpy()
        return found


def _model(model_id: str, **changes: object) -> NetworkForecaster:
    torch.manual_seed(1)
    settings: dict[str, object] = {"hidden": 8, "layers": 1, "rank": 4} | changes
    config = ModelConfig(horizon=6, bucket_ms=HOUR_MS, **settings)  # type: ignore[arg-type]  # settings by name
    return NetworkForecaster(QuantileNetwork(config), model_id)


def _assert_same(made: dict[str, Floats], right: dict[str, Floats]) -> None:
    for tag, rows_SI in right.items():
        np.testing.assert_array_equal(made[tag], rows_SI)


@pytest.fixture
def deployment(redis_client: Redis, tmp_path: Path) -> Deployment:
    return Deployment(redis_client, tmp_path)


def test_the_next_champion_has_the_statistics_of_the_present_one(deployment: Deployment) -> None:
    """After the store has dropped most of the buckets that they are of; no archive is needed."""
    newest = deployment.shop.closed_through_ms
    for tag in TAGS:
        at_ms = newest - 2 * DAY_MS
        deployment.redis.hset(keys.of(tag, "meta"), "closed_through_ms", at_ms)
    hand_over_states(deployment.redis, deployment.states, _model("present"))
    for tag in TAGS:
        deployment.redis.hset(keys.of(tag, "meta"), "closed_through_ms", newest)
    deployment.drop_old_buckets()
    challenger = _model("next", hidden=12, prior=True)

    made = deployment.hand_over(challenger)

    _assert_same(made, deployment.of_whole_life(challenger))


def test_the_archive_replaces_statistics_that_were_never_kept(deployment: Deployment) -> None:
    """As after an upgrade that carries other statistics."""
    archive(deployment.redis, str(deployment.archive))
    deployment.drop_old_buckets()
    model = _model("upgraded")

    made = deployment.hand_over(model)

    _assert_same(made, deployment.of_whole_life(model))


def test_statistics_of_the_store_alone_give_way_to_those_of_the_archive(
    deployment: Deployment,
) -> None:
    """A worker that began with the store's last days has kept younger statistics meanwhile."""
    archive(deployment.redis, str(deployment.archive))
    deployment.drop_old_buckets()
    young = deployment.hand_over(_model("began late"), archive="")
    assert young["0"][:, AGE].max() < deployment.kept
    deployment.drop_old_buckets(kept_days=KEPT_DAYS - 1)
    model = _model("next")

    made = deployment.hand_over(model)

    _assert_same(made, deployment.of_whole_life(model))


def test_an_archive_that_ends_before_the_store_begins_is_left_out(deployment: Deployment) -> None:
    """Buckets are missing between the two."""
    newest = deployment.shop.closed_through_ms
    early_ms = deployment.shop.start_ms + 3 * DAY_MS
    for tag in TAGS:
        deployment.redis.hset(keys.of(tag, "meta"), "closed_through_ms", early_ms)
    archive(deployment.redis, str(deployment.archive))
    for tag in TAGS:
        deployment.redis.hset(keys.of(tag, "meta"), "closed_through_ms", newest)
    deployment.drop_old_buckets()

    made = deployment.hand_over(_model("m"))

    assert 0 < made["0"][:, AGE].max() < deployment.kept
    kept = deployment.redis.hvals(keys.of(0, "statistics"))
    assert [json.loads(text)["through_ms"] for text in kept] == [newest - HOUR_MS]


def test_the_trainer_reads_the_archive_that_is_filled_from_its_store(
    deployment: Deployment,
) -> None:
    """By default; not if it is switched off, or after the store was emptied for other data."""
    archive(deployment.redis, str(deployment.archive))
    deployment.drop_old_buckets()
    start_ms = deployment.shop.start_ms
    dropped_ms = (DAYS - KEPT_DAYS) * DAY_MS

    def start_of(archive: str | None, max_span_ms: int = 365 * DAY_MS) -> int:
        found = stored_history(
            deployment.redis, largest=5, max_span_ms=max_span_ms, archive=archive
        )
        return found.start_ms - start_ms

    assert start_of(None) == 0
    lived_ms = deployment.shop.closed_through_ms - start_ms
    assert start_of(None, max_span_ms=6 * DAY_MS) == lived_ms - 6 * DAY_MS
    assert start_of("") == dropped_ms
    claim(deployment.redis, [7], force=True)
    assert start_of(None) == dropped_ms


def test_all_models_of_a_deployment_carry_the_same_statistics() -> None:
    """The pretrained network and the ones trained later, whatever their inputs."""
    settings = Settings(model={"country": "US", "static": 8, "plans": True})
    trained = train_config(settings.model, bucket_ms=HOUR_MS).model
    pretrained = at_width(ModelConfig(horizon=24, bucket_ms=DAY_MS), HOUR_MS, 24, "US")

    assert statistics_identity(trained) == statistics_identity(pretrained)
