"""Category and location of a series reach the model: in training, in serving, for roll-ups too."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from redis import Redis

from model.durations import DAY_MS, HOUR_MS
from model.inference.forecaster import NetworkForecaster
from model.inputs.static_features import row_of
from stream.jobs.training.stored_history import stored_history
from stream.serving import static_features as static
from stream.serving.model_server import ModelServer
from stream.serving.static_features import Floats, static_features, static_reader, stored_categories
from stream.state import keys
from stream.state.history import load_history, read_history
from stream.state.keys import ROLLUPS, Tag
from tests.support.model_cases import untrained, with_static
from tests.support.seeding import CATEGORIES, Shop, stocked


@pytest.fixture
def shop(redis_client: Redis) -> Shop:
    made: Shop = stocked(redis_client, days=3, n_series=12, partitions=2, horizon=6)
    return made


class Worker:
    """The serving side of a worker over a shop's store; `asked` counts its reads."""

    def __init__(self, redis: Redis, forecaster: NetworkForecaster) -> None:
        self.redis = redis
        self.asked = 0
        self.serving = ModelServer(
            forecaster,
            lambda tag, from_ms, to_ms: read_history(
                redis, tag, bucket_ms=HOUR_MS, from_ms=from_ms, to_ms=to_ms
            ),
            static=self.static,
        )
        self.read = static_reader(redis)

    def static(self, tag: Tag, series: Sequence[str]) -> Floats:
        self.asked += 1
        return self.read(tag, series)

    def units(self, tag: Tag, through_ms: int) -> Floats:
        made = self.serving.advance(tag, through_ms)
        assert made is not None
        return made.units_SHQ


def reread(redis: Redis, tag: Tag, categories: dict[str, str]) -> Floats:
    """A model given all static features at the start, over all stored buckets."""
    forecaster = with_static()
    stored = load_history(redis, tag, bucket_ms=HOUR_MS)
    assert stored is not None
    states = forecaster.new_states(1)
    states.set_static(static_features(stored.series, categories))
    forecaster.warm_up(states, stored.values_TSF[:-1], stored.start_ms)
    made = forecaster.step(states, stored.values_TSF[-1], stored.end_ms - HOUR_MS)
    return made.units_SHQ


@pytest.mark.parametrize("tag", [0, ROLLUPS])
def test_a_worker_gives_its_model_the_static_features_of_the_catalog(
    redis_client: Redis, shop: Shop, tag: Tag
) -> None:
    """In every partition the forecast equals that of the same network given them by hand."""
    made = Worker(redis_client, with_static()).units(tag, shop.closed_through_ms)

    expected = reread(redis_client, tag, stored_categories(redis_client, tag))
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4)
    if tag != ROLLUPS:
        assert np.abs(made - reread(redis_client, tag, {})).max() > 0.01


def test_a_category_that_is_named_later_counts_from_the_next_close(
    redis_client: Redis, shop: Shop
) -> None:
    known: Any = stored_categories(redis_client, 0)
    redis_client.delete(keys.of(0, "categories"))
    late, never = (Worker(redis_client, with_static()) for _ in range(2))
    before = [worker.units(0, shop.closed_through_ms) for worker in (late, never)]
    shop.close()
    unnamed = never.units(0, shop.closed_through_ms)
    redis_client.hset(keys.of(0, "categories"), mapping=known)
    redis_client.hset(keys.of(0, "meta"), "offset:catalog", 12)
    named = late.units(0, shop.closed_through_ms)

    np.testing.assert_array_equal(before[0], before[1])
    assert np.abs(named - unnamed).max() > 0.01


def test_categories_are_read_for_new_series_and_after_catalog_records(
    redis_client: Redis, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at every close: for a large partition that would cost as much as a step."""
    reads: list[Tag] = []

    def counted(client: Redis, tag: Tag) -> dict[str, str]:
        reads.append(tag)
        return stored_categories(client, tag)

    monkeypatch.setattr(static, "stored_categories", counted)
    read = static_reader(redis_client)
    stored: Any = redis_client.lrange(keys.of(0, "series"), 0, -1)
    names = [name.decode() for name in stored]
    for series in (names[:4], names[:4], names, names):
        np.testing.assert_array_equal(
            read(0, series), static_features(series, stored_categories(redis_client, 0))
        )
    assert len(reads) == 2
    redis_client.hset(keys.of(0, "meta"), "offset:catalog", 12)
    redis_client.hset(keys.of(0, "categories"), names[0], "another")
    assert read(0, names)[0, 0] == row_of("category", "another")
    read(1, names)
    assert reads == [0, 0, 0, 1]


def test_a_model_without_static_features_reads_none(redis_client: Redis, shop: Shop) -> None:
    worker = Worker(redis_client, untrained())
    worker.units(0, shop.closed_through_ms)

    assert worker.asked == 0


def test_the_trainer_has_static_features_of_every_series(redis_client: Redis, shop: Shop) -> None:
    history = stored_history(redis_client, largest=8, max_span_ms=365 * DAY_MS)

    categories = dict(zip(history.series, history.static_features_SX[:, 0].tolist(), strict=True))
    of = dict(zip(shop.names, shop.category_S.tolist(), strict=True))
    assert categories["total"] == 0
    assert categories[f"category:{CATEGORIES[0]}"] == row_of("category", CATEGORIES[0])
    plain = [name for name in history.series if name in of]
    assert len(plain) == 8
    for name in plain:
        assert categories[name] == row_of("category", CATEGORIES[of[name]])


def test_a_location_is_a_feature_of_its_series_and_its_rollup() -> None:
    told_SX = static_features(["A@Berlin", "location:Berlin", "A"], {})

    assert told_SX[:, 1].tolist() == [row_of("location", "Berlin")] * 2 + [0]
    assert not told_SX[:, 0].any()
