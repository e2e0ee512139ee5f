"""Fixtures of the serving tests."""

from pathlib import Path

import pytest
from redis import Redis

from tests.support.served_shop import ServedShop


@pytest.fixture
def worker(redis_client: Redis, tmp_path: Path) -> ServedShop:
    """A deployment that has served one close by the fallback."""
    deployment = ServedShop(redis_client, tmp_path)
    deployment.turn()
    return deployment
