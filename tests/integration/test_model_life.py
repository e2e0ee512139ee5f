"""Models in a running deployment: announced, swapped and rolled back in all workers at once."""

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pytest
from redis import Redis

from stream.kafka.clients import kafka_client
from stream.registry.announcements import ModelRecord, RetrainRequests, announce, listen
from stream.registry.model_registry import Registry
from stream.settings import Settings, child_environment
from tests.support.model_cases import random_model
from tests.support.samples import START_MS, small_orders
from tests.support.services import TestBroker, running_broker, settings_for
from tests.support.stack import (
    SURGECAST,
    WorkerProcess,
    order_records,
    produce,
    read_topic,
    statistics,
    wait_until,
)

pytestmark = pytest.mark.integration

SKUS = 20


async def test_a_record_reaches_every_listener_and_the_trainer(broker: TestBroker) -> None:
    """Workers hear of it without a group; a request is found by a trainer that starts later."""
    heard: list[ModelRecord] = []
    client = kafka_client(broker.settings)
    tasks = [asyncio.create_task(listen(client, heard.append)) for _ in range(2)]
    record = ModelRecord("rollback", "lstm-1", "too high", 17)
    try:
        for _ in range(60):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(announce, broker.settings, record)
            if len(heard) >= 2:
                break
    finally:
        for task in tasks:
            task.cancel()
    await asyncio.to_thread(
        announce, broker.settings, ModelRecord("retrain", reason="drift", at_ms=5)
    )

    assert set(heard) == {record}
    requests = RetrainRequests(broker.settings)
    found = [requests.newest(wait_ms=500) for _ in range(6)]
    requests.close()
    assert [request.reason for request in found if request is not None] == ["drift"]


class Deployment:
    """Two workers on a broker of their own."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self.settings = settings
        self.redis = redis
        self.registry = Registry(settings.registry_path)
        self.hours = 0

    def sell(self, hours: int) -> None:
        """Orders of the next hours, and of the first minutes of the one after them."""
        start_ms = START_MS + self.hours * 3_600_000
        lines = small_orders(
            40 * (hours + 1), seed=self.hours, skus=SKUS, hours=hours + 1, start_ms=start_ms
        )
        servers = self.settings.kafka.bootstrap_servers
        assert servers is not None
        produce(servers, "orders", order_records(lines))
        self.hours += hours

    def serves(self, model_id: str) -> Callable[[], bool]:
        """Whether all workers serve this model."""
        return lambda: {report["model_id"] for report in statistics(self.redis)} == {model_id}

    def surgecast(self, *arguments: str) -> str:
        """A command of the command line; what it prints."""
        return subprocess.run(
            [SURGECAST, *arguments],
            env=child_environment(self.settings),
            capture_output=True,
            check=True,
            text=True,
        ).stdout


@pytest.fixture
def deployment(tmp_path: Path, valkey_url: str, redis_client: Redis) -> Iterator[Deployment]:
    with running_broker("tansu", tmp_path) as running:
        settings = settings_for(
            running,
            tmp_path,
            kafka={"session_timeout": "4s"},
            redis={"url": valkey_url},
            window={"idle_timeout": "1s"},
            model={"horizon": 6, "device": "cpu"},
            trainer={"max_time": "2s", "origins": 2},
        )
        workers = []
        try:
            for number in range(2):
                workers.append(WorkerProcess(settings, tmp_path / f"worker-{number}.log"))
            deployment = Deployment(settings, redis_client)
            deployment.sell(30)
            wait_until(lambda: shared(redis_client), "both workers have partitions and a forecast")
            yield deployment
        finally:
            for worker in workers:
                worker.kill()


def shared(redis: Redis) -> bool:
    reports = statistics(redis)
    return len(reports) == 2 and all(
        report["partitions"] and report["forecasts"] for report in reports
    )


def test_a_swap_and_a_rollback_change_each_series_once_in_all_workers(
    deployment: Deployment,
) -> None:
    """Promote one, promote another, roll back: the topic shows four models in turn, no mixture."""
    first = deployment.registry.publish(random_model(1, span_end_ms=START_MS))
    second = deployment.registry.publish(random_model(2, span_end_ms=START_MS))
    deployment.surgecast("models", "promote", first, "--note", "the first")
    wait_until(deployment.serves(first), "the first model")
    deployment.sell(3)
    deployment.surgecast("models", "promote", second)
    wait_until(deployment.serves(second), "the second model")
    deployment.sell(3)
    deployment.surgecast("models", "rollback", "--note", "too high")
    wait_until(deployment.serves(first), "the rollback")
    deployment.sell(3)
    wait_until(drained(deployment), "all is published")

    servers = deployment.settings.kafka.bootstrap_servers
    assert servers is not None
    records = [json.loads(record.value) for record in read_topic(servers, "forecasts")]
    records.sort(key=lambda record: record["emitted_ms"])
    by_series: dict[str, list[str]] = {}
    for record in records:
        by_series.setdefault(record["series_id"], []).append(record["model_id"])
    turns = {name: [model for model, _ in groupby(models)] for name, models in by_series.items()}
    assert len(turns) == SKUS + 1
    assert {tuple(models[-3:]) for models in turns.values()} == {(first, second, first)}
    assert all(models[:-3] in ([], ["exponential-smoothing"]) for models in turns.values())

    listed = json.loads(deployment.surgecast("models", "list", "--json"))
    assert [(t["model_id"], t["note"]) for t in listed["tenures"]] == [
        (first, "the first"),
        (second, "by hand"),
        (first, "too high"),
    ]


def drained(deployment: Deployment) -> Callable[[], bool]:
    def condition() -> bool:
        reports = statistics(deployment.redis)
        end_ms = START_MS + deployment.hours * 3_600_000
        behind = any((report["watermark_ms"] or 0) < end_ms for report in reports)
        return not behind and all(report["drained"] for report in reports)

    return condition


def test_a_corrupt_champion_is_refused_by_all_and_shown(deployment: Deployment) -> None:
    """The workers serve on, say why in their statistics, and `doctor` finds it."""
    model_id = deployment.registry.publish(random_model(1, span_end_ms=START_MS), promote=True)
    wait_until(deployment.serves(model_id), "the champion")
    bad = deployment.registry.publish(random_model(2, span_end_ms=START_MS))
    root = Path(deployment.settings.registry_path)
    weights = root / "models" / bad / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    # no promotion would let it through: it is damaged after it became champion
    (root / "champion.json").write_text(json.dumps({"model_id": bad, "previous": [model_id]}))

    def refused() -> bool:
        problems = [report["model_problem"] for report in statistics(deployment.redis)]
        named = [problem for problem in problems if bad in problem and "bytes" in problem]
        return len(named) == len(problems) == 2

    wait_until(refused, "both workers refuse it")
    assert deployment.serves(model_id)()
    doctor = subprocess.run(
        [SURGECAST, "doctor", "--json"],
        env=child_environment(deployment.settings),
        capture_output=True,
        check=False,
        text=True,
    )
    checks = {check["name"]: check for check in json.loads(doctor.stdout)["checks"]}
    assert checks["champion"]["status"] == "wrong"
    assert bad in checks["champion"]["found"]


def test_a_trainer_killed_at_any_moment_leaves_the_workers_serving(
    deployment: Deployment, tmp_path: Path
) -> None:
    """`kill -9` while it compares, then one training to its end, which workers hear of."""
    deployment.sell(60)
    wait_until(drained(deployment), "history for the trainer")
    with trainer(deployment, tmp_path, "--once") as running:
        wait_until(lambda: "challenger_trained" in log(tmp_path), "a trained challenger")
        running.kill()
    before = statistics(deployment.redis)
    assert all(not report["model_problem"] for report in before)
    for entry in deployment.registry.list():
        deployment.registry.load(entry.model_id)

    answer = deployment.surgecast("trainer", "--once")
    model_id, outcome = answer.split()[:2]
    assert outcome in ("promoted:", "refused:")
    assert model_id in {entry.model_id for entry in deployment.registry.list()}
    if outcome == "promoted:":
        wait_until(deployment.serves(model_id), "the challenger")


def log(folder: Path) -> str:
    return (folder / "trainer.log").read_text()


@contextmanager
def trainer(
    deployment: Deployment, folder: Path, *arguments: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """A trainer as its own process, with its log."""
    with (
        (folder / "trainer.log").open("wb") as out,
        subprocess.Popen(
            [SURGECAST, "trainer", *arguments],
            env=child_environment(deployment.settings),
            stdout=out,
            stderr=subprocess.STDOUT,
        ) as running,
    ):
        try:
            yield running
        finally:
            running.send_signal(signal.SIGKILL)
