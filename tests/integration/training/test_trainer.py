"""A training on the stored history: its data, its decision and what it stores."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from redis import Redis

from model.durations import DAY_MS, HOUR_MS
from model.errors import HistoryTooShort
from model.inference.forecaster import NetworkForecaster
from model.inputs.static_features import ROWS, row_of
from model.networks.quantile_network import QuantileNetwork
from model.training.train import Trained
from stream.errors import ServiceUnavailable
from stream.jobs.archive.export import archive
from stream.jobs.training import handover
from stream.jobs.training.handover import hand_over_states
from stream.jobs.training.schedule import Outcome
from stream.jobs.training.stored_history import stored_history
from stream.jobs.training.train import train_config
from stream.jobs.training.trainer import Trainer, TrainingResult
from stream.registry import files as registry_files
from stream.registry.announcements import ModelRecord
from stream.registry.model_registry import Registry
from stream.serving.model_server import ModelServer
from stream.serving.state_snapshots import Snapshots
from stream.serving.static_features import static_reader
from stream.settings import Settings
from stream.state import keys
from stream.state.history import StoredHistory, load_history, read_history
from tests.support.seeding import CATEGORIES, QUANTILES, Shop, stocked
from tests.support.tiny_weights import save_tiny_weights


class Deployment:
    """A shop's store, a registry and a trainer with a fixed clock."""

    def __init__(self, redis: Redis, folder: Path) -> None:
        self.redis = redis
        self.folder = folder
        self.shop: Shop = stocked(redis, days=10, n_series=20, partitions=2, horizon=6)
        self.registry = Registry(str(folder))
        self.announced: list[ModelRecord] = []
        self.now_ms = 1_000_000_000
        self.settings = Settings(
            model={
                "horizon": 6,
                "quantiles": QUANTILES,
                "registry": str(folder),
                "pretrained": False,
            },
            trainer={"max_time": "5m", "updates": 40, "series": 12, "origins": 4},
        )

    def trainer(self, **changes: Any) -> Trainer:
        """The trainer, with other settings."""
        section = self.settings.trainer.model_copy(update=changes)
        settings = self.settings.model_copy(update={"trainer": section})
        return Trainer(
            settings,
            self.registry,
            history=lambda: stored_history(self.redis, largest=12, max_span_ms=365 * DAY_MS),
            hand_over_states=lambda model: hand_over_states(
                self.redis, self.settings.states_path, model
            ),
            announce=self.announced.append,
            now_ms=lambda: self.now_ms,
        )

    def use_static_features(self) -> None:
        """Networks from now on read the category of each series."""
        model = self.settings.model.model_copy(update={"static": 4})
        self.settings = self.settings.model_copy(update={"model": model})

    def use_challenger(self, weights: Path) -> None:
        """The foundation model that verdicts name from now on."""
        changes = {"challenger": "chronos-bolt", "challenger_path": weights}
        model = self.settings.model.model_copy(update=changes)
        self.settings = self.settings.model_copy(update={"model": model})

    def bad_champion(self) -> str:
        """An untrained champion with the deployed horizon, with a data span before the shop's."""
        torch.manual_seed(1)
        config = train_config(self.settings.model, bucket_ms=HOUR_MS)
        network = QuantileNetwork(config.model)
        with torch.no_grad():
            network.heads.write.bias.add_(1.0)
        span_ms = (self.shop.start_ms - DAY_MS, self.shop.start_ms)
        return self.registry.publish(Trained(network, config, span_ms), promote=True)


@pytest.fixture
def deployment(redis_client: Redis, tmp_path: Path) -> Deployment:
    return Deployment(redis_client, tmp_path / "registry")


def test_a_better_challenger_is_promoted_announced_and_explained(deployment: Deployment) -> None:
    """It starts from the champion's weights, and the origins are later than its training data."""
    before = deployment.bad_champion()
    result = deployment.trainer().once("requested: drift")

    assert result.outcome == "promoted", result.reason
    champion = deployment.registry.champion()
    assert champion == result.model_id != before
    manifest = deployment.registry.manifest(str(champion))
    assert manifest.parent == before
    assert manifest.span_ms[1] == deployment.shop.closed_through_ms - 4 * 6 * HOUR_MS
    assert manifest.metrics["wql"] < manifest.metrics["wql_champion"]
    assert [(record.action, record.model_id) for record in deployment.announced] == [
        ("promote", champion)
    ]
    last = deployment.registry.audit()[-1]
    assert last["note"].startswith("better beyond noise: WQL ")
    assert "(requested: drift; it has not learned from these 4 origins)" in last["note"]
    held_back_ms = 4 * 6 * HOUR_MS
    end_ms = deployment.shop.closed_through_ms
    assert deployment.registry.looks() == [(end_ms - held_back_ms, end_ms)]


def test_a_verdict_names_the_foundation_model_of_the_settings(
    deployment: Deployment, tmp_path: Path
) -> None:
    """Its figures are in reason and manifest; weights that cannot be read cost no verdict."""
    deployment.use_challenger(save_tiny_weights("chronos-bolt", tmp_path / "weights"))
    before = deployment.bad_champion()
    compared = deployment.trainer().once("due")
    deployment.use_challenger(tmp_path / "none")
    alone = deployment.trainer().once("due")

    serving = "challenger" if compared.outcome == "promoted" else before
    assert f"; chronos-bolt, never live, against {serving}: " in compared.reason
    metrics = deployment.registry.manifest(str(compared.model_id)).metrics
    assert f"WQL {metrics['wql_foundation']:.3f} against" in compared.reason
    assert alone.outcome in ("promoted", "refused"), alone.reason
    assert "chronos-bolt" not in alone.reason


def test_a_model_is_promoted_with_warm_states_of_every_partition(deployment: Deployment) -> None:
    """A worker that loads them reads one bucket and forecasts as if it had read all history."""
    deployment.use_static_features()
    deployment.bad_champion()
    result = deployment.trainer().once("due")
    assert result.outcome == "promoted", result.reason
    model_id = str(result.model_id)

    read: list[int] = []

    def history(tag: keys.Tag, from_ms: int | None, to_ms: int | None) -> Iterator[StoredHistory]:
        span: dict[str, Any] = {"bucket_ms": HOUR_MS, "from_ms": from_ms, "to_ms": to_ms}
        for portion in read_history(deployment.redis, tag, **span):
            read.append(len(portion.values_TSF))
            yield portion

    through_ms = deployment.shop.closed_through_ms
    model = NetworkForecaster(deployment.registry.network(model_id), model_id)
    kept = Snapshots(deployment.redis, deployment.settings.states_path)
    tags: tuple[keys.Tag, ...] = (0, 1, keys.ROLLUPS)
    static = static_reader(deployment.redis)
    warm = ModelServer(model, history, static=static, snapshots=kept)
    made = {tag: warm.advance(tag, through_ms) for tag in tags}
    assert read == [1, 1, 1]
    cold = ModelServer(model, history, static=static)
    for tag in tags:
        one, other = made[tag], cold.advance(tag, through_ms)
        assert one is not None
        assert other is not None
        np.testing.assert_allclose(one.units_SHQ, other.units_SHQ, rtol=1e-5)


def test_a_store_that_fails_at_the_handover_does_not_prevent_a_promotion(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers then warm up themselves."""
    before = deployment.bad_champion()

    def away(*_: Any, **__: Any) -> None:
        raise ServiceUnavailable("the store did not answer")

    monkeypatch.setattr(handover, "read_history", away)
    result = deployment.trainer().once("due")

    assert result.outcome == "promoted", result.reason
    assert deployment.registry.champion() == result.model_id != before
    assert not deployment.redis.exists(keys.of(0, "kept"))


def test_a_challenger_learns_the_categories_of_the_catalog(deployment: Deployment) -> None:
    """`model.static`: embeddings and a prior of the categories of its series and roll-ups."""
    deployment.use_static_features()
    result = deployment.trainer().once("due")

    network = deployment.registry.network(str(result.model_id))
    assert network.config.static == 4
    assert network.config.prior
    assert network.embedding is not None
    assert network.prior is not None
    met = {row_of("category", name) for name in CATEGORIES}
    assert set(network.embedding.met[:ROWS].nonzero().flatten().tolist()) == met | {0}
    assert network.prior.worth_days > 0


def test_after_a_drift_fewer_origins_are_held_back(deployment: Deployment) -> None:
    """The newest days are those to learn from; what came before is not forgotten."""
    deployment.bad_champion()
    trainer = deployment.trainer()
    due, drifted = (
        deployment.registry.manifest(str(result.model_id))
        for result in (trainer.once("due"), trainer.once("requested: drift", drifted=True))
    )

    end_ms = deployment.shop.closed_through_ms
    assert due.span_ms == (deployment.shop.start_ms, end_ms - 4 * 6 * HOUR_MS)
    assert drifted.span_ms == (deployment.shop.start_ms, end_ms - 3 * 6 * HOUR_MS)


def test_without_unseen_origins_nothing_is_trained_and_the_reason_is_kept(
    deployment: Deployment,
) -> None:
    """The champion was trained on all buckets: a challenger could not be compared with it."""
    before = deployment.bad_champion()
    end_ms = deployment.shop.closed_through_ms
    torch.manual_seed(2)
    config = train_config(deployment.settings.model, bucket_ms=HOUR_MS)
    fresh = Trained(QuantileNetwork(config.model), config, (end_ms - DAY_MS, end_ms))
    champion = deployment.registry.publish(fresh, promote=True)
    result = deployment.trainer().once("due")

    assert (result.outcome, result.model_id) == ("skipped", None)
    assert f"only 0 origins are later than the training data of the champion {champion}" in (
        result.reason
    )
    assert deployment.registry.champion() == champion != before
    assert len(deployment.registry.list()) == 2
    last = deployment.registry.audit()[-1]
    assert (last["action"], last["note"]) == ("skipped", f"{result.reason} (due)")


def test_a_champion_of_yesterday_leaves_fewer_origins(deployment: Deployment) -> None:
    """All that it has not learned from are held back from the challenger too, not more."""
    torch.manual_seed(2)
    config = train_config(deployment.settings.model, bucket_ms=HOUR_MS)
    end_ms = deployment.shop.closed_through_ms
    span_ms = (deployment.shop.start_ms, end_ms - 20 * HOUR_MS)
    deployment.registry.publish(
        Trained(QuantileNetwork(config.model), config, span_ms), promote=True
    )
    result = deployment.trainer().once("due")

    manifest = deployment.registry.manifest(str(result.model_id))
    assert manifest.span_ms[1] == end_ms - 3 * 6 * HOUR_MS
    assert manifest.metrics["origins_compared"] == 3


def test_a_second_challenger_on_the_same_origins_needs_stronger_evidence(
    deployment: Deployment,
) -> None:
    deployment.bad_champion()
    deployment.trainer().once("due")
    result = deployment.trainer().once("due")

    assert "(97.5 % interval" in result.reason


def test_a_damaged_champion_is_replaced_by_a_first_model(deployment: Deployment) -> None:
    """Without a readable champion it is compared with the fallback and has no parent."""
    model_id = deployment.bad_champion()
    (deployment.folder / "models" / model_id / "weights.safetensors").write_bytes(b"x")
    result = deployment.trainer().once("due")

    assert result.outcome in ("promoted", "refused")
    assert "of exponential-smoothing" in result.reason
    assert deployment.registry.manifest(str(result.model_id)).parent is None


def test_a_damaged_pointer_is_replaced_and_who_served_is_known_by_the_audit(
    deployment: Deployment,
) -> None:
    """The challenger is compared with the serving model, and the file is readable again."""
    model_id = deployment.bad_champion()
    (deployment.folder / "champion.json").write_text("{")
    result = deployment.trainer().once("due")

    assert result.outcome == "promoted", result.reason
    assert deployment.registry.manifest(str(result.model_id)).parent == model_id
    assert deployment.registry.champion() == result.model_id
    assert deployment.registry.rollback() == model_id


def test_a_full_disk_is_a_failed_training_and_the_champion_serves_on(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = deployment.bad_champion()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(registry_files, "_write_through", full)
        result = deployment.trainer(updates=1).once("due")

    assert result.outcome == "failed"
    assert "No space left" in result.reason
    assert deployment.registry.champion() == before
    assert len(deployment.registry.list()) == 1


def test_too_little_history_and_an_unavailable_store_do_not_crash_the_trainer(
    redis_client: Redis, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_client.flushdb()
    assert deployment.trainer().once("due").outcome == "skipped"

    def away() -> None:
        raise ServiceUnavailable("the store did not answer")

    trainer = deployment.trainer()
    monkeypatch.setattr(trainer, "_history", away)
    result = trainer.once("due")
    assert (result.outcome, result.reason) == ("failed", "the store did not answer")


# -- when it trains -------------------------------------------------------------------------------


class Stopped(Exception):
    """Ends the trainer's loop."""


def trainings(
    deployment: Deployment,
    *,
    hours: int,
    requests: dict[int, ModelRecord],
    outcome: Outcome = "refused",
    **settings: Any,
) -> list[tuple[int, str]]:
    """Hour and cause of each training within `hours` hours."""
    trainer = deployment.trainer(**settings)
    began_ms = deployment.now_ms
    made: list[tuple[int, str]] = []
    hour = 0

    def once(cause: str, *, drifted: bool = False) -> TrainingResult:
        assert drifted == (cause == "requested: drift")
        made.append((hour, cause))
        return TrainingResult(outcome, "")

    def newest(_: int) -> ModelRecord | None:
        nonlocal hour
        hour += 1
        deployment.now_ms = began_ms + hour * HOUR_MS
        if hour > hours:
            raise Stopped
        return requests.get(hour)

    trainer.once = once  # type: ignore[method-assign]  # it would train
    with pytest.raises(Stopped):
        trainer.run(newest)
    return made


def request(deployment: Deployment, hour: int) -> ModelRecord:
    """A request for a training at this hour."""
    return ModelRecord("retrain", "", "drift", deployment.now_ms + hour * HOUR_MS, drift=True)


def test_it_trains_periodically_and_on_request_but_not_within_the_cooldown(
    deployment: Deployment,
) -> None:
    requests = {hour: request(deployment, hour) for hour in (5, 6, 7)}
    made = trainings(
        deployment, hours=40, requests=requests, every=24 * HOUR_MS, cooldown=3 * HOUR_MS
    )

    assert made == [
        (1, "due"),
        (5, "requested: drift"),
        (8, "requested: drift"),
        (32, "due"),
    ]


def test_a_request_older_than_the_last_training_is_ignored(deployment: Deployment) -> None:
    """Requests from before a restart, still in the topic, have no effect."""
    requests = {3: replace_time(request(deployment, 3), deployment.now_ms - 1)}
    made = trainings(deployment, hours=10, requests=requests, every=24 * HOUR_MS, cooldown=0)

    assert made == [(1, "due")]


def replace_time(record: ModelRecord, at_ms: int) -> ModelRecord:
    return ModelRecord(record.action, record.model_id, record.reason, at_ms, record.drift)


def test_a_request_by_hand_trains_as_usual_and_one_by_drift_for_the_newest_days(
    deployment: Deployment,
) -> None:
    by_hand = ModelRecord("retrain", "", "new assortment", deployment.now_ms + 5 * HOUR_MS)
    requests = {5: by_hand, 9: request(deployment, 9)}
    made = trainings(deployment, hours=12, requests=requests, every=24 * HOUR_MS, cooldown=0)

    assert made == [(1, "due"), (5, "requested: new assortment"), (9, "requested: drift")]


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_a_training_that_makes_no_model_is_repeated_less_and_less(
    deployment: Deployment, outcome: Outcome
) -> None:
    """Requested or not: it read all history once a second until the request could be met."""
    requests = {1: request(deployment, 1)}
    made = trainings(
        deployment, hours=40, requests=requests, outcome=outcome, every=24 * HOUR_MS, cooldown=0
    )

    assert [hour for hour, _ in made] == [1, 2, 3, 4, 6, 9, 15, 26]
    assert {cause for _, cause in made} == {"requested: drift"}


def test_a_restart_keeps_the_training_period(deployment: Deployment) -> None:
    """The time of the last training comes from the registry."""
    deployment.bad_champion()
    deployment.now_ms = int(deployment.registry.audit()[0]["at_ms"])
    made = trainings(deployment, hours=30, requests={}, every=24 * HOUR_MS, cooldown=0)

    assert made == [(24, "due")]


# -- the history ----------------------------------------------------------------------------------


def test_the_history_holds_the_largest_series_and_all_roll_ups_as_stored(
    redis_client: Redis, deployment: Deployment
) -> None:
    history = stored_history(redis_client, largest=5, max_span_ms=365 * DAY_MS)

    parts = [load_history(redis_client, tag, bucket_ms=HOUR_MS) for tag in (0, 1, keys.ROLLUPS)]
    stored = {
        name: part.values_TSF[:, slot]
        for part in parts
        if part is not None
        for slot, name in enumerate(part.series)
    }
    units = {name: values_TF[:, 0].sum() for name, values_TF in stored.items()}
    plain = [name for name in units if name != "total" and ":" not in name]
    largest = sorted(plain, key=lambda name: -units[name])[:5]
    assert set(history.series) == {*largest, *deployment.shop.rollups}
    assert history.series[5:] == deployment.shop.rollups
    assert history.end_ms == deployment.shop.closed_through_ms
    for slot, name in enumerate(history.series):
        np.testing.assert_array_equal(history.values_TSF[:, slot], stored[name])


def test_buckets_dropped_from_the_store_come_from_the_archive(
    redis_client: Redis, deployment: Deployment, tmp_path: Path
) -> None:
    """The same block as before the store dropped its first days."""
    whole = stored_history(redis_client, largest=5, max_span_ms=365 * DAY_MS)
    archive(redis_client, str(tmp_path / "archive"))
    later_ms = deployment.shop.start_ms + 4 * DAY_MS
    for tag in (0, 1, keys.ROLLUPS):
        redis_client.hset(keys.of(tag, "meta"), "first_bucket_ms", later_ms)
    short = stored_history(redis_client, largest=5, max_span_ms=365 * DAY_MS, archive="")
    joined = stored_history(
        redis_client, largest=5, max_span_ms=365 * DAY_MS, archive=str(tmp_path / "archive")
    )

    assert short.start_ms == later_ms
    assert joined.start_ms == whole.start_ms
    places = [whole.series.index(name) for name in joined.series if name in whole.series]
    known = [slot for slot, name in enumerate(joined.series) if name in whole.series]
    np.testing.assert_array_equal(joined.values_TSF[:, known], whole.values_TSF[:, places])
    nowhere = stored_history(
        redis_client, largest=5, max_span_ms=365 * DAY_MS, archive=str(tmp_path / "nowhere")
    )
    assert nowhere.start_ms == later_ms, "an archive that cannot be used is left out"


def test_an_empty_store_is_too_short(redis_client: Redis) -> None:
    with pytest.raises(HistoryTooShort):
        stored_history(redis_client, largest=5, max_span_ms=DAY_MS)
