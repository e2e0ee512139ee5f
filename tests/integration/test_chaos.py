"""Whatever dies, in whatever order: at the end the features are those of a batch recount."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model.durations import HOUR_MS
from tests.support.chaos import Chaos, disordered, producing
from tests.support.services import KINDS
from tests.support.stack import (
    committed,
    real_lines,
    recount,
    statistics,
    stored_counts,
    stored_features,
    wait_until,
)

PARTITIONS = 4
#: kafka-python forgets to close the sockets of a broker that died; the collector says so.
leaves_sockets = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def chaos(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Chaos]:
    """A deployment to break, on the broker that keeps most."""
    with closing(Chaos(KINDS[-1], tmp_path, request.param, partitions=PARTITIONS)) as running:
        yield running


def drained(chaos: Chaos, n_lines: int) -> bool:
    """Whether all lines are counted, and everything closed is published."""
    chaos.supervise()
    documents = statistics(chaos.store.client)
    return (
        stored_counts(chaos.store.client, PARTITIONS)["counted"] == n_lines
        and bool(documents)
        and all(document["drained"] and document["lag"] == 0 for document in documents)
    )


def require_exact(chaos: Chaos, lines: pl.DataFrame) -> None:
    """Features = recount, every record has one verdict, Kafka knows all of it as read."""
    store = chaos.store.client
    try:
        wait_until(lambda: drained(chaos, len(lines)), f"draining after {chaos.log}", seconds=120)
    except AssertionError as error:  # without these nobody can tell slow from lost
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


def require_calm_deaths(folder: Path) -> None:
    """No worker died of a fault of ours: there is no traceback in any log."""
    for log in folder.glob("worker-*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()[-4_000:]


@leaves_sockets
@pytest.mark.integration
@pytest.mark.timeout(400)
@pytest.mark.parametrize("chaos", [1, 2, 3], indirect=True)
def test_features_equal_a_recount_whatever_dies(
    chaos: Chaos, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Workers, broker and store are killed, paused, lost and scaled under load: nothing is lost."""
    lines = real_lines(20_000)
    rng = np.random.default_rng(request.node.callspec.params["chaos"])
    with producing(chaos.servers, disordered(lines, rng), seconds=40) as producer:
        chaos.wait(5)
        chaos.run(chaos.schedule())
        wait_until(lambda: not producer.is_alive(), "the end of production")
    require_exact(chaos, lines)
    require_calm_deaths(tmp_path)


@leaves_sockets
@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("chaos", [4], indirect=True)
def test_features_equal_a_recount_after_half_an_hour(chaos: Chaos, tmp_path: Path) -> None:
    """Schedule after schedule for half an hour, with the store gone for half a minute each time."""
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
    require_calm_deaths(tmp_path)
