"""Workers, broker and store die in any order: the features equal a batch recount."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model.durations import HOUR_MS
from tests.support.chaos import Chaos, disordered, producing
from tests.support.deployments import PARTITIONS
from tests.support.services import KINDS
from tests.support.stack import (
    committed,
    drained,
    real_lines,
    recount,
    statistics,
    stored_counts,
    stored_features,
    wait_until,
)

#: kafka-python leaves sockets of a dead broker open; the garbage collector warns of them.
leaves_sockets = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def chaos(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Chaos]:
    """A deployment to break, on the broker that keeps the most."""
    with closing(Chaos(KINDS[-1], tmp_path, request.param, partitions=PARTITIONS)) as running:
        yield running


def finished(chaos: Chaos, n_lines: int) -> bool:
    """True if all lines are counted and every closed bucket is published."""
    chaos.supervise()
    store = chaos.store.client
    return stored_counts(store, PARTITIONS)["counted"] == n_lines and drained(store)


def require_exact(chaos: Chaos, lines: pl.DataFrame) -> None:
    """Features = recount, every record has one verdict, all offsets are committed."""
    store = chaos.store.client
    try:
        wait_until(lambda: finished(chaos, len(lines)), f"draining after {chaos.log}", seconds=120)
    except AssertionError as error:  # to tell a slow deployment from lost events
        counts = stored_counts(store, PARTITIONS)
        error.add_note(f"{len(lines)} lines, {dict(counts)}, {statistics(store)}")
        raise
    assert stored_features(store, PARTITIONS, bucket_ms=HOUR_MS) == recount(
        lines, bucket_ms=HOUR_MS
    )
    counts = stored_counts(store, PARTITIONS)
    assert counts["late"] == counts["rejected"] == 0
    total = sum(counts.values())
    wait_until(
        lambda: committed(chaos.servers, "surgecast", "orders") == total,
        f"committing all {total} records",
    )


def require_no_traceback(folder: Path) -> None:
    """No log of a worker has a traceback."""
    for log in folder.glob("worker-*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()[-4_000:]


@leaves_sockets
@pytest.mark.timeout(400)
@pytest.mark.parametrize("chaos", [1, 2, 3], indirect=True)
def test_features_equal_a_recount_whatever_dies(
    chaos: Chaos, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Workers, broker and store are killed, paused, removed and scaled under load."""
    lines = real_lines(20_000)
    rng = np.random.default_rng(request.node.callspec.params["chaos"])
    with producing(chaos.servers, disordered(lines, rng), seconds=40) as producer:
        chaos.wait(5)
        chaos.run(chaos.schedule())
        wait_until(lambda: not producer.is_alive(), "the end of production")
    require_exact(chaos, lines)
    require_no_traceback(tmp_path)


@leaves_sockets
@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("chaos", [4], indirect=True)
def test_features_equal_a_recount_after_half_an_hour(chaos: Chaos, tmp_path: Path) -> None:
    """Schedule after schedule for half an hour, each with half a minute without the store."""
    minutes = 30.0
    lines = real_lines(200_000)
    sent = disordered(lines, np.random.default_rng(4))
    with producing(chaos.servers, sent, seconds=minutes * 60) as producer:
        deadline = time.monotonic() + minutes * 60
        while time.monotonic() < deadline:
            chaos.run(chaos.schedule())
            chaos.log.append("no store for 30 s")
            chaos.lose_store(30)
            chaos.scale(1)
        wait_until(lambda: not producer.is_alive(), "the end of production", seconds=600)
    require_exact(chaos, lines)
    require_no_traceback(tmp_path)
