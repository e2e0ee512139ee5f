"""A plan announced on its topic reaches the model of every worker through the store.

Axes: T = buckets, S = series, P = plan columns.
"""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
from redis import Redis

from model.config import ModelConfig, TrainConfig
from model.contract import QuantileForecast
from model.durations import DAY_MS, HOUR_MS
from model.inference.forecaster import NetworkForecaster
from model.inputs.plans import N_PLANS, PROMOTION, Plans
from model.training.dataset import History
from model.training.train import train
from stream.jobs.training.stored_history import stored_history
from stream.serving.plan_blocks import no_plans
from stream.serving.stored_plans import StoredPlans
from stream.state import keys
from stream.state.keys import Tag
from tests.support.batches import batch
from tests.support.deployments import Deployment
from tests.support.model_cases import untrained
from tests.support.samples import START_MS
from tests.support.stack import produce, read_topic, wait_until
from tests.support.stored_ingest import HORIZON, StoredIngest

SKUS = ("A", "B", "C")
PROMOTED = (2, 3)


def _trained() -> NetworkForecaster:
    """A network trained on other series, whose demand multiplies on promoted days."""
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
    history = History(values_TSF, START_MS, DAY_MS, names, plans=Plans.from_dense(plans_TSP))
    model = ModelConfig(
        horizon=HORIZON, bucket_ms=DAY_MS, hidden=16, layers=1, rank=8, dropout=0.0, plans=True
    )
    config = TrainConfig(
        model=model, updates=400, chunk=24, lanes=16, groups=2, origins=6, learning_rate=1e-2
    )
    return NetworkForecaster(train(history, config).network, "trained")


def _orders(days: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    return [
        {
            "event_id": f"{sku}-{day}", "ts": START_MS + day * DAY_MS + HOUR_MS * hour,
            "sku": sku, "quantity": int(rng.poisson(20)) + 1, "unit_price": 2.0,
        }
        for day in range(days)
        for hour, sku in enumerate(SKUS)
    ]  # fmt: skip


def _plan(plan_id: str, first: int, last: int, **fields: Any) -> dict[str, Any]:
    plain = {"plan_id": plan_id, "kind": "promotion", "value": 1.0}
    span = {"start": START_MS + first * DAY_MS, "end": START_MS + last * DAY_MS}
    return plain | span | fields


class PlannedIngest(StoredIngest):
    """Two partitions, all orders in the first."""

    def __init__(self, client: Redis, url: str) -> None:
        super().__init__(client, url, "orders", "plans", "catalog", partitions=2)
        self.plans = StoredPlans(client, 2, bucket_ms=DAY_MS)

    async def announce(self, *plans: Any, offset: int, partition: int) -> None:
        """Count records of the topic `plans`; a string is the name of a withdrawn plan."""
        values = [None if isinstance(plan, str) else plan for plan in plans]
        named = [plan if isinstance(plan, str) else plan["plan_id"] for plan in plans]
        await self.pipeline.on_plans(
            batch(
                "plans", values, offset=offset, partition=partition,
                keys=[name.encode() for name in named],
            )
        )  # fmt: skip
        await self.pipeline.flush()


@pytest.fixture
async def ingest(redis_client: Redis, valkey_url: str) -> AsyncIterator[PlannedIngest]:
    """A worker's ingest over an empty store."""
    made = PlannedIngest(redis_client, valkey_url)
    await made.start()
    yield made
    await made.stop()


def _median(forecast: QuantileForecast | None) -> Any:
    assert forecast is not None
    return forecast.units_SHQ[:, :, 4]


async def test_a_promotion_raises_the_forecast_of_its_sku_in_its_buckets(
    ingest: PlannedIngest,
) -> None:
    """It is announced in another partition than the SKU's; its withdrawal undoes all of it."""
    days = 60
    forecaster = _trained()
    await ingest.pipeline.on_orders(batch("orders", _orders(days)))
    await ingest.pipeline.flush()
    through = START_MS + (days - 1) * DAY_MS  # the last day is still open
    first = days - 1 + PROMOTED[0]
    plain_SH = _median(ingest.server(forecaster, plans=no_plans).advance(0, through))

    await ingest.announce(_plan("p", first, first + 2, sku="B"), offset=0, partition=1)
    planned_SH = _median(ingest.server(forecaster, plans=ingest.plans).advance(0, through))

    ratio_SH = planned_SH / plain_SH
    assert (ratio_SH[SKUS.index("B"), list(PROMOTED)] > 1.5).all()
    untouched_SH = np.delete(ratio_SH, PROMOTED, axis=1)
    assert (untouched_SH == 1.0).all()
    assert (ratio_SH[[0, 2]] == 1.0).all()

    await ingest.announce("p", offset=1, partition=1)
    withdrawn_SH = _median(ingest.server(forecaster, plans=ingest.plans).advance(0, through))
    assert (withdrawn_SH == plain_SH).all()


async def test_no_plans_are_read_for_a_model_without_them(ingest: PlannedIngest) -> None:
    """The store is not read for plans."""

    def refuse(tag: Tag, series: Sequence[str], start_ms: int, buckets: int) -> Plans | None:
        raise AssertionError("plans were read")

    await ingest.pipeline.on_orders(batch("orders", _orders(20)))
    await ingest.pipeline.flush()
    forecaster = untrained(horizon=HORIZON, bucket_ms=DAY_MS)

    forecast = ingest.server(forecaster, plans=refuse).advance(0, START_MS + 19 * DAY_MS)

    assert forecast is not None


async def test_carried_states_equal_those_of_a_warm_up(
    ingest: PlannedIngest,
) -> None:
    """All plans are known in time, those of a category once the catalog is read."""
    forecaster = _trained()
    entries = [{"sku": sku, "category": "Bags"} for sku in SKUS[:2]]
    await ingest.pipeline.on_catalog(batch("catalog", entries))
    await ingest.announce(
        _plan("a", 5, 12, category="Bags", value=0.5),
        _plan("b", 10, 30, sku="C", value=0.25),
        _plan("c", 28, 90, kind="event", value=None),
        offset=0, partition=0,
    )  # fmt: skip
    carried = ingest.server(forecaster, plans=ingest.plans)
    orders = _orders(30)
    for day in range(30):
        lines = orders[3 * day : 3 * day + 3]
        await ingest.pipeline.on_orders(batch("orders", lines, offset=3 * day))
        await ingest.pipeline.flush()
        if day:
            last = carried.advance(0, START_MS + day * DAY_MS)

    warmed_up = ingest.server(forecaster, plans=ingest.plans).advance(0, START_MS + 29 * DAY_MS)
    blind = ingest.server(forecaster, plans=no_plans).advance(0, START_MS + 29 * DAY_MS)

    np.testing.assert_allclose(_median(last), _median(warmed_up), rtol=1e-4, atol=1e-4)
    assert np.abs(_median(blind) / _median(warmed_up) - 1).max() > 0.01


async def test_bad_plans_are_dead_letters_and_the_rest_is_kept(ingest: PlannedIngest) -> None:
    await ingest.announce(
        _plan("bad", 3, 1), _plan("fine", 1, 3), "never-announced", offset=0, partition=1
    )

    (letter,) = ingest.topics.read("dead-letter")
    assert (letter["topic"], letter["reason"]) == ("plans", "invalid_span")
    stored: Any = ingest.client.get(keys.of(1, "plans"))
    assert [plan["plan_id"] for plan in json.loads(stored)] == ["fine"]
    meta: Any = ingest.client.hgetall(keys.of(1, "meta"))
    assert meta[b"offset:plans"] == b"3"


async def test_the_trainer_learns_from_the_plans_of_the_past(ingest: PlannedIngest) -> None:
    """Plans cover the series of all partitions, roll-ups, and one horizon beyond the history."""
    await ingest.pipeline.on_orders(batch("orders", _orders(30)))
    await ingest.pipeline.on_orders(
        batch("orders", [line | {"sku": f"{line['sku']}2"} for line in _orders(30)], partition=1)
    )
    await ingest.announce(
        _plan("a", 5, 7, sku="A2", value=0.5), _plan("b", 29, 31, value=0.1), offset=0, partition=0
    )

    history = stored_history(ingest.client, largest=50, max_span_ms=400 * DAY_MS)

    assert history.plans is not None
    plans_TSP = history.plans.dense(len(history.series))
    assert len(plans_TSP) == history.buckets + HORIZON
    promoted = {
        (history.series[slot], t): round(float(plans_TSP[t, slot, PROMOTION]), 3)
        for t, slot in np.argwhere(plans_TSP[:, :, PROMOTION]).tolist()
    }
    everyone = {(name, t): 0.1 for name in history.series for t in (29, 30)}
    assert promoted == everyone | {("A2", 5): 0.5, ("A2", 6): 0.5}


def test_a_worker_reads_the_topic(deployment: Deployment, redis_client: Redis) -> None:
    """Plans are stored in their partitions; the bad one becomes a dead letter."""
    plans = [_plan(f"p{number}", 1, 3, sku="A") for number in range(8)]
    rows = [(plan["plan_id"].encode(), json.dumps(plan).encode()) for plan in plans]
    produce(deployment.servers, "plans", [*rows, (b"p0", None), (b"worse", b"{}")])
    deployment.start()

    def stored() -> set[str]:
        blobs: Any = [
            redis_client.get(keys.of(number, "plans")) for number in range(deployment.partitions)
        ]
        return {plan["plan_id"] for blob in blobs if blob for plan in json.loads(blob)}

    expected = {f"p{number}" for number in range(1, 8)}
    wait_until(lambda: stored() == expected, "seven plans in the store")
    letters = [json.loads(record.value) for record in read_topic(deployment.servers, "dead-letter")]

    assert [(letter["topic"], letter["reason"]) for letter in letters] == [
        ("plans", "missing_field")
    ]
