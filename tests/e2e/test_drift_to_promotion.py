"""Demand changes for good: drift is noticed, a challenger is trained, promoted and swapped in."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition
from redis import Redis

from model.durations import DAY_MS, HOUR_MS
from model.evaluation.backtest import Backtest, backtest
from model.evaluation.metrics import wql
from model.inference.forecaster import NetworkForecaster
from stream.jobs.training.stored_history import stored_history
from stream.registry.model_registry import Registry
from stream.settings import child_environment
from tests.support.samples import START_MS
from tests.support.services import running_broker, settings_for
from tests.support.stack import SURGECAST, WorkerProcess, read_topic, wait_until

pytestmark = pytest.mark.e2e

#: Hours between one forecast and what it is compared by; also buckets of a season.
HORIZON, SEASON = 12, 24
PARTITIONS = 2
SKUS = [f"S{i:02d}" for i in range(24)]
#: Days before anything changes: of history without a model, then with the first champion.
BEFORE, STABLE = 28, 8
#: Days after which the new demand must have led to a new champion; days it then goes on.
PATIENCE, AFTER = 8, 5


class Shop:
    """A deployment with a worker, and a shop that sells hour by hour."""

    def __init__(self, folder: Path, redis: Redis, url: str, stack: ExitStack) -> None:
        broker = stack.enter_context(running_broker("tansu", folder))
        self.settings = settings_for(
            broker,
            folder,
            kafka={"session_timeout": "6s", "partitions": PARTITIONS},
            redis={"url": url},
            window={"idle_timeout": "1s"},
            state={"retention": "400d"},
            model={"horizon": HORIZON, "device": "cpu"},
            # updates, not seconds: trainers take the time nobody needs, on a busy machine little
            trainer={
                "updates": 120, "max_time": "5m",
                "origins": 2, "every": "30d", "cooldown": "1s",
            },
            drift={"warm_up_days": 5, "cooldown": "2d"},
        )  # fmt: skip
        self.servers = broker.bootstrap_servers
        self.registry = Registry(self.settings.registry_path)
        self.folder = folder
        self.changed = False
        self.hours = 0
        self._redis = redis
        self._stack = stack
        self._rng = np.random.default_rng(5)
        self._level_S = self._rng.lognormal(2.0, 0.5, len(SKUS))
        self._producer = KafkaProducer(bootstrap_servers=self.servers, linger_ms=5, acks="all")
        stack.callback(self._producer.close)
        #: All that came out of the topic `forecasts`, in the order read.
        self.sent: list[dict[str, Any]] = []
        self._sent_names: dict[int, set[str]] = {}
        self._consumer = KafkaConsumer(bootstrap_servers=self.servers)
        stack.callback(self._consumer.close)
        places = self._consumer.partitions_for_topic("forecasts") or ()
        self._consumer.assign([TopicPartition("forecasts", place) for place in places])
        self._consumer.seek_to_beginning()
        self.start("worker")

    def start(self, role: str) -> Path:
        """Run a role; the path of its log."""
        log = self.folder / f"{role}.log"
        self._stack.callback(WorkerProcess(self.settings, log, role=role).kill)
        return log

    @property
    def now_ms(self) -> int:
        """Start of the hour that is sold next."""
        return START_MS + self.hours * HOUR_MS

    def sell(self, days: int, *, at_once: bool = False) -> None:
        """Let days pass; wait for each hour's forecasts, or for the last hour's."""
        for hour in range(24 * days):
            self._send_hour()
            if not at_once or hour == 24 * days - 1:
                self._producer.flush()
                wait_until(self._forecast, f"the forecasts of hour {self.hours}")

    def _send_hour(self) -> None:
        hour = self.hours % 24
        # one peak a day; then two, at other hours, and more than twice as much
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
        """Whether the forecasts of all series from the last hour that closed have been sent."""
        for part in self._consumer.poll(timeout_ms=50).values():
            for record in part:
                forecast = json.loads(record.value)
                self.sent.append(forecast)
                self._sent_names.setdefault(forecast["origin_ms"], set()).add(forecast["series_id"])
        return self._sent_names.get(self.now_ms - HOUR_MS) == {*SKUS, "total"}

    def served(self) -> str:
        """The model all partitions' newest forecasts are of; empty where they differ."""
        keys = [f"sc2:{{{tag}}}:forecast" for tag in (*range(PARTITIONS), "r")]
        models: set[Any] = {self._redis.hget(key, "model_id") for key in keys}
        return (models.pop() or b"").decode() if len(models) == 1 else ""

    def topic(self, name: str) -> list[dict[str, Any]]:
        """All records of an output topic."""
        return [json.loads(record.value) for record in read_topic(self.servers, name)]


@pytest.fixture
def shop(tmp_path: Path, valkey_url: str, redis_client: Redis) -> Iterator[Shop]:
    with ExitStack() as stack:
        yield Shop(tmp_path, redis_client, valkey_url, stack)


@pytest.mark.timeout(1_200)
def test_a_level_shift_and_a_new_season_end_in_a_better_champion(
    shop: Shop, redis_client: Redis
) -> None:
    """Nobody looks: the alert, the challenger, the swap, and forecasts that are good again."""
    shop.sell(BEFORE, at_once=True)
    subprocess.run(
        [SURGECAST, "trainer", "--once"], env=child_environment(shop.settings), check=True
    )
    frozen = shop.registry.champion()
    assert frozen is not None
    wait_until(lambda: shop.served() == frozen, "the first champion")
    trainer_log = shop.start("trainer")
    shop.sell(STABLE)
    assert shop.topic("alerts") == []

    shop.changed = True
    change_ms = shop.now_ms
    while shop.registry.champion() == frozen:
        assert shop.now_ms < change_ms + PATIENCE * DAY_MS
        trade(shop, trainer_log)
    for _ in range(AFTER):  # while the drift lasts, it asks again
        trade(shop, trainer_log)
    champion = shop.registry.champion()
    wait_until(lambda: shop.served() == champion, "the last swap")
    shop.sell(2)

    # drift was raised in time, and asked for the training that changed the champion
    first = shop.topic("alerts")[0]
    assert (first["kind"], first["state"]) == ("drift", "open")
    judged_ms = first["bucket_start_ms"] + DAY_MS
    assert change_ms < judged_ms <= change_ms + 3 * SEASON * HOUR_MS
    notes = [line["note"] for line in shop.registry.audit() if line["action"] == "promote"]
    assert all("asked for: drift" in note for note in notes[1:])

    # the swap left no gap, and nothing twice
    sent = [record for record in shop.sent if record["origin_ms"] >= change_ms]
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

    # and it was worth it: beside the model that would have stayed
    began_ms = min(record["origin_ms"] for record in sent if record["model_id"] == champion)
    after = comparison(shop, redis_client, frozen, sent, from_ms=began_ms)
    assert after["served"] < 0.9 * after["frozen"], after


def trade(shop: Shop, trainer_log: Path) -> None:
    """A day, and the end of the training it may have led to."""

    def at_rest() -> bool:
        text = trainer_log.read_text()
        return text.count("training_begins") == text.count("training_ended")

    shop.sell(1)
    wait_until(at_rest, "the end of a training", seconds=330)


def comparison(
    shop: Shop, redis: Redis, frozen: str, sent: list[dict[str, Any]], *, from_ms: int
) -> dict[str, float]:
    """WQL over the SKUs of what was sent from `from_ms` on, and of the frozen champion there."""
    history = stored_history(redis, largest=len(SKUS), max_span_ms=400 * DAY_MS)
    last_ms = history.end_ms - HORIZON * HOUR_MS
    origins = [*range(from_ms, last_ms + 1, HOUR_MS)]
    assert len(origins) > SEASON
    model = NetworkForecaster(shop.registry.network(frozen), "frozen", threads=1)
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
