"""Exactly once: whatever dies, the features equal a batch recount."""

import json
import signal
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import pytest
from redis import Redis

from model.durations import HOUR_MS
from stream.state.history import load_history
from tests.support.deployments import PARTITIONS, Deployment
from tests.support.services import KINDS, Kind
from tests.support.stack import (
    committed,
    drained,
    judged,
    order_records,
    produce,
    read_topic,
    real_lines,
    recount,
    stored_counts,
    stored_features,
    stored_stock,
    wait_until,
)
from tests.support.stock_recount import Reading, stored_share
from tests.support.stock_recount import recount as recount_stock


@pytest.fixture(params=KINDS)
def broker_kind(request: pytest.FixtureRequest) -> Kind:
    """Every kind of broker."""
    kind: Kind = request.param
    return kind


def counted(redis: Redis) -> int:
    """Events counted so far."""
    return stored_counts(redis, PARTITIONS)["counted"]


def judged_beyond(redis: Redis, before: int) -> bool:
    """True if more than `before` events have a verdict."""
    return judged(redis, PARTITIONS) > before


def finished(redis: Redis, total: int) -> bool:
    """True if `total` events have a verdict and every closed bucket is published."""
    return judged(redis, PARTITIONS) == total and drained(redis) and rolled_up(redis)


def rolled_up(redis: Redis) -> bool:
    """True if roll-ups have closed a bucket."""
    return redis.hget("sc2:{r}:meta", "closed_through_ms") is not None


def test_killed_workers_leave_exactly_the_features_of_a_recount(
    deployment: Deployment, redis_client: Redis
) -> None:
    """Three `kill -9` under load and repeated lines: each line counts once.

    Stock readings are sent along with the lines; the stock of each bucket equals a recount.
    """
    lines = real_lines(30_000)
    rng = np.random.default_rng(11)
    records = order_records(lines)
    log = stock_readings(lines, rng)
    half = len(records) // 2
    stock_feed = StockFeed(deployment.servers, log, lines["ts"].to_list())
    stock_feed.send_through(half)
    total = produce(deployment.servers, "orders", [*records[:half], *records[half - 500 : half]])
    for life in range(3):
        before = judged(redis_client, PARTITIONS)
        worker = deployment.start(f"worker-{life}")
        wait_until(partial(judged_beyond, redis_client, before), "a count")
        worker.kill()
        chunk = records[half + life * 4_000 : half + (life + 1) * 4_000]
        repeated = chunk[:: int(rng.integers(2, 9))]
        stock_feed.send_through(half + (life + 1) * 4_000)
        total += produce(deployment.servers, "orders", [*chunk, *repeated])
    stock_feed.send_through(len(lines))
    total += produce(deployment.servers, "orders", records[half + 12_000 :])
    worker = deployment.start("worker-last")
    wait_until(lambda: finished(redis_client, total + len(log)), "the end of the topics")

    expected = recount(lines, bucket_ms=HOUR_MS)
    assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == expected
    counts = stored_counts(redis_client, PARTITIONS)
    assert counts["counted"] == len(lines) + len(log)
    assert counts["duplicate"] == total - len(lines)
    stock = stored_stock(redis_client, PARTITIONS, bucket_ms=HOUR_MS)
    assert len(stock) > 1_000
    assert stock == recounted_stock(log, redis_client)
    wait_until(
        lambda: committed(deployment.servers, "surgecast", "orders") == total,
        "committing up to the end",
    )
    assert worker.stop() == 0
    published = read_topic(deployment.servers, "features")
    assert_published_equals(published, expected, redis_client)
    documents = [json.loads(record.value) for record in published]
    assert stock == {
        (document["series_id"], document["bucket_start_ms"]): (
            document["values"]["on_hand"],
            round(document["values"]["stockout_share"] * 255),
        )
        for document in documents
        if "on_hand" in document["values"]
    }


def stock_readings(lines: pl.DataFrame, rng: np.random.Generator) -> list[Reading]:
    """Synthetic stock readings of 40 SKUs over the time of the lines, oldest first."""
    skus = lines.group_by("sku").len().sort(["len", "sku"], descending=True)["sku"].head(40)
    first_ms, last_ms = lines["ts"].to_list()[0], lines["ts"].to_list()[-1]
    times = np.sort(rng.integers(first_ms - 2 * HOUR_MS, last_ms, 3_000)).tolist()
    return [(str(rng.choice(skus)), at, int(rng.choice((0, 0, 3, 70_000)))) for at in times]


@dataclass
class StockFeed:
    """Sends stock readings along with order lines."""

    address: str
    log: list[Reading]
    line_times: list[int]
    sent: int = 0

    def send_through(self, n_lines: int) -> None:
        """Send every reading that is not newer than line number `n_lines`."""
        until_ms, first = self.line_times[n_lines - 1], self.sent
        while self.sent < len(self.log) and self.log[self.sent][1] <= until_ms:
            self.sent += 1
        produce(
            self.address,
            "inventory",
            [
                (sku.encode(), json.dumps({"sku": sku, "ts": at, "on_hand": units}).encode())
                for sku, at, units in self.log[first : self.sent]
            ],
        )


def recounted_stock(log: list[Reading], redis: Redis) -> dict[tuple[str, int], tuple[int, int]]:
    """Stock of the closed buckets of every partition, computed from all readings."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for number in range(PARTITIONS):
        history = load_history(redis, number, bucket_ms=HOUR_MS)
        assert history is not None
        mine = [reading for reading in log if reading[0] in set(history.series)]
        counted = recount_stock(
            mine, width_ms=HOUR_MS, lateness_ms=0, start_ms=history.start_ms, end_ms=history.end_ms
        )
        found |= {place: (units, stored_share(share)) for place, (units, share) in counted.items()}
    return found


def assert_published_equals(
    published: list[Any], expected: dict[tuple[str, int], list[float]], redis: Redis
) -> None:
    """The topic has every closed bucket of every series; repeated records are identical."""
    values: dict[tuple[str, int], dict[str, float]] = {}
    for record in published:
        document = json.loads(record.value)
        if document["series_id"] == "total" or document["series_id"].startswith("category:"):
            continue
        assert record.key.decode() == document["series_id"]
        place = (document["series_id"], document["bucket_start_ms"])
        assert values.setdefault(place, document["values"]) == document["values"]
    through = int(redis.hget("sc2:{r}:meta", "closed_through_ms") or 0)
    closed = {place: row for place, row in expected.items() if place[1] < through}
    got = {
        place: [row["units"], row["returns"], row["revenue"], row["orders"]]
        for place, row in values.items()
        if row["orders"]
    }
    assert got.keys() == closed.keys()
    for place, row in closed.items():
        assert got[place] == pytest.approx(row, rel=1e-6)


def test_a_worker_that_lost_its_partitions_cannot_write(
    deployment: Deployment, redis_client: Redis
) -> None:
    """SIGSTOP past the session timeout, a takeover, then SIGCONT: nothing counts twice."""
    lines = real_lines(20_000)
    records = order_records(lines)
    total = produce(deployment.servers, "orders", records[:8_000])
    sleeper = deployment.start("sleeper")
    wait_until(lambda: counted(redis_client) > 0, "a count")
    sleeper.signal(signal.SIGSTOP)
    deployment.start("second")
    total += produce(deployment.servers, "orders", records[8_000:14_000])
    wait_until(lambda: counted(redis_client) == 14_000, "the second worker's takeover")
    sleeper.signal(signal.SIGCONT)
    total += produce(deployment.servers, "orders", records[14_000:])
    wait_until(lambda: finished(redis_client, total), "the end of the topic")

    assert counted(redis_client) == len(lines)
    assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == recount(
        lines, bucket_ms=HOUR_MS
    )


def test_a_stopping_worker_publishes_what_it_has_closed(
    deployment: Deployment, redis_client: Redis
) -> None:
    """SIGTERM during a backlog of closed buckets: no other worker has to publish them."""
    lines = real_lines(8_000)
    produce(deployment.servers, "orders", order_records(lines))
    worker = deployment.start()
    wait_until(lambda: rolled_up(redis_client), "a close")
    assert worker.stop() == 0
    published = read_topic(deployment.servers, "features")
    assert_published_equals(published, recount(lines, bucket_ms=HOUR_MS), redis_client)


def test_bad_records_go_to_dead_letter_and_their_neighbours_count(
    deployment: Deployment, redis_client: Redis
) -> None:
    """Events in = counted + duplicates + dead-lettered; no dead letter has personal data."""
    lines = real_lines(2_000)
    records: list[tuple[bytes | None, bytes | None]] = list(order_records(lines))
    fine = json.loads(records[0][1] or b"")
    sku = fine["sku"]
    newest = lines["ts"].to_list()[-1]

    def changed(**changes: object) -> bytes:
        return json.dumps(fine | changes).encode()

    bad: list[tuple[str, bytes | None, bytes | None]] = [
        ("malformed_json", sku.encode(), b'{"customer_id": "secret-person", '),
        ("missing_field", sku.encode(), b'{"event_id":"b1"}'),
        ("wrong_type", sku.encode(), changed(quantity="many")),
        ("zero_quantity", sku.encode(), changed(quantity=0)),
        ("negative_price", sku.encode(), changed(unit_price=-1)),
        ("malformed_json", sku.encode(), changed(unit_price=float("nan"))),
        ("future_timestamp", sku.encode(), changed(event_id="b2", ts=newest + 3650 * 24 * HOUR_MS)),
        ("too_large", sku.encode(), b'{"customer_id":"secret-person","x":"%b"}' % (b"y" * 900_000)),
        ("null_key", None, changed(event_id="b3")),
        ("late", sku.encode(), changed(event_id="b4", ts=newest - 3 * HOUR_MS)),
    ]  # fmt: skip
    # The newest line of the same SKU is sent first, so that the late one is late.
    newer = (sku.encode(), changed(event_id="b5", ts=newest))
    mixed = [*records[:-1], newer, *[(key, value) for _, key, value in bad], records[-1]]
    total = produce(deployment.servers, "orders", mixed)
    worker = deployment.start()
    wait_until(lambda: finished(redis_client, total), "the end of the topic")
    counts = stored_counts(redis_client, PARTITIONS)
    assert counts["counted"] == len(lines) + 1
    assert counts["late"] == 1
    assert counts["rejected"] == len(bad) - 1
    assert counts["counted"] + counts["duplicate"] + counts["late"] + counts["rejected"] == total
    letters = [json.loads(r.value) for r in read_topic(deployment.servers, "dead-letter")]
    assert sorted(letter["reason"] for letter in letters) == sorted(r for r, *_ in bad)
    assert all("secret-person" not in json.dumps(letter) for letter in letters)
    assert {letter["topic"] for letter in letters} == {"orders"}
    worker.kill()
    assert "secret-person" not in worker.log.read_text()


def test_an_owner_that_is_fenced_out_takes_its_partitions_back(
    deployment: Deployment, redis_client: Redis
) -> None:
    """Another process acquires every partition and is gone: nothing stays uncounted."""
    lines = real_lines(8_000)
    records = order_records(lines)
    produce(deployment.servers, "orders", records[:4_000])
    worker = deployment.start()
    wait_until(lambda: counted(redis_client) == 4_000, "counting the first half")
    for tag in (*range(PARTITIONS), "r"):
        redis_client.hincrby(f"sc2:{{{tag}}}:meta", "fence", 1)
    produce(deployment.servers, "orders", records[4_000:])
    wait_until(lambda: finished(redis_client, len(lines)), "the takeover")
    expected = recount(lines, bucket_ms=HOUR_MS)
    assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == expected
    assert worker.process.poll() is None


def test_an_emptied_store_is_filled_again(deployment: Deployment, redis_client: Redis) -> None:
    """Offsets vanish with the features, so every record of the broker is counted again, once."""
    lines = real_lines(8_000)
    records = order_records(lines)
    produce(deployment.servers, "orders", records[:4_000])
    worker = deployment.start()
    wait_until(lambda: counted(redis_client) == 4_000, "counting the first half")
    redis_client.flushall()
    produce(deployment.servers, "orders", records[4_000:])
    wait_until(lambda: finished(redis_client, len(lines)), "counting all lines")
    expected = recount(lines, bucket_ms=HOUR_MS)
    assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == expected
    assert worker.process.poll() is None
