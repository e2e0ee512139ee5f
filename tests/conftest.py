"""Fixtures for every kind of test: a real store, empty for each test."""

from collections.abc import Iterator

import pytest
from redis import Redis

from stream.embedded import embedded_store
from stream.settings import Settings


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Valkey server that lives as long as the test run."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("valkey"))
    with embedded_store(settings) as store:
        yield store.url


@pytest.fixture
def redis_client(valkey_url: str) -> Iterator[Redis]:
    """Client of an empty store; answers are bytes."""
    client = Redis.from_url(valkey_url)
    client.flushdb()
    yield client
    client.close()
