"""The store bench, on a small store."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from stream.bench.report import Row
from stream.bench.store import bench_store
from stream.errors import UsageError
from stream.features.packed_block import PACKED_BYTES
from stream.settings import Settings

SERIES, BUCKETS = 400, 30


@pytest.fixture
def bench_settings(tmp_path: Path, valkey_url: str, redis_client: Redis) -> Settings:
    """Settings of an empty store for two partitions."""
    return Settings(data_dir=tmp_path, redis={"url": valkey_url}, kafka={"partitions": 2})


def measured(settings: Settings) -> Iterator[Row]:
    """Rows of a small run."""
    yield from bench_store(
        settings, series=SERIES, buckets=BUCKETS, notify=lambda _: None, show=lambda *_: None
    )


def test_every_figure_is_measured(bench_settings: Settings, redis_client: Redis) -> None:
    """Parts add up to their total, every kind of key has a size, and the store is empty again."""
    rows = {row.name: row for row in measured(bench_settings)}

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


def test_a_store_in_use_is_refused_and_unchanged(
    bench_settings: Settings, redis_client: Redis
) -> None:
    """A store with any key is in use."""
    redis_client.set("mine", "1")

    with pytest.raises(UsageError, match="not empty"):
        list(measured(bench_settings))
    assert redis_client.get("mine") == b"1"
