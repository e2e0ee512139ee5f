"""What `surgecast doctor` sees in a store and in what the workers have stored."""

from typing import Any

import pytest

from model.durations import HOUR_MS
from stream.ops.checks import Check
from stream.ops.count_checks import StoredCounts, count_checks
from stream.ops.store_checks import clock_skew_ms, store_checks
from stream.settings import Settings

NOW_MS = 1_700_000_000_000
GIB = 2**30
#: INFO of a store without faults.
WELL: dict[str, Any] = {
    "redis_version": "7.2.4", "role": "master", "loading": 0, "used_memory": GIB,
    "used_memory_human": "1G", "maxmemory": 4 * GIB, "total_system_memory": 64 * GIB,
    "maxmemory_policy": "noeviction", "evicted_keys": 0, "aof_enabled": 1,
    "rdb_last_bgsave_status": "ok", "aof_last_bgrewrite_status": "ok",
    "aof_last_write_status": "ok",
}  # fmt: skip


def store_check(name: str, **facts: Any) -> Check:
    """The check of a store with these facts that has a name."""
    return {check.name: check for check in store_checks(WELL | facts)}[name]


def test_a_store_without_faults_is_ok() -> None:
    assert {check.status for check in store_checks(WELL)} == {"ok"}


@pytest.mark.parametrize(
    ("name", "facts", "status", "expected"),
    [
        ("store memory", {"used_memory": 3.2 * GIB}, "note", "80% of maxmemory"),
        ("store memory", {"used_memory": 3.7 * GIB}, "wrong", "92% of maxmemory"),
        (
            "store memory", {"maxmemory": 0, "used_memory": 60 * GIB}, "wrong",
            "94% of the machine's memory",
        ),
        ("store memory", {"maxmemory_policy": "allkeys-lru"}, "wrong", "allkeys-lru"),
        ("store memory", {"evicted_keys": 7}, "wrong", "7 keys were evicted"),
        ("store persistence", {"aof_enabled": 0}, "note", "no append-only file"),
        (
            "store persistence", {"rdb_last_bgsave_status": "err"}, "wrong",
            "the last background save failed",
        ),
        ("store persistence", {"aof_last_write_status": "err"}, "wrong", "append-only file failed"),
        ("store", {"role": "slave"}, "wrong", "a replica"),
        ("store", {"loading": 1}, "wrong", "is loading"),
        ("store", {"redis_version": "6.2.1"}, "wrong", "Redis 6.2.1"),
    ],
)  # fmt: skip
def test_a_fault_of_the_store_is_found(
    name: str, facts: dict[str, Any], status: str, expected: str
) -> None:
    found = store_check(name, **facts)

    assert found.status == status
    assert expected in found.found
    assert found.advice


def meta(*, counted: int = 1_000, newest_ms: int = NOW_MS - 1_000, **counts: int) -> dict[str, str]:
    """`meta` of a partition with order lines."""
    verdicts = {f"count:orders:{name}": str(count) for name, count in counts.items()}
    return {"count:orders:counted": str(counted), "newest_ms:orders": str(newest_ms)} | verdicts


def checks(metas: list[dict[str, str]], **settings: Any) -> dict[str, Check]:
    """The checks of a store of four partitions and hourly buckets, by name."""
    stored = StoredCounts({"partitions": 4, "bucket_ms": HOUR_MS}, dict(enumerate(metas)))
    found = count_checks(Settings(**settings), stored, now_ms=NOW_MS)
    return {check.name: check for check in found}


def test_a_deployment_without_faults_is_ok() -> None:
    found = checks([meta()] * 4)

    assert set(found) == {"store layout", "events refused", "event time", "balance"}
    assert {check.status for check in found.values()} == {"ok"}


def test_a_store_that_no_worker_has_used_has_nothing_to_check() -> None:
    assert count_checks(Settings(), StoredCounts(), now_ms=NOW_MS) == []


def test_events_without_any_are_not_shares() -> None:
    assert set(checks([{}] * 4)) == {"store layout"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kafka": {"partitions": 8}}, "SURGECAST_KAFKA__PARTITIONS=4"),
        ({"kafka": {"partitions": 2}}, "SURGECAST_KAFKA__PARTITIONS=4"),
        ({"window": {"bucket": "15m"}}, "SURGECAST_WINDOW__BUCKET=1h"),
    ],
)
def test_settings_that_do_not_fit_the_store_are_found(
    settings: dict[str, Any], expected: str
) -> None:
    found = checks([meta()] * 4, **settings)["store layout"]

    assert found.status == "wrong"
    assert expected in found.advice


def test_partitions_beyond_the_settings_are_found_after_a_worker_wrote_them() -> None:
    """A worker writes its own number; the partitions of the one before are left."""
    stored = StoredCounts({"partitions": 2, "bucket_ms": HOUR_MS}, dict.fromkeys(range(4), meta()))
    [found] = [
        check
        for check in count_checks(Settings(kafka={"partitions": 2}), stored, now_ms=NOW_MS)
        if check.name == "store layout"
    ]

    assert found.status == "wrong"
    assert "the store has 4 partitions, kafka.partitions is 2" in found.found


@pytest.mark.parametrize(
    ("late", "rejected", "status"), [(1, 0, "ok"), (4, 4, "note"), (40, 40, "wrong")]
)
def test_the_share_of_refused_events_is_judged(late: int, rejected: int, status: str) -> None:
    found = checks([meta(counted=1_000, late=late, rejected=rejected)])["events refused"]

    assert found.status == status
    assert f"{late:,} late, {rejected:,} rejected" in found.found


def test_a_handful_of_events_is_no_share() -> None:
    assert checks([meta(counted=1, rejected=1)])["events refused"].status == "ok"


def test_a_partition_behind_the_others_is_found() -> None:
    behind = [meta()] * 3 + [meta(newest_ms=NOW_MS - 5 * HOUR_MS)]
    found = checks(behind)["event time"]

    assert found.status == "note"
    assert "orders-3 is 299m behind" in found.found


def test_events_of_the_future_are_found() -> None:
    found = checks([meta(newest_ms=NOW_MS + 30 * HOUR_MS)])["event time"]

    assert found.status == "wrong"
    assert "30h in the future" in found.found


def test_a_crowded_partition_is_found() -> None:
    found = checks([meta(counted=9_700), *[meta(counted=100)] * 3])["balance"]

    assert found.status == "note"
    assert "partition 0 has the most events, 97%" in found.found


def test_a_slow_answer_is_not_taken_for_a_wrong_clock() -> None:
    """Of several answers the quickest tells the difference: here the third, 7 ms ahead."""
    asked_ms = 1_000
    waits_ms = iter([(9_000, 0), (400, 300), (2, 1), (3_000, 3_000), (50, 0)])

    def ours_ms() -> int:
        return asked_ms

    def theirs() -> tuple[int, int]:
        nonlocal asked_ms
        all_ms, until_read_ms = next(waits_ms)
        read_ms = asked_ms + until_read_ms + 7
        asked_ms += all_ms
        return read_ms // 1_000, read_ms % 1_000 * 1_000

    assert clock_skew_ms(theirs, ours_ms) == 7
