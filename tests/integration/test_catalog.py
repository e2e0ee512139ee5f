"""The catalog reaches the store and every model, also for products without an event.

Axes: T = buckets, S = series, H = horizon, Q = quantiles.
"""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from redis import Redis

from model.config import ModelConfig, TrainConfig
from model.durations import DAY_MS
from model.inference.forecaster import NetworkForecaster
from model.inputs.static_features import row_of, static_row
from model.training.dataset import History
from model.training.train import train
from stream.decoding.catalog import Listing
from stream.jobs.training.stored_history import stored_history
from stream.serving.model_server import ModelServer
from stream.serving.static_features import static_reader, stored_listings
from stream.state import keys
from stream.state.history import read_history
from tests.support.batches import batch
from tests.support.samples import START_MS
from tests.support.seeding import stocked
from tests.support.stored_ingest import HORIZON, StoredIngest

LEVELS = {"bags": 3.0, "garden": 30.0}


def _trained() -> NetworkForecaster:
    """A network trained on launches of other products in two categories."""
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
    return NetworkForecaster(train(history, config).network, "trained", threads=1)


class Shop(StoredIngest):
    """A worker over one partition, and the shop that feeds it."""

    def __init__(self, client: Redis, url: str, *, catalog_series: bool) -> None:
        super().__init__(
            client, url, "orders", "catalog", partitions=1, catalog_series=catalog_series
        )

    async def sell(self, first: int, last: int, *skus: str) -> None:
        """Count orders of some SKUs on every day in [first, last)."""
        rng = np.random.default_rng(first)
        lines = [
            {
                "event_id": f"{sku}-{day}", "ts": START_MS + day * DAY_MS, "sku": sku,
                "quantity": int(rng.poisson(30)) + 1, "unit_price": 2.0,
            }
            for day in range(first, last) for sku in skus
        ]  # fmt: skip
        at = self.pipeline.owner.owned[0].partition.state.positions.get("orders", 0)
        await self.pipeline.on_orders(batch("orders", lines, offset=at))
        await self.pipeline.flush()

    async def announce(self, *entries: Any, keys: list[Any] | None = None) -> None:
        """Count records of the topic `catalog`."""
        at = self.pipeline.owner.owned[0].partition.state.positions.get("catalog", 0)
        await self.pipeline.on_catalog(batch("catalog", list(entries), offset=at, keys=keys))
        await self.pipeline.flush()

    def serving(self, forecaster: NetworkForecaster) -> ModelServer:
        """A model server that reads static features of the catalog."""
        return self.server(forecaster, static=static_reader(self.client))

    @property
    def series(self) -> list[str]:
        """Stored series by slot."""
        found: Any = self.client.lrange(keys.of(0, "series"), 0, -1)
        return [name.decode() for name in found]


@pytest.fixture
async def shop(
    redis_client: Redis, valkey_url: str, request: pytest.FixtureRequest
) -> AsyncIterator[Shop]:
    """A worker over an empty store; its catalog begins series unless the parameter is False."""
    made = Shop(redis_client, valkey_url, catalog_series=getattr(request, "param", True))
    await made.start()
    yield made
    await made.stop()


def _units(serving: ModelServer, day: int) -> Any:
    made = serving.advance(0, START_MS + day * DAY_MS)
    assert made is not None
    return made.units_SHQ


async def test_a_product_without_an_event_is_forecast_from_the_catalog(
    shop: Shop,
) -> None:
    """From the next bucket on, near its category, with a wider band than an established product."""
    forecaster = _trained()
    await shop.announce({"sku": "old", "category": "garden"})
    await shop.sell(0, 60, "old")
    await shop.announce(
        {"sku": "new", "category": "garden", "price": 2.0},
        {"sku": "cheap", "category": "bags", "price": 2.0},
        {"sku": "later", "category": "garden", "launched_at": START_MS + 64 * DAY_MS},
    )
    await shop.sell(60, 62, "old")
    carried = shop.serving(forecaster)
    _units(carried, 60)
    units_SHQ = _units(carried, 61)

    assert shop.series == ["old", "new", "cheap", "later"]
    assert stored_listings(shop.client, 0)["new"] == Listing(None, 2.0, START_MS + 59 * DAY_MS)
    old, new, cheap, later = units_SHQ
    relative = [(band_HQ[:, -1] - band_HQ[:, 0]) / band_HQ.mean(axis=1) for band_HQ in (new, old)]
    assert (relative[0] > relative[1]).all()
    assert 10 < new.mean() < 60
    assert cheap.mean() < new.mean() / 3
    assert not later[:3].any()
    assert later[3, -1] > 0
    warmed_up = _units(shop.serving(forecaster), 61)
    np.testing.assert_allclose(units_SHQ, warmed_up, rtol=1e-4, atol=1e-4)


async def test_a_listed_product_keeps_its_slot_after_its_first_event_and_a_takeover(
    shop: Shop,
) -> None:
    """Features of the days before its first event are zero."""
    forecaster = _trained()
    await shop.sell(0, 30, "old")
    await shop.announce({"sku": "new", "category": "garden"})
    await shop.sell(30, 31, "old")
    await shop.stop()
    await shop.start()
    partition = shop.pipeline.owner.owned[0].partition
    assert partition.state.listed == 1
    assert partition.state.series.ids == ["old", "new"]
    await shop.announce({"sku": "new", "brand": "Acme"})
    await shop.sell(31, 34, "old", "new")

    assert shop.series == ["old", "new"]
    assert partition.state.listings["new"] == Listing("Acme", None, START_MS + 29 * DAY_MS)
    (stored,) = read_history(shop.client, 0, bucket_ms=DAY_MS)
    assert not stored.values_TSF[:31, 1].any()
    assert stored.values_TSF[31:, 1, 0].all()
    carried = shop.serving(forecaster)
    for day in range(29, 34):
        units_SHQ = _units(carried, day)
    warmed_up = _units(shop.serving(forecaster), 33)
    np.testing.assert_allclose(units_SHQ, warmed_up, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shop", [False], indirect=True)
async def test_the_catalog_begins_no_series_by_default(shop: Shop) -> None:
    await shop.sell(0, 3, "old")
    await shop.announce({"sku": "new", "category": "garden", "price": 2.0})
    await shop.sell(3, 5, "old")

    assert shop.series == ["old"]
    assert stored_listings(shop.client, 0) == {"new": Listing(price=2.0)}
    assert not shop.client.hexists(keys.of(0, "meta"), "listed")


@pytest.mark.parametrize("shop", [False], indirect=True)
async def test_entries_are_stored_with_their_offset_and_bad_ones_are_dead_letters(
    shop: Shop,
) -> None:
    """Static features of the SKU are those of its last entry."""
    launched_ms = START_MS + DAY_MS
    await shop.announce(
        {"sku": "A", "category": "bags", "brand": "Acme", "price": 2.5, "launched_at": launched_ms},
        {"sku": "A", "category": "toys", "price": -1.0},
        {"sku": "A", "price": 3.0},
        None,
        keys=[b"A"] * 4,
    )
    await shop.sell(0, 3, "A")

    (letter,) = shop.topics.read("dead-letter")
    assert (letter["topic"], letter["reason"], letter["offset"]) == ("catalog", "negative_price", 1)
    stored: Any = shop.client.hgetall(keys.of(0, "listings"))
    assert stored == {b"A": f'["Acme",3.0,{launched_ms}]'.encode()}
    assert shop.client.hget(keys.of(0, "meta"), "offset:catalog") == b"4"
    static_SX = static_reader(shop.client)(0, ["A"])
    expected = static_row("bags", None, "Acme", 3.0, launched_ms)
    np.testing.assert_array_equal(static_SX[0], expected)
    assert static_SX[0, 2] == row_of("brand", "Acme")


def test_the_trainer_reads_brand_price_and_launch(redis_client: Redis) -> None:
    shop = stocked(redis_client, days=3, n_series=12, partitions=2, horizon=6)
    name = shop.names[0]
    for tag in range(2):
        listing = Listing("Acme", 3.0, 5 * DAY_MS)
        redis_client.hset(keys.of(tag, "listings"), name, listing.stored())
    history = stored_history(redis_client, largest=12, max_span_ms=365 * DAY_MS)

    static = dict(zip(history.series, history.static_features_SX[:, 2:].tolist(), strict=True))
    assert static[name] == [row_of("brand", "Acme"), 3.0, 5.0]
    assert static[shop.names[1]] == static["total"] == [0, 0, 0]
