"""The reader on a real store, filled in the workers' layout."""

import json
from typing import Any

import numpy as np
import pytest
from redis import Redis

from model.contract import FEATURE_NAMES
from model.durations import HOUR_MS
from stream.errors import IncompatibleState, ServiceUnavailable
from stream.features.definitions import REVENUE, UNITS
from stream.features.packed_block import PACKED_BYTES, unpack_block
from stream.readside.reader import Reader
from stream.state import keys
from stream.state.forecasts import row_bytes, unpack_forecast
from tests.support.seeding import START_MS, Shop, stocked


def read(redis: Any) -> Reader:
    reader = Reader(redis)
    reader.refresh()
    return reader


@pytest.fixture
def shop(redis_client: Redis) -> Shop:
    return stocked(redis_client, days=3, n_series=12, partitions=2)


def test_an_empty_store_gives_empty_answers(redis_client: Redis) -> None:
    """Before a worker has started there are no series, forecasts or buckets."""
    reader = read(redis_client)

    assert reader.info() is None
    assert reader.series() == []
    assert reader.forecast("total") is None
    assert len(reader.history("total", 0, 2**62).start_T) == 0
    assert reader.age("total").stale


def test_history_equals_the_stored_rows(shop: Shop) -> None:
    """Each row is the series' slice of a block, in the order of the buckets."""
    reader = read(shop.redis)
    _, tag, slot = next(s for s in reader.series() if s[0] == shop.names[5])

    history = reader.history(shop.names[5], 0, 2**62)

    assert len(history.start_T) == shop.closed
    for start, row in zip(history.start_T.tolist(), history.values_TF, strict=True):
        block = unpack_block(shop.redis.get(keys.of(tag, "closed", start)) or b"")
        expected = block[slot] if len(block) else np.zeros(len(FEATURE_NAMES))
        assert row.tolist() == expected.tolist()


def test_a_missing_or_short_block_reads_as_zeros(shop: Shop) -> None:
    """A bucket without events has no key; a block older than a series has no row for it."""
    reader = read(shop.redis)
    _, tag, _ = reader.series()[-1]
    name = reader.series()[-1][0]
    shop.redis.delete(keys.of(tag, "closed", START_MS + 12 * HOUR_MS))
    shop.redis.set(keys.of(tag, "closed", START_MS + 13 * HOUR_MS), bytes(PACKED_BYTES))

    history = reader.history(name, START_MS + 12 * HOUR_MS, START_MS + 14 * HOUR_MS)

    assert history.values_TF.tolist() == np.zeros((2, 11)).tolist()


def test_roll_ups_add_up_to_their_series(shop: Shop) -> None:
    """`total` is the sum of all SKUs, closed and open."""
    reader = read(shop.redis)
    skus = shop.names

    total = reader.history("total", 0, 2**62).values_TF.sum(axis=0)
    parts = sum(reader.history(name, 0, 2**62).values_TF.sum(axis=0) for name in skus)

    assert total.tolist() == pytest.approx(np.asarray(parts).tolist(), rel=1e-5)
    (open_total,) = reader.open_bucket("total")
    opened = [reader.open_bucket(name)[0].values_F for name in skus]
    assert open_total.values_F.tolist() == pytest.approx(np.sum(opened, axis=0).tolist())


def test_open_money_is_in_units_of_the_currency(shop: Shop) -> None:
    """The store counts in 1/10,000, an answer in whole units."""
    reader = read(shop.redis)

    (bucket,) = reader.open_bucket(shop.names[0])

    assert bucket.start_ms == shop.closed_through_ms
    assert bucket.values_F[REVENUE] == shop.sums_SF[0, REVENUE] / 10_000
    assert bucket.values_F[UNITS] == shop.sums_SF[0, UNITS]


def test_a_bucket_closed_since_the_refresh_is_not_open(shop: Shop) -> None:
    """The open bucket follows the last closed one, even if that closed after the refresh."""
    reader = read(shop.redis)
    shop.close()

    (bucket,) = reader.open_bucket(shop.names[0])

    assert bucket.start_ms == shop.closed_through_ms


def test_a_forecast_is_read_atomically(shop: Shop) -> None:
    """Header and rows belong to one forecast; the rows are those of the series' slot."""
    reader = read(shop.redis)
    shop.close()
    _, tag, slot = next(s for s in reader.series() if s[0] == shop.names[7])

    forecast = reader.forecast(shop.names[7])

    assert forecast is not None
    assert forecast.origin_ms == shop.closed_through_ms
    assert forecast.units_HQ.shape == (24, 9)
    block = shop.redis.get(keys.of(tag, "forecast", "rows"))
    row = block[slot * row_bytes(24, 9) :][: row_bytes(24, 9)]
    stored = unpack_forecast(row, horizon=24, n_quantiles=9)
    assert stored is not None
    assert forecast.units_HQ.tolist() == stored[0].tolist()
    assert forecast.cumulative_HQ.tolist() == stored[1].tolist()
    assert (np.diff(forecast.units_HQ, axis=1) >= 0).all()


def test_a_series_beyond_the_forecast_block_has_none(shop: Shop) -> None:
    """A series added after the last close has no forecast yet, not one of zeros."""
    shop.redis.rpush(keys.of(0, "series"), "99999")
    reader = read(shop.redis)

    assert reader.forecast("99999") is None


def test_ahead_is_nan_without_a_forecast(shop: Shop) -> None:
    """The first bucket has no earlier forecast: NaN, not zero."""
    reader = read(shop.redis)

    ahead_T3 = reader.ahead("total", 0, 2**62)

    assert np.isnan(ahead_T3[0]).all()
    assert (ahead_T3[1:, 0] <= ahead_T3[1:, 2]).all()


def test_only_new_series_are_read(shop: Shop) -> None:
    """A refresh reads the list from its known end."""
    reader = read(shop.redis)
    before = reader.series()
    shop.redis.lset(keys.of(1, "series"), 0, "changed in place")
    shop.redis.rpush(keys.of(1, "series"), "new")

    reader.refresh()

    assert set(reader.series()) - set(before) == {("new", 1, 6)}


def test_an_emptied_store_starts_over(shop: Shop) -> None:
    """After the store is emptied, the reader starts over."""
    reader = read(shop.redis)
    shop.redis.flushdb()

    reader.refresh()
    assert reader.series() == []

    stocked(shop.redis, days=1, n_series=4, partitions=1)
    reader.refresh()
    assert len(reader.series()) == 4 + 7


def test_a_silent_worker_makes_its_series_stale(shop: Shop) -> None:
    """Age is measured from the worker's last report, also after the report has expired."""
    clock = {"now": json.loads(shop.redis.get(keys.stats("seeded")))["at_ms"] + 400}
    reader = Reader(shop.redis, now_ms=lambda: clock["now"])
    reader.refresh()
    assert (reader.age("total").age_ms, reader.age("total").stale) == (400, False)

    shop.redis.delete(keys.stats("seeded"))
    clock["now"] += 60_000
    reader.refresh()

    assert reader.stats().workers == ()
    assert (reader.age("total").age_ms, reader.age("total").stale) == (60_400, True)


def test_a_store_with_other_features_is_rejected(redis_client: Redis) -> None:
    """Values under other feature names raise IncompatibleState."""
    shape = {
        "bucket_ms": 1,
        "partitions": 1,
        "horizon": 1,
        "quantiles": [0.5],
        "feature_names": ["x"],
    }
    redis_client.set(keys.info(), json.dumps(shape))

    with pytest.raises(IncompatibleState, match="features"):
        Reader(redis_client).refresh()


def test_an_unreachable_store_raises_service_unavailable() -> None:
    """The driver's error does not reach the caller."""
    with Redis(port=1, socket_connect_timeout=0.2) as unreachable:
        reader = Reader(unreachable)
        with pytest.raises(ServiceUnavailable, match="store does not answer"):
            reader.refresh()
