"""Models in a running deployment: announced, swapped and rolled back in all workers at once."""

import asyncio
import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from model.durations import HOUR_MS
from model.pretraining.shipped import shipped
from stream.kafka.clients import aiokafka_config
from stream.registry.announcements import ModelRecord, RetrainRequests, announce, listen
from stream.registry.model_registry import Registry
from tests.support.deployments import Deployment
from tests.support.model_cases import random_model
from tests.support.samples import START_MS, small_orders
from tests.support.services import TestBroker
from tests.support.stack import (
    drained,
    order_records,
    produce,
    read_topic,
    statistics,
    wait_until,
)

SKUS = 20


async def test_a_record_reaches_every_listener_and_the_trainer(broker: TestBroker) -> None:
    """Listeners need no consumer group; a trainer that starts later finds a request."""
    received: list[ModelRecord] = []
    client = aiokafka_config(broker.settings)
    tasks = [asyncio.create_task(listen(client, received.append)) for _ in range(2)]
    record = ModelRecord("rollback", "lstm-1", "too high", 17)
    try:
        for _ in range(60):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(announce, broker.settings, record)
            if len(received) >= 2:
                break
    finally:
        for task in tasks:
            task.cancel()
    await asyncio.to_thread(
        announce, broker.settings, ModelRecord("retrain", reason="drift", at_ms=5)
    )

    assert set(received) == {record}
    requests = RetrainRequests(broker.settings)
    found: list[ModelRecord] = []
    idle = 0
    while not found or idle < 4:
        request = await asyncio.to_thread(requests.newest, wait_ms=500)
        found += [] if request is None else [request]
        idle = idle + 1 if request is None else 0
        assert idle < 120, "the request did not arrive"
    requests.close()
    assert [request.reason for request in found] == ["drift"]


class Workers:
    """Two workers and their models."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.registry = Registry(deployment.settings.registry_path)
        self.hours = 0
        for number in range(2):
            deployment.start(f"worker-{number}")

    @property
    def end_ms(self) -> int:
        """End of the last full hour of orders."""
        return START_MS + self.hours * HOUR_MS

    def sell(self, hours: int) -> None:
        """Send orders of the next hours and of the first minutes after them."""
        lines = small_orders(
            40 * (hours + 1), seed=self.hours, skus=SKUS, hours=hours + 1, start_ms=self.end_ms
        )
        produce(self.deployment.servers, "orders", order_records(lines))
        self.hours += hours

    def serves(self, model_id: str) -> Callable[[], bool]:
        """A condition that is true while all workers serve this model."""
        redis = self.deployment.redis
        return lambda: {report["model_id"] for report in statistics(redis)} == {model_id}

    def surgecast(self, *arguments: str) -> str:
        """Output of a command that succeeds."""
        return self.deployment.surgecast(*arguments).stdout

    def shared(self) -> bool:
        """True if both workers have partitions and forecasts."""
        reports = statistics(self.deployment.redis)
        return len(reports) == 2 and all(
            report["partitions"] and report["forecasts"] for report in reports
        )

    def drained(self) -> bool:
        """True if all buckets of the orders sent are closed and published."""
        reports = statistics(self.deployment.redis)
        behind = any((report["watermark_ms"] or 0) < self.end_ms for report in reports)
        return not behind and drained(self.deployment.redis)


@pytest.fixture
def deployment_settings() -> dict[str, dict[str, Any]]:
    """Short horizons and trainings."""
    return {
        "model": {"horizon": 6, "device": "cpu"},
        "trainer": {"max_time": "2s", "origins": 2},
    }


@pytest.fixture
def workers(deployment: Deployment) -> Workers:
    """Two workers that forecast after 30 hours of orders."""
    workers = Workers(deployment)
    workers.sell(30)
    wait_until(workers.shared, "both workers have partitions and a forecast")
    return workers


def test_a_swap_and_a_rollback_change_each_series_once_in_all_workers(
    workers: Workers,
) -> None:
    """Promote one, promote another, roll back: each series changes model once per step."""
    first = workers.registry.publish(random_model(1, span_end_ms=START_MS))
    second = workers.registry.publish(random_model(2, span_end_ms=START_MS))
    workers.surgecast("models", "promote", first, "--note", "the first")
    wait_until(workers.serves(first), "the first model")
    workers.sell(3)
    workers.surgecast("models", "promote", second)
    wait_until(workers.serves(second), "the second model")
    workers.sell(3)
    workers.surgecast("models", "rollback", "--note", "too high")
    wait_until(workers.serves(first), "the rollback")
    workers.sell(3)
    wait_until(workers.drained, "publishing all forecasts")

    servers = workers.deployment.servers
    records = [json.loads(record.value) for record in read_topic(servers, "forecasts")]
    records.sort(key=lambda record: record["emitted_ms"])
    by_series: dict[str, list[str]] = {}
    for record in records:
        by_series.setdefault(record["series_id"], []).append(record["model_id"])
    turns = {name: [model for model, _ in groupby(models)] for name, models in by_series.items()}
    assert len(turns) == SKUS + 1
    assert {tuple(models[-3:]) for models in turns.values()} == {(first, second, first)}
    before = {"exponential-smoothing", shipped()[1].model_id}
    assert all(set(models[:-3]) <= before for models in turns.values())

    listed = json.loads(workers.surgecast("models", "list", "--json"))
    assert [(t["model_id"], t["note"]) for t in listed["tenures"]] == [
        (first, "the first"),
        (second, "by hand"),
        (first, "too high"),
    ]


def test_all_workers_refuse_and_report_a_corrupt_champion(workers: Workers) -> None:
    """Workers keep their model and report the problem in statistics; `doctor` finds it."""
    model_id = workers.registry.publish(random_model(1, span_end_ms=START_MS), promote=True)
    wait_until(workers.serves(model_id), "the champion")
    bad = workers.registry.publish(random_model(2, span_end_ms=START_MS))
    root = Path(workers.deployment.settings.registry_path)
    weights = root / "models" / bad / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    # a promotion would refuse it: it is damaged after it became champion
    (root / "champion.json").write_text(json.dumps({"model_id": bad, "previous": [model_id]}))

    def refused() -> bool:
        problems = [report["model_problem"] for report in statistics(workers.deployment.redis)]
        named = [problem for problem in problems if bad in problem and "bytes" in problem]
        return len(named) == len(problems) == 2

    wait_until(refused, "the refusal by both workers")
    assert workers.serves(model_id)()
    doctor = workers.deployment.surgecast("doctor", "--json", check=False)
    checks = {check["name"]: check for check in json.loads(doctor.stdout)["checks"]}
    assert checks["champion"]["status"] == "wrong"
    assert bad in checks["champion"]["found"]


def test_a_killed_trainer_leaves_the_workers_serving(workers: Workers) -> None:
    """`kill -9` during the comparison, then a complete training that workers react to."""
    workers.sell(60)
    wait_until(workers.drained, "history for the trainer")
    trainer = workers.deployment.start("trainer", ["--once"], role="trainer")
    wait_until(lambda: "challenger_trained" in trainer.log.read_text(), "a trained challenger")
    trainer.kill()
    assert all(not report["model_problem"] for report in statistics(workers.deployment.redis))
    for entry in workers.registry.list():
        workers.registry.load(entry.model_id)

    answer = workers.surgecast("trainer", "--once")
    model_id, outcome = answer.split()[:2]
    assert outcome in ("promoted:", "refused:")
    assert model_id in {entry.model_id for entry in workers.registry.list()}
    if outcome == "promoted:":
        wait_until(workers.serves(model_id), "the challenger")
