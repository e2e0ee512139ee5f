"""The store bench measures what it says, on a store small enough for a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from stream.bench.report import Row
from stream.bench.store import bench_store
from stream.errors import UsageError
from stream.features.packed_block import PACKED_BYTES
from stream.settings import Settings

pytestmark = pytest.mark.integration

SERIES, BUCKETS = 400, 30


@pytest.fixture
def settings(tmp_path: Path, valkey_url: str, redis_client: Redis) -> Settings:
    return Settings(data_dir=tmp_path, redis={"url": valkey_url}, kafka={"partitions": 2})


def measured(settings: Settings) -> Iterator[Row]:
    """Rows of a small run."""
    yield from bench_store(
        settings, series=SERIES, buckets=BUCKETS, say=lambda _: None, show=lambda *_: None
    )


def test_every_figure_is_there_and_the_store_is_empty_again(
    settings: Settings, redis_client: Redis
) -> None:
    """Parts add up to their whole, every kind of key is weighed, nothing is left behind."""
    rows = {row.name: row for row in measured(settings)}

    parts = rows["recovery_restore"].value + rows["recovery_states"].value
    assert rows["recovery"].value == pytest.approx(parts, abs=0.02)
    assert rows["recovery_states"].facts["buckets"] == 24
    assert rows["closed"].value >= PACKED_BYTES
    kinds = rows["beside"].facts
    assert kinds["forecast:rows"] > 860
    assert {"ahead", "open", "visitors", "ids:clicks", "series", "categories"} < set(kinds)
    assert rows["beside"].value >= sum(kinds.values()) - len(kinds)
    assert rows["history_read_p99"].value >= rows["history_read_p50"].value > 0
    assert redis_client.dbsize() == 0


def test_a_store_in_use_is_not_touched(settings: Settings, redis_client: Redis) -> None:
    """A store that holds anything is refused, and holds it still."""
    redis_client.set("mine", "1")

    with pytest.raises(UsageError, match="not empty"):
        list(measured(settings))
    assert redis_client.get("mine") == b"1"
