"""The seed of the event ids' hashes is as old as the store."""

from redis import Redis

from stream.settings import Settings
from stream.state import keys
from stream.state.connect import load_id_seed


def test_a_new_store_gets_a_seed_that_stays(redis_client: Redis) -> None:
    """Every worker has the same; the labels of a replay do not make a store old."""
    redis_client.set(keys.info(), b'{"labels": {}}')
    seed = load_id_seed(Settings(), redis_client)

    assert seed != 0
    assert load_id_seed(Settings(), redis_client) == seed
    redis_client.flushdb()
    assert load_id_seed(Settings(), redis_client) != seed


def test_hashes_without_a_seed_stay_comparable(redis_client: Redis) -> None:
    """An event sent before and after an upgrade is a duplicate."""
    redis_client.hset(keys.of(1, "meta"), mapping={"segments:orders": "[0]"})
    redis_client.hset(keys.of(0, "meta"), mapping={"segments:orders": "[]"})

    assert load_id_seed(Settings(), redis_client) == 0
    redis_client.hset(keys.of(1, "meta"), mapping={"segments:orders": "[]"})
    assert load_id_seed(Settings(), redis_client) == 0
