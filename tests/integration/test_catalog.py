"""What the catalog says reaches the store and every model, of products without an event too.

Axes: T = buckets, S = series, H = horizon, Q = quantiles.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import redis.asyncio as aioredis
from faust.types import TP
from redis import Redis

from model.config import ModelConfig, TrainConfig
from model.contract import FeatureSpec
from model.durations import DAY_MS
from model.inference.forecaster import NetworkForecaster
from model.inputs.static_features import row_of, static_row
from model.training.dataset import History
from model.training.train import train
from stream.decoding.catalog import Listing
from stream.ingest.pipeline import Pipeline
from stream.jobs.training.stored_history import stored_history
from stream.serving.model_server import ModelServer
from stream.serving.static_features import static_reader, stored_listings
from stream.settings import Settings
from stream.state import keys
from stream.state.history import StoredHistory, read_history
from stream.state.keys import Tag
from tests.support.batches import batch
from tests.support.brokerless import Letters, pipeline_of

pytestmark = pytest.mark.integration

#: A Monday.
START_MS = 1_317_600_000_000
HORIZON = 7
LEVELS = {"bags": 3.0, "garden": 30.0}


def _taught() -> NetworkForecaster:
    """A network that has seen products of two categories launched, of other names than ours."""
    rng = np.random.default_rng(4)
    days, series = 150, 60
    values_TSF = np.zeros((days, series, 11), np.float32)
    rows = []
    for slot in range(series):
        category = list(LEVELS)[slot % 2]
        launch = 10 + slot
        first = launch + int(rng.integers(0, 4))
        level = LEVELS[category] * rng.gamma(2.0, 0.5)
        if slot % 7:
            values_TSF[first:, slot, 0] = rng.poisson(level, days - first)
        rows.append(static_row(category, launched_ms=START_MS + launch * DAY_MS))
    values_TSF[..., 2] = 2 * values_TSF[..., 0]
    values_TSF[..., 3] = values_TSF[..., 0] > 0
    names = [f"s{slot}" for slot in range(series)]
    history = History(values_TSF, START_MS, DAY_MS, names, np.stack(rows))
    model = ModelConfig(
        horizon=HORIZON, bucket_ms=DAY_MS, hidden=12, layers=1, rank=8, dropout=0.0, prior=True
    )
    config = TrainConfig(
        model=model, updates=120, chunk=24, lanes=16, groups=2, origins=6, learning_rate=1e-2
    )
    return NetworkForecaster(train(history, config).network, "taught", threads=1)


class Deployment:
    """Ingest over the real store, all in partition 0, and what serves of it."""

    def __init__(self, client: Redis, url: str, *, catalog_series: bool) -> None:
        self.client = client
        self.sink = Letters()
        self.url = url
        self.settings = Settings(
            kafka={"partitions": 1},
            model={"horizon": HORIZON},
            window={"bucket": "1d", "idle_timeout": "0ms", "allowed_lateness": "0ms"},
            state={"retention": "400d"},
            ingest={"catalog_series": catalog_series},
        )
        info = {
            "bucket_ms": DAY_MS, "partitions": 1, "horizon": HORIZON,
            "spec_hash": FeatureSpec().hash,
        }  # fmt: skip
        client.set(keys.info(), json.dumps(info))
        self.connection: aioredis.Redis
        self.pipeline: Pipeline

    async def start(self) -> None:
        """A worker that takes over."""
        self.connection = aioredis.Redis.from_url(self.url)
        self.pipeline = pipeline_of(
            self.settings, self.connection, self.sink, now_ms=START_MS + 1_000 * DAY_MS
        )
        await self.pipeline.resume_offsets({TP("orders", 0), TP("catalog", 0)}, 1)

    async def sell(self, first: int, last: int, *skus: str) -> None:
        """Orders of every day from `first` to `last` (left out) of some SKUs of the garden."""
        rng = np.random.default_rng(first)
        lines = [
            {
                "event_id": f"{sku}-{day}", "ts": START_MS + day * DAY_MS, "sku": sku,
                "quantity": int(rng.poisson(30)) + 1, "unit_price": 2.0,
            }
            for day in range(first, last) for sku in skus
        ]  # fmt: skip
        at = self.pipeline.owned[0].partition.positions.get("orders", 0)
        await self.pipeline.on_orders(batch("orders", lines, offset=at))
        await self.pipeline.flush()

    async def announce(self, *entries: Any, keys: list[Any] | None = None) -> None:
        """Catalog entries as they come from Kafka."""
        at = self.pipeline.owned[0].partition.positions.get("catalog", 0)
        await self.pipeline.on_catalog(batch("catalog", list(entries), offset=at, keys=keys))
        await self.pipeline.flush()

    def serving(self, forecaster: NetworkForecaster) -> ModelServer:
        def history(tag: Tag, from_ms: int | None, to_ms: int | None) -> Iterator[StoredHistory]:
            return read_history(self.client, tag, bucket_ms=DAY_MS, from_ms=from_ms, to_ms=to_ms)

        return ModelServer(forecaster, history, static=static_reader(self.client))

    @property
    def series(self) -> list[str]:
        found: Any = self.client.lrange(keys.of(0, "series"), 0, -1)
        return [name.decode() for name in found]


@pytest.fixture
async def deployment(redis_client: Redis, valkey_url: str, request: pytest.FixtureRequest) -> Any:
    """An empty store with one partition, owned."""
    made = Deployment(redis_client, valkey_url, catalog_series=getattr(request, "param", True))
    await made.start()
    yield made
    await made.connection.aclose()


def _units(serving: ModelServer, day: int) -> Any:
    made = serving.advance(0, START_MS + day * DAY_MS)
    assert made is not None
    return made.units_SHQ


async def test_a_product_without_an_event_is_forecast_from_the_catalog(
    deployment: Deployment,
) -> None:
    """From the next bucket on, about as its category, in a wider band than an established one."""
    forecaster = _taught()
    await deployment.announce({"sku": "old", "category": "garden"})
    await deployment.sell(0, 60, "old")
    await deployment.announce(
        {"sku": "new", "category": "garden", "price": 2.0},
        {"sku": "cheap", "category": "bags", "price": 2.0},
        {"sku": "later", "category": "garden", "launched_at": START_MS + 64 * DAY_MS},
    )
    await deployment.sell(60, 62, "old")
    carried = deployment.serving(forecaster)
    _units(carried, 60)
    units_SHQ = _units(carried, 61)

    assert deployment.series == ["old", "new", "cheap", "later"]
    assert stored_listings(deployment.client, 0)["new"] == Listing(
        None, 2.0, START_MS + 59 * DAY_MS
    )
    old, new, cheap, later = units_SHQ
    relative = [(band_HQ[:, -1] - band_HQ[:, 0]) / band_HQ.mean(axis=1) for band_HQ in (new, old)]
    assert (relative[0] > relative[1]).all()
    assert 10 < new.mean() < 60
    assert cheap.mean() < new.mean() / 3
    assert not later[:3].any()
    assert later[3, -1] > 0
    anew = _units(deployment.serving(forecaster), 61)
    np.testing.assert_allclose(units_SHQ, anew, rtol=1e-4, atol=1e-4)


async def test_its_first_event_makes_it_a_newcomer_and_a_successor_goes_on(
    deployment: Deployment,
) -> None:
    """The same slot, and features that know nothing of the days before."""
    forecaster = _taught()
    await deployment.sell(0, 30, "old")
    await deployment.announce({"sku": "new", "category": "garden"})
    await deployment.sell(30, 31, "old")
    await deployment.connection.aclose()
    await deployment.start()
    partition = deployment.pipeline.owned[0].partition
    assert partition.listed == 1
    assert partition.series.ids == ["old", "new"]
    await deployment.announce({"sku": "new", "brand": "Acme"})
    await deployment.sell(31, 34, "old", "new")

    assert deployment.series == ["old", "new"]
    assert partition.listings["new"] == Listing("Acme", None, START_MS + 29 * DAY_MS)
    (stored,) = read_history(deployment.client, 0, bucket_ms=DAY_MS)
    assert not stored.values_TSF[:31, 1].any()
    assert stored.values_TSF[31:, 1, 0].all()
    carried = deployment.serving(forecaster)
    for day in range(29, 34):
        units_SHQ = _units(carried, day)
    anew = _units(deployment.serving(forecaster), 33)
    np.testing.assert_allclose(units_SHQ, anew, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("deployment", [False], indirect=True)
async def test_the_catalog_begins_no_series_unless_asked_to(deployment: Deployment) -> None:
    await deployment.sell(0, 3, "old")
    await deployment.announce({"sku": "new", "category": "garden", "price": 2.0})
    await deployment.sell(3, 5, "old")

    assert deployment.series == ["old"]
    assert stored_listings(deployment.client, 0) == {"new": Listing(price=2.0)}
    assert not deployment.client.hexists(keys.of(0, "meta"), "listed")


@pytest.mark.parametrize("deployment", [False], indirect=True)
async def test_all_of_an_entry_is_stored_with_its_offset_and_the_bad_is_a_dead_letter(
    deployment: Deployment,
) -> None:
    """And the trainer is told of it."""
    launched_ms = START_MS + DAY_MS
    await deployment.announce(
        {"sku": "A", "category": "bags", "brand": "Acme", "price": 2.5, "launched_at": launched_ms},
        {"sku": "A", "category": "toys", "price": -1.0},
        {"sku": "A", "price": 3.0},
        None,
        keys=[b"A"] * 4,
    )
    await deployment.sell(0, 3, "A")

    (letter,) = (json.loads(value) for _, value in deployment.sink.letters)
    assert (letter["topic"], letter["reason"], letter["offset"]) == ("catalog", "negative_price", 1)
    stored: Any = deployment.client.hgetall(keys.of(0, "listings"))
    assert stored == {b"A": f'["Acme",3.0,{launched_ms}]'.encode()}
    assert deployment.client.hget(keys.of(0, "meta"), "offset:catalog") == b"4"
    told_SX = static_reader(deployment.client)(0, ["A"])
    expected = static_row("bags", None, "Acme", 3.0, launched_ms)
    np.testing.assert_array_equal(told_SX[0], expected)
    assert told_SX[0, 2] == row_of("brand", "Acme")


def test_the_trainer_is_told_of_brand_price_and_launch(redis_client: Redis) -> None:
    from tests.support.seeding import Shop, stocked

    shop: Shop = stocked(redis_client, days=3, n_series=12, partitions=2, horizon=6)
    name = shop.names[0]
    for tag in range(2):
        listing = Listing("Acme", 3.0, 5 * DAY_MS)
        redis_client.hset(keys.of(tag, "listings"), name, listing.stored())
    history = stored_history(redis_client, largest=12, max_span_ms=365 * DAY_MS)

    told = dict(zip(history.series, history.told_SX[:, 2:].tolist(), strict=True))
    assert told[name] == [row_of("brand", "Acme"), 3.0, 5.0]
    assert told[shop.names[1]] == told["total"] == [0, 0, 0]
