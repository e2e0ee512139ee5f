"""Checks of what the workers have stored: layout, refused events, skew of time and of keys."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from model.durations import DAY_MS, HOUR_MS, MINUTE_MS
from stream.ops.checks import Check
from stream.settings import Settings, duration_text
from stream.state import keys

#: Shares of events refused, late or rejected, that are worth a note, and wrong.
NOTED_REFUSALS: Final = 0.005
WRONG_REFUSALS: Final = 0.05
#: Fewer events of a topic say nothing of shares.
LEAST_EVENTS: Final = 100
#: A partition with so many times its share of the events is worth a note.
NOTED_CROWDING: Final = 3.0
_MOST_PARTITIONS: Final = 1_024

Meta = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StoredCounts:
    """What the store has of a deployment: `info` if a worker wrote it, `meta` by partition."""

    info: Mapping[str, Any] = field(default_factory=dict)
    meta_of: Mapping[int, Meta] = field(default_factory=dict)


def read_counts(client: Any) -> StoredCounts:
    """Read a store, in two round trips; `client` does not decode. Raises redis errors."""
    pipe = client.pipeline(transaction=False)
    pipe.get(keys.info())
    for number in range(_MOST_PARTITIONS):
        pipe.exists(keys.of(number, "meta"))
    text, *present = pipe.execute()
    numbers = [number for number, there in enumerate(present) if there]
    for number in numbers:
        pipe.hgetall(keys.of(number, "meta"))
    metas = [
        {name.decode(): value.decode() for name, value in meta.items()} for meta in pipe.execute()
    ]
    return StoredCounts(json.loads(text or b"{}"), dict(zip(numbers, metas, strict=True)))


def count_checks(settings: Settings, stored: StoredCounts, *, now_ms: int) -> list[Check]:
    """Check layout, refusals and skew; nothing to check before the first worker."""
    if "partitions" not in stored.info:
        return []
    metas = stored.meta_of
    checks = [
        layout(settings, stored),
        refusals(metas.values()),
        time_skew(metas, bucket_ms=settings.window.bucket, now_ms=now_ms),
        crowding(metas),
    ]
    return [check for check in checks if check is not None]


def layout(settings: Settings, stored: StoredCounts) -> Check:
    """Compare the settings with the layout of what is stored."""
    partitions, bucket_ms = int(stored.info["partitions"]), int(stored.info["bucket_ms"])
    beyond = [number for number in stored.meta_of if number >= settings.kafka.partitions]
    way_out = "or start with an empty store (surgecast backfill fills it)"
    if partitions != settings.kafka.partitions or beyond:
        count = max(partitions, *(number + 1 for number in beyond), 0)
        found = f"the store has {count} partitions, kafka.partitions is {settings.kafka.partitions}"
        advice = f"set SURGECAST_KAFKA__PARTITIONS={count}, {way_out}"
        return Check("store layout", "wrong", found, advice)
    width = duration_text(bucket_ms)
    if bucket_ms != settings.window.bucket:
        wanted = duration_text(settings.window.bucket)
        found = f"the store has buckets of {width}, window.bucket is {wanted}"
        return Check(
            "store layout", "wrong", found, f"set SURGECAST_WINDOW__BUCKET={width}, {way_out}"
        )
    return Check("store layout", "ok", f"{partitions} partitions, buckets of {width}")


def refusals(metas: "Sequence[Meta] | Any") -> Check | None:
    """Check the share of late and rejected events of each topic; None without events.

    >>> refusals([{"count:orders:counted": "90", "count:orders:late": "10"}]).found
    'orders: 10 of 100 (10.0%), 10 late, 0 rejected'
    """
    counts: Counter[tuple[str, str]] = Counter()
    for meta in metas:
        for name, value in meta.items():
            if name.startswith("count:"):
                _, topic, verdict = name.split(":")
                counts[topic, verdict] += int(value)
    found, worst = [], 0.0
    for topic in sorted({topic for topic, _ in counts}):
        total = sum(count for (name, _), count in counts.items() if name == topic)
        late, rejected = counts[topic, "late"], counts[topic, "rejected"]
        share = (late + rejected) / total if total else 0.0
        if total >= LEAST_EVENTS:
            worst = max(worst, share)
        if late + rejected:
            found.append(
                f"{topic}: {late + rejected:,} of {total:,} ({share:.1%}), "
                f"{late:,} late, {rejected:,} rejected"
            )
    if not counts:
        return None
    if worst < NOTED_REFUSALS:
        return Check("events refused", "ok", "; ".join(found) or f"none of {counts.total():,}")
    advice = (
        "the topic dead-letter has each with its reason; for late ones raise "
        "SURGECAST_WINDOW__ALLOWED_LATENESS or send the partitions at one pace"
    )
    status: Any = "wrong" if worst >= WRONG_REFUSALS else "note"
    return Check("events refused", status, "; ".join(found), advice)


def time_skew(metas: Mapping[int, Meta], *, bucket_ms: int, now_ms: int) -> Check | None:
    """Check how far the newest events of partitions and inputs differ; None without events."""
    newest = {
        f"{name.removeprefix('newest_ms:')}-{number}": int(value)
        for number, meta in metas.items()
        for name, value in meta.items()
        if name.startswith("newest_ms:")
    }
    if not newest:
        return None
    first, last = min(newest, key=newest.__getitem__), max(newest, key=newest.__getitem__)
    skew_ms, age_ms = newest[last] - newest[first], now_ms - newest[last]
    found = f"newest event {_span(age_ms)} {'ago' if age_ms >= 0 else 'in the future'}"
    if age_ms < -bucket_ms:
        advice = "a producer's clock is ahead; synchronize it, or lower window.future_tolerance"
        return Check("event time", "wrong", found, advice)
    if skew_ms > bucket_ms:
        found += f"; {first} is {_span(skew_ms)} behind {last}"
        advice = "its series close late, or its events become late; is its producer running?"
        return Check("event time", "note", found, advice)
    return Check("event time", "ok", f"{found}; partitions within {_span(skew_ms)}")


def crowding(metas: Mapping[int, Meta]) -> Check | None:
    """Check how evenly the counted events are spread over the partitions; None for few events."""
    counted = {
        number: sum(int(v) for name, v in meta.items() if name.endswith(":counted"))
        for number, meta in metas.items()
    }
    total = sum(counted.values())
    if len(counted) < 2 or total < LEAST_EVENTS * len(counted):
        return None
    fullest = max(counted, key=counted.__getitem__)
    share = counted[fullest] / total
    found = f"partition {fullest} has the most events, {share:.0%} of {total:,}"
    if share * len(counted) <= NOTED_CROWDING:
        return Check("balance", "ok", found)
    advice = "one worker has most of the work: a few products sell most, or keys are not SKUs"
    return Check("balance", "note", found, advice)


def _span(milliseconds: int) -> str:
    """Return a time span in whole units.

    >>> _span(5_400_000), _span(-300)
    ('90m', '300ms')
    """
    span = abs(milliseconds)
    for unit_ms in (DAY_MS, HOUR_MS, MINUTE_MS, 1_000):
        if span >= 10 * unit_ms:
            return duration_text(span // unit_ms * unit_ms)
    return duration_text(span // 1_000 * 1_000 if span >= 1_000 else span)
