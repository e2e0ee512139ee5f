"""Drift, from the scores in the store to the alert and the request for a retrain."""

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import numpy as np
import pytest
import redis.asyncio as aioredis
from redis import Redis

from model.durations import DAY_MS, HOUR_MS
from model.evaluation.score_sums import SUMS, VOLUMES
from stream.scoring.drift_task import DriftTask
from stream.settings import DriftSettings
from stream.state import keys
from stream.state.keys import ROLLUPS
from tests.support.samples import START_MS

HORIZON = 2
SETTINGS = DriftSettings(warm_up_days=5)


class ScoredShop:
    """Scores of two partitions in a store, a drift task, and its alerts and requests."""

    def __init__(self, redis: Redis, url: str) -> None:
        self.redis = redis
        self.client = aioredis.Redis.from_url(url)
        self.through_ms: int | None = START_MS
        self.alerts: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.rng = np.random.default_rng(1)
        self.day_ms = START_MS
        self.start()

    def start(self) -> None:
        """A worker takes over."""
        self.task = DriftTask(
            SETTINGS,
            self.client,
            self,
            partitions=2,
            bucket_ms=HOUR_MS,
            horizon=HORIZON,
            through_ms=lambda: self.through_ms,
            on_drift=self.request,
        )

    async def send(self, topic: str, records: Iterable[tuple[str, bytes]]) -> int:
        sent = list(records)
        assert topic == "alerts"
        assert {name for name, _ in sent} == {"total"}
        self.alerts += [json.loads(payload) for _, payload in sent]
        return len(sent)

    async def request(self, reason: str) -> None:
        self.requests.append(reason)

    async def days(self, n: int, *, loss: float, model: str = "lstm-1") -> None:
        """Let `n` days pass with a pinball loss of `loss` times the units."""
        for _ in range(n):
            for tag in (0, 1, ROLLUPS):
                sums_VHK = np.zeros((len(VOLUMES), HORIZON, len(SUMS)))
                named = {
                    "labels": 50, "weight": 50, "actual": 500, "pit": 25,
                    "loss": 250 * loss * self.rng.uniform(0.95, 1.05),
                }  # fmt: skip
                for name, value in named.items():
                    volume = "rollup" if tag == ROLLUPS else "high"
                    sums_VHK[VOLUMES.index(volume), :, SUMS.index(name)] = value
                if tag == ROLLUPS:
                    sums_VHK[:, :, SUMS.index("loss")] = 0.1 * sums_VHK[:, :, SUMS.index("actual")]
                self.redis.hset(keys.of(tag, "scores", self.day_ms), model, sums_VHK.tobytes())
            self.day_ms += DAY_MS
            self.through_ms = self.day_ms + HOUR_MS
            await self.task.check()


@pytest.fixture
async def shop(redis_client: Redis, valkey_url: str) -> AsyncIterator[ScoredShop]:
    """An empty store, before its first day."""
    shop = ScoredShop(redis_client, valkey_url)
    yield shop
    await shop.client.aclose()


async def test_a_lasting_change_is_one_incident_with_a_beginning_and_an_end(
    shop: ScoredShop,
) -> None:
    """Opened once, one retrain within the cool-down, resolved under the same id."""
    await shop.days(20, loss=0.3)
    assert (shop.alerts, shop.requests) == ([], [])

    await shop.days(6, loss=0.6)
    [alert] = shop.alerts
    assert (alert["kind"], alert["state"], alert["severity"]) == ("drift", "open", "warning")
    assert alert["series_id"] == "total"
    assert "high volume" in alert["message"]
    assert alert["observed"] > 0.5 > alert["expected"][0]
    assert len(shop.requests) == 1

    await shop.days(6, loss=0.3)
    opened, resolved = shop.alerts
    assert (resolved["state"], resolved["alert_id"]) == ("resolved", opened["alert_id"])
    assert resolved["started_ms"] == opened["started_ms"]
    assert len(shop.requests) == 1


async def test_another_worker_continues_the_detection(shop: ScoredShop) -> None:
    """Statistics and an open incident outlive the worker; no day is judged twice."""
    await shop.days(20, loss=0.3)
    shop.start()
    await shop.days(6, loss=0.6)
    assert len(shop.alerts) == 1

    shop.start()
    await shop.task.check()
    assert len(shop.alerts) == 1

    await shop.days(8, loss=0.6)
    assert [alert["state"] for alert in shop.alerts] == ["open"]
    assert len(shop.requests) == 2  # the cool-down is over


async def test_another_kind_of_model_has_its_own_reference_and_a_retrained_one_has_not(
    shop: ScoredShop,
) -> None:
    """A network scores differently from the fallback without drift; its successor must not."""
    await shop.days(20, loss=0.3, model="exponential-smoothing")
    await shop.days(20, loss=0.45)
    assert shop.alerts == []

    await shop.days(6, loss=0.8, model="lstm-2")
    assert [alert["state"] for alert in shop.alerts] == ["open"]

    await shop.days(1, loss=0.8, model="exponential-smoothing")
    opened, resolved = shop.alerts
    assert (resolved["state"], resolved["alert_id"]) == ("resolved", opened["alert_id"])
    await shop.days(10, loss=0.8, model="exponential-smoothing")
    assert len(shop.alerts) == 2


async def test_only_the_owner_of_the_rollups_judges(shop: ScoredShop) -> None:
    await shop.days(2, loss=0.3)
    before = shop.redis.get(keys.drift())

    shop.through_ms = None
    await shop.task.check()
    shop.redis.hset(keys.of(0, "scores", shop.day_ms), "m", b"")
    await shop.task.check()

    assert shop.redis.get(keys.drift()) == before
