"""Checks of the store by what it says of itself: server, memory, persistence, clock. Pure."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from stream.ops.checks import Check

#: Shares of the memory limit that are worth a note, and wrong.
NOTED_SHARE: Final = 0.75
WRONG_SHARE: Final = 0.9
_GIB: Final = 2**30
_CLOCK_READINGS: Final = 5
#: Last saves of the store, by the field of its INFO.
_SAVES: Final = {
    "rdb_last_bgsave_status": "background save",
    "aof_last_bgrewrite_status": "rewrite of the append-only file",
    "aof_last_write_status": "write of the append-only file",
}


def store_checks(facts: Mapping[str, Any]) -> list[Check]:
    """Check a store by the fields of its INFO."""
    return [_server(facts), _memory(facts), _persistence(facts)]


def _server(facts: Mapping[str, Any]) -> Check:
    name = "Valkey" if facts.get("server_name") == "valkey" else "Redis"
    number = str(facts.get("valkey_version") or facts["redis_version"])
    if int(str(facts["redis_version"]).split(".")[0]) < 7:
        return Check("store", "wrong", f"{name} {number}", "upgrade to Redis 7 or Valkey 8")
    if facts.get("role", "master") != "master":
        advice = "set SURGECAST_REDIS__URL to the primary"
        return Check("store", "wrong", f"{name} {number}, a replica: it refuses writes", advice)
    if int(facts.get("loading", 0)):
        return Check("store", "wrong", f"{name} {number} is loading its data", "wait, look again")
    return Check("store", "ok", f"{name} {number}, {facts['used_memory_human']} used")


def _memory(facts: Mapping[str, Any]) -> Check:
    """Check eviction, and memory in use against `maxmemory`, else against the machine's.

    >>> facts = {"used_memory": 95, "maxmemory": 100}
    >>> _memory(facts).status, _memory(facts | {"used_memory": 50}).status
    ('wrong', 'ok')
    """
    policy = str(facts.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        advice = "CONFIG SET maxmemory-policy noeviction; eviction deletes counts"
        return Check("store memory", "wrong", policy, advice)
    evicted = int(facts.get("evicted_keys", 0))
    if evicted:
        advice = "counts are lost: empty the store, and fill it with surgecast backfill"
        return Check("store memory", "wrong", f"{evicted:,} keys were evicted", advice)
    used, limit = int(facts["used_memory"]), int(facts.get("maxmemory", 0))
    what = "maxmemory"
    if not limit:
        limit, what = int(facts.get("total_system_memory", 0)), "the machine's memory"
    if not limit:
        return Check("store memory", "ok", f"{used / _GIB:.2f} GiB, {policy}")
    share = used / limit
    found = f"{used / _GIB:.2f} of {limit / _GIB:.2f} GiB ({share:.0%} of {what}), {policy}"
    if share < NOTED_SHARE:
        return Check("store memory", "ok", found)
    advice = "raise maxmemory, or lower state.retention; a full store refuses writes, workers wait"
    return Check("store memory", "wrong" if share >= WRONG_SHARE else "note", found, advice)


def _persistence(facts: Mapping[str, Any]) -> Check:
    """Check that the last saves succeeded, and that there is an append-only file.

    >>> _persistence({"aof_enabled": 1, "rdb_last_bgsave_status": "err"}).found
    'the last background save failed'
    """
    failed = [what for field, what in _SAVES.items() if facts.get(field, "ok") != "ok"]
    if failed:
        advice = (
            "the store's log has the reason (disk full, no memory to fork); until a save succeeds "
            "it refuses writes (stop-writes-on-bgsave-error)"
        )
        found = f"the last {' and the last '.join(failed)} failed"
        return Check("store persistence", "wrong", found, advice)
    if int(facts.get("aof_enabled", 0)):
        return Check("store persistence", "ok", "append-only file")
    advice = "set appendonly yes; otherwise a restart loses all counts older than Kafka's retention"
    return Check("store persistence", "note", "no append-only file", advice)


def clock_skew_ms(store_time: Callable[[], Any], clock_ms: Callable[[], int]) -> float:
    """How far in ms the store's clock is ahead, by the quickest of some answers.

    `store_time` returns seconds and microseconds, as the command TIME does. A slow
    answer was read somewhere between its question and its arrival, and tells little.
    """
    answers: list[tuple[int, float]] = []
    for _ in range(_CLOCK_READINGS):
        before_ms = clock_ms()
        seconds, micros = store_time()
        after_ms = clock_ms()
        theirs_ms = seconds * 1_000 + micros / 1_000
        answers.append((after_ms - before_ms, theirs_ms - (before_ms + after_ms) / 2))
    return min(answers)[1]
