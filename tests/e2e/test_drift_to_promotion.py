"""Demand changes for good: drift is detected, a challenger trained, promoted and swapped in."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition
from redis import Redis

from model.config import DECILES, TrainConfig
from model.durations import DAY_MS, HOUR_MS
from model.evaluation.backtest import Backtest, backtest
from model.evaluation.metrics import wql
from model.inference.forecaster import NetworkForecaster
from model.training.train import Trained
from stream.jobs.training.stored_history import stored_history
from stream.registry.model_registry import Registry
from tests.support.deployments import Deployment
from tests.support.samples import START_MS
from tests.support.stack import read_topic, wait_until

#: Steps of a forecast, and buckets of a season.
HORIZON, SEASON = 12, 24
PARTITIONS = 2
SKUS = [f"S{i:02d}" for i in range(24)]
#: Days before demand changes: of history without a model, then with the first champion.
BEFORE, STABLE = 28, 8
#: Days in which the new demand must lead to a new champion, and days after that.
PATIENCE, AFTER = 12, 5
#: Errors by which the first champion forecasts too little.
_TOO_LITTLE = 1.5


class Shop:
    """A shop that sells hour by hour, in a deployment with a worker."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.registry = Registry(deployment.settings.registry_path)
        self.changed = False
        self.hours = 0
        self._rng = np.random.default_rng(5)
        self._level_S = self._rng.lognormal(2.0, 0.5, len(SKUS))
        servers = deployment.servers
        self._producer = KafkaProducer(bootstrap_servers=servers, linger_ms=5, acks="all")
        #: All records of the topic `forecasts`, in the order read.
        self.published: list[dict[str, Any]] = []
        self._published_names: dict[int, set[str]] = {}
        self._consumer = KafkaConsumer(bootstrap_servers=servers)
        places = self._consumer.partitions_for_topic("forecasts") or ()
        self._consumer.assign([TopicPartition("forecasts", place) for place in places])
        self._consumer.seek_to_beginning()
        deployment.start()

    def close(self) -> None:
        """Close the connections to the broker."""
        self._consumer.close()
        self._producer.close()

    @property
    def now_ms(self) -> int:
        """Start of the next hour to sell."""
        return START_MS + self.hours * HOUR_MS

    def sell(self, days: int, *, at_once: bool = False) -> None:
        """Sell for some days; wait for the forecasts of each hour, or of the last one."""
        for hour in range(24 * days):
            self._send_hour()
            if not at_once or hour == 24 * days - 1:
                self._producer.flush()
                wait_until(self._forecast, f"the forecasts of hour {self.hours}")

    def _send_hour(self) -> None:
        hour = self.hours % 24
        # one peak per day; after the change two, at other hours, with more than twice the demand
        share = 1 + 0.9 * np.sin(2 * np.pi * (hour - 8) / 24)
        if self.changed:
            share = 2.4 * (1 + 0.9 * np.sin(2 * np.pi * (hour - 1) / 12))
        mean_S = self._level_S * share * self._rng.gamma(8, 1 / 8, len(SKUS))
        for place, (sku, units) in enumerate(zip(SKUS, self._rng.poisson(mean_S), strict=True)):
            line = {
                "event_id": f"{self.hours}-{place}",
                "ts": self.now_ms + 59 * 60_000 + place,
                "sku": sku,
                "quantity": int(units) + 1,
                "unit_price": 2.5,
            }
            self._producer.send("orders", key=sku.encode(), value=json.dumps(line).encode())
        self.hours += 1

    def _forecast(self) -> bool:
        """True if every series has a forecast from the last closed hour."""
        for part in self._consumer.poll(timeout_ms=50).values():
            for record in part:
                forecast = json.loads(record.value)
                self.published.append(forecast)
                self._published_names.setdefault(forecast["origin_ms"], set()).add(
                    forecast["series_id"]
                )
        return self._published_names.get(self.now_ms - HOUR_MS) == {*SKUS, "total"}

    def served(self) -> str:
        """The model of all partitions' newest forecasts; empty if they differ."""
        keys = [f"sc2:{{{tag}}}:forecast" for tag in (*range(PARTITIONS), "r")]
        models: set[Any] = {self.deployment.redis.hget(key, "model_id") for key in keys}
        return (models.pop() or b"").decode() if len(models) == 1 else ""

    def topic(self, name: str) -> list[dict[str, Any]]:
        """All records of an output topic."""
        return [json.loads(record.value) for record in read_topic(self.deployment.servers, name)]


@pytest.fixture
def deployment_settings() -> dict[str, dict[str, Any]]:
    """Small models, short cool-downs.

    A training ends after some updates, not seconds: trainers get little time on a busy machine.
    """
    return {
        "kafka": {"partitions": PARTITIONS},
        "window": {"idle_timeout": "1s"},
        "model": {
            "horizon": HORIZON, "device": "cpu", "pretrained": False, "quantiles": list(DECILES),
        },
        "trainer": {
            "updates": 120, "max_time": "5m", "origins": 2, "every": "30d", "cooldown": "1s",
        },
        "drift": {"warm_up_days": 5, "cooldown": "2d"},
    }  # fmt: skip


@pytest.fixture
def shop(deployment: Deployment) -> Iterator[Shop]:
    """A shop that has sold nothing yet."""
    with closing(Shop(deployment)) as shop:
        yield shop


@pytest.mark.timeout(2_400)
def test_a_level_shift_and_a_new_season_end_in_a_better_champion(
    shop: Shop, redis_client: Redis
) -> None:
    """Without a person: the alert, the challenger, the swap, and accurate forecasts again."""
    shop.sell(BEFORE, at_once=True)
    shop.deployment.surgecast("trainer", "--once")
    frozen = worn(shop.registry)
    wait_until(lambda: shop.served() == frozen, "the first champion")
    trainer_log = shop.deployment.start("trainer", role="trainer").log
    shop.sell(STABLE)
    assert shop.topic("alerts") == []

    shop.changed = True
    change_ms = shop.now_ms
    while shop.registry.champion() == frozen:
        assert shop.now_ms < change_ms + PATIENCE * DAY_MS
        trade(shop, trainer_log)
    for _ in range(AFTER):  # while the drift lasts, it requests further trainings
        trade(shop, trainer_log)
    champion = shop.registry.champion()
    wait_until(lambda: shop.served() == champion, "the last swap")
    shop.sell(2)

    # the alert came in time and requested the training that changed the champion
    first = shop.topic("alerts")[0]
    assert (first["kind"], first["state"]) == ("drift", "open")
    judged_ms = first["bucket_start_ms"] + DAY_MS
    assert change_ms < judged_ms <= change_ms + 3 * SEASON * HOUR_MS
    notes = [line["note"] for line in shop.registry.audit() if line["action"] == "promote"]
    assert all("requested: drift" in note for note in notes[1:])

    # the swap left no gap and no duplicate
    sent = [record for record in shop.published if record["origin_ms"] >= change_ms]
    closes = Counter(
        (record["series_id"], record["origin_ms"]) for record in sent if record["reason"] == "close"
    )
    assert set(closes.values()) == {1}
    hours = range(change_ms, shop.now_ms, HOUR_MS)
    assert {name for name, _ in closes} == {*SKUS, "total"}
    swaps = {
        (record["series_id"], record["origin_ms"]) for record in sent if record["reason"] == "swap"
    }
    assert {(name, hour) for name in (*SKUS, "total") for hour in hours} <= {*closes, *swaps}
    for name in (*SKUS, "total"):
        models = [record["model_id"] for record in sent if record["series_id"] == name]
        assert len([*groupby(models)]) == len(set(models))

    # its forecasts are better than those of the model that it replaced
    began_ms = min(record["origin_ms"] for record in sent if record["model_id"] == champion)
    after = comparison(shop, redis_client, frozen, sent, from_ms=began_ms)
    assert after["served"] < 0.97 * after["frozen"], after


def worn(registry: Registry) -> str:
    """Promote a copy of the first network that forecasts too little, and return its id.

    With carried seasons a sound network follows the new demand by itself, and none is better.
    """
    first = registry.list()[0]
    network = registry.network(first.model_id)
    heads = network.heads
    with torch.no_grad():
        bias_RYQ = heads.write.bias.view(heads.rank + 1, heads.blocks, heads.n_quantiles)
        bias_RYQ[-1, :, heads.median] -= _TOO_LITTLE
    config = TrainConfig(model=network.config)
    return registry.publish(Trained(network, config, first.manifest.span_ms), promote=True)


def trade(shop: Shop, trainer_log: Path) -> None:
    """Sell for a day, then wait for the end of a training that it caused."""

    def trained() -> bool:
        text = trainer_log.read_text()
        return text.count("training_begins") == text.count("training_ended")

    shop.sell(1)
    wait_until(trained, "the end of a training", seconds=900)


def comparison(
    shop: Shop, redis: Redis, frozen: str, sent: list[dict[str, Any]], *, from_ms: int
) -> dict[str, float]:
    """WQL over the SKUs of forecasts published from `from_ms` on, and of the frozen champion."""
    history = stored_history(redis, largest=len(SKUS), max_span_ms=400 * DAY_MS)
    last_ms = history.end_ms - HORIZON * HOUR_MS
    origins = [*range(from_ms, last_ms + 1, HOUR_MS)]
    assert len(origins) > SEASON
    network = shop.registry.network(frozen)
    model = NetworkForecaster(network, "frozen", quantiles=DECILES, threads=1)
    result = backtest(history, {"frozen": model}, origins)
    newest = {(one["series_id"], one["origin_ms"]): one["units"] for one in sent}
    served_OSHQ = np.array(
        [[newest[name, origin] for name in result.series] for origin in origins], np.float32
    )
    skus = [place for place, name in enumerate(result.series) if name != "total"]
    return {
        "frozen": score(result, result.forecast["frozen"], skus),
        "served": score(result, served_OSHQ, skus),
    }


def score(result: Backtest, forecast_OSHQ: Any, places: list[int]) -> float:
    return wql(
        result.actual_OSH[:, places].reshape(-1),
        forecast_OSHQ[:, places].reshape(-1, len(result.quantiles)),
        result.quantiles,
    )
