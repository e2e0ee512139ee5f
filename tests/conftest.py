"""Fixtures for every kind of test: a real store, empty for each test; brokers; no silent skips."""

import os
from collections.abc import Generator, Iterator

import pytest
from redis import Redis

from stream.ops.embedded import embedded_store
from stream.settings import Settings
from tests.support.pages import browser  # noqa: F401 - a fixture
from tests.support.services import broker, no_process_left  # noqa: F401 - fixtures
from tests.support.taps import tap  # noqa: F401 - a fixture


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true a skipped test is a failure: nothing may go untested in silence."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, and CI skips nothing: {report.longrepr}"
    return report
