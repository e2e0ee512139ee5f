"""A plan announced on its topic reaches the model of every worker, through the store.

Axes: T = buckets, S = series, P = plan columns.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis.asyncio as aioredis
from faust.types import TP
from redis import Redis

from model.config import ModelConfig, TrainConfig
from model.contract import QuantileForecast
from model.durations import DAY_MS
from model.inference.forecaster import NetworkForecaster
from model.inputs.plans import N_PLANS, PROMOTION, Plans
from model.training.dataset import History
from model.training.train import train
from stream.jobs.training.stored_history import stored_history
from stream.serving.model_server import ModelServer
from stream.serving.plan_blocks import PlanReader, no_plans
from stream.serving.stored_plans import StoredPlans
from stream.settings import Settings
from stream.state import keys
from stream.state.history import StoredHistory, read_history
from stream.state.keys import Tag
from tests.support.batches import batch
from tests.support.brokerless import Letters, pipeline_of
from tests.support.model_cases import untrained
from tests.support.services import running_broker, settings_for
from tests.support.stack import WorkerProcess, produce, read_topic, wait_until

pytestmark = pytest.mark.integration

#: A Monday.
START_MS = 1_317_600_000_000
SKUS = ("A", "B", "C")
HORIZON = 7
PROMOTED = (2, 3)


def _taught() -> NetworkForecaster:
    """A network that has seen demand triple on promoted days, of other series than ours."""
    rng = np.random.default_rng(4)
    days, series = 150, 24
    plans_TSP = np.zeros((days + HORIZON, series, N_PLANS), np.float32)
    plans_TSP[..., PROMOTION] = rng.choice(3, plans_TSP.shape[:2], p=(0.8, 0.1, 0.1)) / 2
    values_TSF = np.zeros((days, series, 11), np.float32)
    level_S = rng.uniform(5, 40, series)
    values_TSF[..., 0] = rng.poisson(level_S * (1 + 2 * plans_TSP[:days, :, PROMOTION]))
    values_TSF[..., 2] = 2 * values_TSF[..., 0]
    values_TSF[..., 3] = values_TSF[..., 0] > 0
    names = [f"s{slot}" for slot in range(series)]
    history = History(values_TSF, START_MS, DAY_MS, names, plans=Plans.of_all(plans_TSP))
    model = ModelConfig(
        horizon=HORIZON, bucket_ms=DAY_MS, hidden=16, layers=1, rank=8, dropout=0.0, plans=True
    )
    config = TrainConfig(
        model=model, updates=150, chunk=24, lanes=16, groups=2, origins=6, learning_rate=1e-2
    )
    return NetworkForecaster(train(history, config).network, "taught")


def _settings() -> Settings:
    return Settings(
        kafka={"partitions": 2},
        model={"horizon": HORIZON},
        window={"bucket": "1d", "idle_timeout": "0ms", "allowed_lateness": "0ms"},
        state={"retention": "400d"},
    )


def _orders(days: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    return [
        {
            "event_id": f"{sku}-{day}", "ts": START_MS + day * DAY_MS + 3_600_000 * hour,
            "sku": sku, "quantity": int(rng.poisson(20)) + 1, "unit_price": 2.0,
        }
        for day in range(days)
        for hour, sku in enumerate(SKUS)
    ]  # fmt: skip


def _plan(plan_id: str, first: int, last: int, **fields: Any) -> dict[str, Any]:
    plain = {"plan_id": plan_id, "kind": "promotion", "value": 1.0}
    span = {"start": START_MS + first * DAY_MS, "end": START_MS + last * DAY_MS}
    return plain | span | fields


class Deployment:
    """Ingest over the real store, all orders in partition 0, and what serves of it."""

    def __init__(self, client: Redis, url: str) -> None:
        self.client = client
        self.settings = _settings()
        self.sink = Letters()
        self.connection = aioredis.Redis.from_url(url)
        self.pipeline = pipeline_of(
            self.settings, self.connection, self.sink, now_ms=START_MS + 10_000 * DAY_MS
        )
        info = {
            "bucket_ms": DAY_MS, "partitions": 2, "horizon": HORIZON, "spec_hash": _spec_hash(),
        }  # fmt: skip
        client.set(keys.info(), json.dumps(info))
        self.plans = StoredPlans(client, 2, bucket_ms=DAY_MS)

    async def join(self) -> None:
        topics = ("orders", "plans", "catalog")
        await self.pipeline.resume_offsets({TP(name, p) for name in topics for p in (0, 1)}, 1)

    async def announce(self, *plans: Any, offset: int, partition: int) -> None:
        """Plans as they come from Kafka; a pair of name and None withdraws."""
        values = [None if isinstance(plan, str) else plan for plan in plans]
        named = [plan if isinstance(plan, str) else plan["plan_id"] for plan in plans]
        await self.pipeline.on_plans(
            batch(
                "plans", values, offset=offset, partition=partition,
                keys=[name.encode() for name in named],
            )
        )  # fmt: skip
        await self.pipeline.flush()

    def serving(self, forecaster: NetworkForecaster, plans: PlanReader) -> ModelServer:
        """What serves the store's partitions from their stored history on."""

        def history(tag: Tag, from_ms: int | None, to_ms: int | None) -> Iterator[StoredHistory]:
            return read_history(self.client, tag, bucket_ms=DAY_MS, from_ms=from_ms, to_ms=to_ms)

        return ModelServer(forecaster, history, plans=plans)


def _spec_hash() -> str:
    from model.contract import FeatureSpec

    return FeatureSpec().hash


@pytest.fixture
async def deployment(redis_client: Redis, valkey_url: str) -> Any:
    """An empty store with two partitions, both owned."""
    made = Deployment(redis_client, valkey_url)
    await made.join()
    yield made
    await made.connection.aclose()


def _median(forecast: QuantileForecast | None) -> Any:
    assert forecast is not None
    return forecast.units_SHQ[:, :, 4]


async def test_a_promotion_raises_the_forecast_of_its_sku_in_its_buckets(
    deployment: Deployment,
) -> None:
    """Announced in another partition than the SKU's; withdrawn, it is as if it had not been."""
    days = 60
    forecaster = _taught()
    await deployment.pipeline.on_orders(batch("orders", _orders(days)))
    await deployment.pipeline.flush()
    through = START_MS + (days - 1) * DAY_MS  # the last day is still open
    first = days - 1 + PROMOTED[0]
    plain_SH = _median(deployment.serving(forecaster, no_plans).advance(0, through))

    await deployment.announce(_plan("p", first, first + 2, sku="B"), offset=0, partition=1)
    planned_SH = _median(deployment.serving(forecaster, deployment.plans).advance(0, through))

    ratio_SH = planned_SH / plain_SH
    assert (ratio_SH[SKUS.index("B"), list(PROMOTED)] > 2.0).all()
    untouched_SH = np.delete(ratio_SH, PROMOTED, axis=1)
    assert (untouched_SH == 1.0).all()
    assert (ratio_SH[[0, 2]] == 1.0).all()

    await deployment.announce("p", offset=1, partition=1)
    again_SH = _median(deployment.serving(forecaster, deployment.plans).advance(0, through))
    assert (again_SH == plain_SH).all()


async def test_a_model_that_reads_no_plans_is_not_asked_to(deployment: Deployment) -> None:
    """Not a trip to the store, and no other forecast."""

    def asked(tag: Tag, series: Sequence[str], start_ms: int, buckets: int) -> Plans | None:
        raise AssertionError("plans were asked for")

    await deployment.pipeline.on_orders(batch("orders", _orders(20)))
    await deployment.pipeline.flush()
    forecaster = untrained(horizon=HORIZON, bucket_ms=DAY_MS)

    forecast = deployment.serving(forecaster, asked).advance(0, START_MS + 19 * DAY_MS)

    assert forecast is not None


async def test_states_carried_close_by_close_are_those_of_a_warm_up(
    deployment: Deployment,
) -> None:
    """Where all plans are known in time; a category's, once the catalog is read."""
    forecaster = _taught()
    entries = [{"sku": sku, "category": "Bags"} for sku in SKUS[:2]]
    await deployment.pipeline.on_catalog(batch("catalog", entries))
    await deployment.announce(
        _plan("a", 5, 12, category="Bags", value=0.5),
        _plan("b", 10, 30, sku="C", value=0.25),
        _plan("c", 28, 90, kind="event", value=None),
        offset=0, partition=0,
    )  # fmt: skip
    carried = deployment.serving(forecaster, deployment.plans)
    orders = _orders(30)
    for day in range(30):
        lines = orders[3 * day : 3 * day + 3]
        await deployment.pipeline.on_orders(batch("orders", lines, offset=3 * day))
        await deployment.pipeline.flush()
        if day:
            last = carried.advance(0, START_MS + day * DAY_MS)

    anew = deployment.serving(forecaster, deployment.plans).advance(0, START_MS + 29 * DAY_MS)
    blind = deployment.serving(forecaster, no_plans).advance(0, START_MS + 29 * DAY_MS)

    np.testing.assert_allclose(_median(last), _median(anew), rtol=1e-4, atol=1e-4)
    assert np.abs(_median(blind) / _median(anew) - 1).max() > 0.01


async def test_bad_plans_are_dead_letters_and_the_rest_is_kept(deployment: Deployment) -> None:
    await deployment.announce(
        _plan("bad", 3, 1), _plan("fine", 1, 3), "never-announced", offset=0, partition=1
    )

    (letter,) = (json.loads(value) for _, value in deployment.sink.letters)
    assert (letter["topic"], letter["reason"]) == ("plans", "invalid_span")
    stored: Any = deployment.client.get(keys.of(1, "plans"))
    assert [plan["plan_id"] for plan in json.loads(stored)] == ["fine"]
    meta: Any = deployment.client.hgetall(keys.of(1, "meta"))
    assert meta[b"offset:plans"] == b"3"


async def test_the_trainer_learns_from_the_plans_of_the_past(deployment: Deployment) -> None:
    """Series of all partitions and roll-ups, and one horizon beyond the last closed bucket."""
    await deployment.pipeline.on_orders(batch("orders", _orders(30)))
    await deployment.pipeline.on_orders(
        batch("orders", [line | {"sku": f"{line['sku']}2"} for line in _orders(30)], partition=1)
    )
    await deployment.announce(
        _plan("a", 5, 7, sku="A2", value=0.5), _plan("b", 29, 31, value=0.1), offset=0, partition=0
    )

    history = stored_history(deployment.client, largest=50, max_span_ms=400 * DAY_MS)

    assert history.plans is not None
    plans_TSP = history.plans.dense(len(history.series))
    assert len(plans_TSP) == history.buckets + HORIZON
    promoted = {
        (history.series[slot], t): round(float(plans_TSP[t, slot, PROMOTION]), 3)
        for t, slot in np.argwhere(plans_TSP[:, :, PROMOTION]).tolist()
    }
    everyone = {(name, t): 0.1 for name in history.series for t in (29, 30)}
    assert promoted == everyone | {("A2", 5): 0.5, ("A2", 6): 0.5}


def test_a_worker_reads_the_topic(redis_client: Redis, valkey_url: str, tmp_path: Path) -> None:
    """Through a real broker: plans in the store of their partitions, the bad one a dead letter."""
    with running_broker("tansu", tmp_path) as broker:
        settings = settings_for(
            broker, tmp_path, kafka={"session_timeout": "4s"}, redis={"url": valkey_url}
        )
        servers = settings.kafka.bootstrap_servers
        assert servers is not None
        plans = [_plan(f"p{number}", 1, 3, sku="A") for number in range(8)]
        rows = [(plan["plan_id"].encode(), json.dumps(plan).encode()) for plan in plans]
        produce(servers, "plans", [*rows, (b"p0", None), (b"worse", b"{}")])
        worker = WorkerProcess(settings, tmp_path / "worker.log")

        def stored() -> set[str]:
            blobs: Any = [
                redis_client.get(keys.of(number, "plans"))
                for number in range(settings.kafka.partitions)
            ]
            return {plan["plan_id"] for blob in blobs if blob for plan in json.loads(blob)}

        try:
            wanted = {f"p{number}" for number in range(1, 8)}
            wait_until(lambda: stored() == wanted, "seven plans in the store")
            letters = [json.loads(record.value) for record in read_topic(servers, "dead-letter")]
        finally:
            worker.kill()

    assert [(letter["topic"], letter["reason"]) for letter in letters] == [
        ("plans", "missing_field")
    ]
