"""Fixtures and rules for every kind of test: marks by folder, services only where they belong."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.deployments import (  # noqa: F401 - fixtures
    broker_kind,
    deployment,
    deployment_settings,
)
from tests.support.pages import browser  # noqa: F401 - a fixture
from tests.support.services import (  # noqa: F401 - most are fixtures
    SERVICE_FIXTURES,
    broker,
    no_process_left,
    redis_client,
    valkey_url,
)
from tests.support.taps import broker_settings, tap  # noqa: F401 - fixtures

# Read when torch is first imported: tests run in parallel, and their networks are small.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TESTS = Path(__file__).parent
#: Folders whose tests need services, and the mark of all of them; `soak` takes its place.
MARKS = {"integration": "integration", "e2e": "e2e"}
#: Folders where a test marks itself when it needs a service.
MIXED = {"contract"}


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder; refuse a test without services that takes one."""
    misplaced = []
    for item in items:
        if not item.path.is_relative_to(TESTS):
            continue  # a doctest of the product
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKS and item.get_closest_marker("soak") is None:
            item.add_marker(MARKS[folder])
        taken = SERVICE_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        if taken and folder not in MARKS.keys() | MIXED:
            misplaced.append(f"{item.nodeid} takes {', '.join(sorted(taken))}")
    if misplaced:
        advice = "tests that need a service belong in tests/integration"
        raise pytest.UsageError("\n".join([advice, *misplaced]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true a skipped test fails: nothing stays untested unnoticed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, and CI skips nothing: {report.longrepr}"
    return report
