"""Drives a deployment through Kafka and reads it through Redis, as a user would."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import polars as pl
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition
from redis import Redis

from model.contract import SUM_NAMES
from stream.jobs.files.sample import sample_orders
from stream.state.history import load_history
from tests.support.samples import START_MS


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = 90) -> None:
    """Poll until the condition is true; the error says what did not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        time.sleep(0.1)


def statistics(redis: Redis) -> list[dict[str, Any]]:
    """Statistics of every live worker."""
    found = [redis.get(key) for key in redis.scan_iter("sc2:stats:*")]
    return [json.loads(document) for document in found if document]


def stored_counts(redis: Redis, partitions: int) -> Counter[str]:
    """Stored numbers of events by verdict, all input topics together."""
    counts: Counter[str] = Counter()
    for number in range(partitions):
        meta: dict[Any, Any] = redis.hgetall(f"sc2:{{{number}}}:meta")
        for name, value in meta.items():
            if name.startswith(b"count:"):
                counts[name.rsplit(b":", 1)[1].decode()] += int(value)
    return counts


def judged(redis: Redis, partitions: int) -> int:
    """Events with a verdict."""
    return stored_counts(redis, partitions).total()


def drained(redis: Redis) -> bool:
    """True if there are workers, and none has anything left to read or to publish."""
    documents = statistics(redis)
    return bool(documents) and all(one["drained"] and one["lag"] == 0 for one in documents)


def produce(servers: str, topic: str, rows: Iterable[tuple[bytes | None, bytes | None]]) -> int:
    """Send records in order, wait for the broker's answers, and return their number."""
    producer = KafkaProducer(bootstrap_servers=servers, linger_ms=20, acks="all")
    count = 0
    for key, value in rows:
        producer.send(topic, key=key, value=value)
        count += 1
    producer.flush()
    producer.close()
    return count


def real_lines(n: int) -> pl.DataFrame:
    """Consecutive real order lines of October 2011."""
    orders = pl.read_parquet(sample_orders())
    return orders.filter(pl.col("ts") >= START_MS).sort("ts", "event_id").head(n)


def order_records(lines: pl.DataFrame) -> list[tuple[bytes, bytes]]:
    """Order lines as records of the contract."""
    wanted = ["event_id", "ts", "sku", "quantity", "unit_price", "customer_id"]
    return [
        (row["sku"].encode(), json.dumps(row).encode())
        for row in lines.select(wanted).iter_rows(named=True)
    ]


def read_topic(servers: str, topic: str) -> list[Any]:
    """Read a topic to its end and on until nothing arrives for three seconds.

    The embedded broker reports an end one batch too low, hence the three seconds.
    """
    consumer = KafkaConsumer(bootstrap_servers=servers)
    places = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends = consumer.end_offsets(places)
    records: list[Any] = []
    deadline, quiet_since = time.monotonic() + 120, time.monotonic()
    while time.monotonic() < deadline:
        polled = consumer.poll(timeout_ms=500)
        for part in polled.values():
            records += part
        if polled:
            quiet_since = time.monotonic()
        reached = all(consumer.position(place) >= end for place, end in ends.items())
        if reached and time.monotonic() - quiet_since > 3:
            break
    consumer.close()
    return records


def committed(servers: str, group: str, topic: str) -> int:
    """Sum of a group's committed offsets; the size of the topic once all of it is processed."""
    consumer = KafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False)
    places = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
    total = sum(consumer.committed(place) or 0 for place in places)
    consumer.close()
    return total


def recount(lines: pl.DataFrame, *, bucket_ms: int) -> dict[tuple[str, int], list[float]]:
    """Units, returns, revenue and order lines by series and bucket, computed by polars alone."""
    table = (
        lines.unique("event_id", keep="first", maintain_order=True)
        .with_columns(start=pl.col("ts") - pl.col("ts") % bucket_ms)
        .group_by("sku", "start")
        .agg(
            units=pl.col("quantity").clip(lower_bound=0).sum(),
            returns=(-pl.col("quantity")).clip(lower_bound=0).sum(),
            ticks=(pl.col("quantity") * pl.col("unit_price") * 10_000).round().cast(pl.Int64).sum(),
            orders=pl.len(),
        )
    )
    return {
        (row["sku"], row["start"]): [
            float(row["units"]), float(row["returns"]),
            float(np.float32(row["ticks"] / 10_000)), float(row["orders"]),
        ]
        for row in table.iter_rows(named=True)
    }  # fmt: skip


def stored_stock(
    redis: Redis, partitions: int, *, bucket_ms: int
) -> dict[tuple[str, int], tuple[int, int]]:
    """Units on hand and share without stock (in 1/255) of closed buckets, where known."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for number in range(partitions):
        history = load_history(redis, number, bucket_ms=bucket_ms)
        if history is None:
            continue
        stock_TSC = history.values_TSF[:, :, len(SUM_NAMES) :]
        for t, slot in np.argwhere(stock_TSC[:, :, 0]).tolist():
            stock, share = stock_TSC[t, slot].tolist()
            place = history.series[slot], history.start_ms + t * bucket_ms
            found[place] = (int(stock) - 1, round(share * 255))
    return found


def stored_features(
    redis: Redis, partitions: int, *, bucket_ms: int
) -> dict[tuple[str, int], list[float]]:
    """Stored equivalent of `recount`, from closed and open buckets; zero rows left out.

    Buckets may close meanwhile: it reads until two readings agree.
    """
    found = _read_features(redis, partitions, bucket_ms=bucket_ms)
    while (again := _read_features(redis, partitions, bucket_ms=bucket_ms)) != found:
        found = again
    return found


def _read_features(
    redis: Redis, partitions: int, *, bucket_ms: int
) -> dict[tuple[str, int], list[float]]:
    found: dict[tuple[str, int], list[float]] = {}
    for number in range(partitions):
        stored: list[Any] = redis.lrange(f"sc2:{{{number}}}:series", 0, -1)
        names = [name.decode() for name in stored]
        history = load_history(redis, number, bucket_ms=bucket_ms)
        if history is not None:
            for t, slot in np.argwhere(history.values_TSF[:, :, :4].any(axis=2)).tolist():
                row = history.values_TSF[t, slot, :4].astype(float).tolist()
                found[names[slot], history.start_ms + t * bucket_ms] = row
        for key in redis.scan_iter(f"sc2:{{{number}}}:open:*"):
            start = int(key.rsplit(b":", 1)[1])
            block: Any = redis.get(key)
            if block is None:
                continue  # it has closed since the scan
            sums = np.frombuffer(block, "<i8").reshape(-1, len(SUM_NAMES))
            for slot in np.flatnonzero(sums[:, :4].any(axis=1)).tolist():
                units, returns, ticks, orders = sums[slot, :4].tolist()
                revenue = float(np.float32(ticks / 10_000))
                found[names[slot], start] = [float(units), float(returns), revenue, float(orders)]
    return found
