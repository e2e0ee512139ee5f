"""The promise of the ingest: whatever dies, the features are those of a batch recount."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from redis import Redis

from model.durations import HOUR_MS
from stream.settings import Settings
from stream.state.history import load_history
from tests.support.services import KINDS, Kind, running_broker, settings_for
from tests.support.stack import (
    WorkerProcess,
    committed,
    order_records,
    produce,
    read_topic,
    real_lines,
    recount,
    statistics,
    stored_counts,
    stored_features,
    stored_stock,
    wait_until,
)
from tests.support.stock_recount import Reading, stored_share
from tests.support.stock_recount import recount as recount_stock

pytestmark = pytest.mark.integration

PARTITIONS = 4


@pytest.fixture(params=KINDS)
def deployment(
    request: pytest.FixtureRequest, tmp_path: Path, redis_client: Redis, valkey_url: str
) -> Iterator[Settings]:
    """A broker of each kind with fresh topics, and an empty store."""
    kind: Kind = request.param
    with running_broker(kind, tmp_path) as broker:
        yield settings_for(
            broker,
            tmp_path,
            kafka={"partitions": PARTITIONS, "session_timeout": "6s"},
            redis={"url": valkey_url},
            window={"idle_timeout": "2s", "dedup": "7d"},
            state={"retention": "400d"},
        )


def servers(settings: Settings) -> str:
    """Address of the deployment's broker."""
    address = settings.kafka.bootstrap_servers
    assert address is not None
    return address


def counted(redis: Redis) -> int:
    """Events counted so far."""
    return stored_counts(redis, PARTITIONS)["counted"]


def judged_beyond(redis: Redis, before: int) -> bool:
    """Whether more events than `before` have a verdict."""
    return sum(stored_counts(redis, PARTITIONS).values()) > before


def drained(redis: Redis, settings: Settings, total: int) -> bool:
    """Whether `total` events have a verdict and everything closed has been published."""
    documents = statistics(redis)
    return (
        sum(stored_counts(redis, PARTITIONS).values()) == total
        and bool(documents)
        and all(document["drained"] and document["lag"] == 0 for document in documents)
        and redis.hget("sc2:{r}:meta", "closed_through_ms") is not None
    )


def test_killed_workers_leave_exactly_the_features_of_a_recount(
    deployment: Settings, redis_client: Redis, tmp_path: Path
) -> None:
    """`kill -9` three times under load, every line sent twice: still each line counts once.

    Readings of the stock go with the lines; the stock of each bucket is that of a recount.
    """
    lines = real_lines(30_000)
    rng = np.random.default_rng(11)
    records = order_records(lines)
    log = stock_readings(lines, rng)
    half = len(records) // 2
    shelf = Shelf(servers(deployment), log, lines["ts"].to_list())
    shelf.tell_through(half)
    total = produce(servers(deployment), "orders", [*records[:half], *records[half - 500 : half]])
    for life in range(3):
        before = sum(stored_counts(redis_client, PARTITIONS).values())
        worker = WorkerProcess(deployment, tmp_path / f"worker-{life}.log")
        wait_until(partial(judged_beyond, redis_client, before), "a count")
        worker.kill()
        chunk = records[half + life * 4_000 : half + (life + 1) * 4_000]
        resent = chunk[:: int(rng.integers(2, 9))]
        shelf.tell_through(half + (life + 1) * 4_000)
        total += produce(servers(deployment), "orders", [*chunk, *resent])
    shelf.tell_through(len(lines))
    total += produce(servers(deployment), "orders", records[half + 12_000 :])
    worker = WorkerProcess(deployment, tmp_path / "worker-last.log")
    try:
        wait_until(
            lambda: drained(redis_client, deployment, total + len(log)), "the end of the topics"
        )

        expected = recount(lines, bucket_ms=HOUR_MS)
        assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == expected
        counts = stored_counts(redis_client, PARTITIONS)
        assert counts["counted"] == len(lines) + len(log)
        assert counts["duplicate"] == total - len(lines)
        stock = stored_stock(redis_client, PARTITIONS, bucket_ms=HOUR_MS)
        assert len(stock) > 1_000
        assert stock == recounted_stock(log, redis_client)
        wait_until(
            lambda: committed(servers(deployment), "surgecast", "orders") == total,
            "committing up to the end",
        )
        assert worker.stop() == 0
    finally:
        worker.kill()
    published = read_topic(servers(deployment), "features")
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
    """Made-up readings of the stock of 40 SKUs over the time of the lines, oldest first."""
    skus = lines.group_by("sku").len().sort(["len", "sku"], descending=True)["sku"].head(40)
    first_ms, last_ms = lines["ts"].to_list()[0], lines["ts"].to_list()[-1]
    times = np.sort(rng.integers(first_ms - 2 * HOUR_MS, last_ms, 3_000)).tolist()
    return [(str(rng.choice(skus)), at, int(rng.choice((0, 0, 3, 70_000)))) for at in times]


@dataclass
class Shelf:
    """Sends the readings that belong to the lines sent so far."""

    address: str
    log: list[Reading]
    line_times: list[int]
    told: int = 0

    def tell_through(self, n_lines: int) -> None:
        """Send what is not newer than the last of so many lines."""
        until_ms, first = self.line_times[n_lines - 1], self.told
        while self.told < len(self.log) and self.log[self.told][1] <= until_ms:
            self.told += 1
        produce(
            self.address,
            "inventory",
            [
                (sku.encode(), json.dumps({"sku": sku, "ts": at, "on_hand": units}).encode())
                for sku, at, units in self.log[first : self.told]
            ],
        )


def recounted_stock(log: list[Reading], redis: Redis) -> dict[tuple[str, int], tuple[int, int]]:
    """What the log says of the closed buckets of each partition."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for number in range(PARTITIONS):
        history = load_history(redis, number, bucket_ms=HOUR_MS)
        assert history is not None
        mine = [reading for reading in log if reading[0] in set(history.series)]
        told = recount_stock(
            mine, width_ms=HOUR_MS, lateness_ms=0, start_ms=history.start_ms, end_ms=history.end_ms
        )
        found |= {place: (units, stored_share(share)) for place, (units, share) in told.items()}
    return found


def assert_published_equals(
    published: list[Any], expected: dict[tuple[str, int], list[float]], redis: Redis
) -> None:
    """Every closed bucket of every series is on the topic, sent again only as it was before."""
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
    deployment: Settings, redis_client: Redis, tmp_path: Path
) -> None:
    """SIGSTOP past the session timeout while another takes over, then SIGCONT: nothing doubles."""
    lines = real_lines(20_000)
    records = order_records(lines)
    total = produce(servers(deployment), "orders", records[:8_000])
    sleeper = WorkerProcess(deployment, tmp_path / "sleeper.log")
    second = None
    try:
        wait_until(lambda: counted(redis_client) > 0, "a count")
        sleeper.signal(signal.SIGSTOP)
        second = WorkerProcess(deployment, tmp_path / "second.log")
        total += produce(servers(deployment), "orders", records[8_000:14_000])
        wait_until(lambda: counted(redis_client) == 14_000, "the second worker's take-over")
        sleeper.signal(signal.SIGCONT)
        total += produce(servers(deployment), "orders", records[14_000:])
        wait_until(lambda: drained(redis_client, deployment, total), "the end of the topic")

        assert counted(redis_client) == len(lines)
        assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == recount(
            lines, bucket_ms=HOUR_MS
        )
    finally:
        sleeper.kill()
        if second is not None:
            second.kill()


def test_a_worker_told_to_stop_publishes_what_it_has_closed(
    deployment: Settings, redis_client: Redis, tmp_path: Path
) -> None:
    """SIGTERM while a backlog of closes is on its way out: nobody has to send it again."""
    lines = real_lines(8_000)
    produce(servers(deployment), "orders", order_records(lines))
    worker = WorkerProcess(deployment, tmp_path / "worker.log")
    try:
        wait_until(
            lambda: redis_client.hget("sc2:{r}:meta", "closed_through_ms") is not None, "a close"
        )
        assert worker.stop() == 0
    finally:
        worker.kill()
    published = read_topic(servers(deployment), "features")
    assert_published_equals(published, recount(lines, bucket_ms=HOUR_MS), redis_client)


def test_bad_records_go_to_dead_letter_and_their_neighbours_count(
    deployment: Settings, redis_client: Redis, tmp_path: Path
) -> None:
    """Events in = counted + duplicates + dead-lettered, and no person in a dead letter."""
    lines = real_lines(2_000)
    records: list[tuple[bytes | None, bytes | None]] = list(order_records(lines))
    fine = json.loads(records[0][1] or b"")
    sku = fine["sku"]
    newest = lines["ts"].to_list()[-1]

    def line(**changes: object) -> bytes:
        return json.dumps(fine | changes).encode()

    bad: list[tuple[str, bytes | None, bytes | None]] = [
        ("malformed_json", sku.encode(), b'{"customer_id": "secret-person", '),
        ("missing_field", sku.encode(), b'{"event_id":"b1"}'),
        ("wrong_type", sku.encode(), line(quantity="many")),
        ("zero_quantity", sku.encode(), line(quantity=0)),
        ("negative_price", sku.encode(), line(unit_price=-1)),
        ("malformed_json", sku.encode(), line(unit_price=float("nan"))),
        ("future_timestamp", sku.encode(), line(event_id="b2", ts=newest + 3650 * 24 * HOUR_MS)),
        ("too_large", sku.encode(), b'{"customer_id":"secret-person","x":"%b"}' % (b"y" * 900_000)),
        ("null_key", None, line(event_id="b3")),
        ("late", sku.encode(), line(event_id="b4", ts=newest - 3 * HOUR_MS)),
    ]  # fmt: skip
    # The newest line of the same SKU goes before them, so that the late one is late.
    newer = (sku.encode(), line(event_id="b5", ts=newest))
    mixed = [*records[:-1], newer, *[(key, value) for _, key, value in bad], records[-1]]
    total = produce(servers(deployment), "orders", mixed)
    worker = WorkerProcess(deployment, tmp_path / "worker.log")
    try:
        wait_until(lambda: drained(redis_client, deployment, total), "the end of the topic")
        counts = stored_counts(redis_client, PARTITIONS)
        assert counts["counted"] == len(lines) + 1
        assert counts["late"] == 1
        assert counts["rejected"] == len(bad) - 1
        assert (
            counts["counted"] + counts["duplicate"] + counts["late"] + counts["rejected"] == total
        )
        letters = [json.loads(r.value) for r in read_topic(servers(deployment), "dead-letter")]
        assert sorted(letter["reason"] for letter in letters) == sorted(r for r, *_ in bad)
        assert all("secret-person" not in json.dumps(letter) for letter in letters)
        assert {letter["topic"] for letter in letters} == {"orders"}
    finally:
        worker.kill()
    assert "secret-person" not in (tmp_path / "worker.log").read_text()


def test_an_owner_fenced_while_it_is_assigned_goes_on_by_itself(
    deployment: Settings, redis_client: Redis, tmp_path: Path
) -> None:
    """An intruder that acquires every partition and is gone leaves nothing uncounted."""
    lines = real_lines(8_000)
    records = order_records(lines)
    produce(servers(deployment), "orders", records[:4_000])
    worker = WorkerProcess(deployment, tmp_path / "worker.log")
    try:
        wait_until(lambda: counted(redis_client) == 4_000, "counting the first half")
        for tag in (*range(PARTITIONS), "r"):
            redis_client.hincrby(f"sc2:{{{tag}}}:meta", "fence", 1)
        produce(servers(deployment), "orders", records[4_000:])
        wait_until(lambda: drained(redis_client, deployment, len(lines)), "the take-over")
        expected = recount(lines, bucket_ms=HOUR_MS)
        assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == expected
        assert worker.process.poll() is None
    finally:
        worker.kill()


def test_a_store_that_forgot_everything_is_filled_again(
    deployment: Settings, redis_client: Redis, tmp_path: Path
) -> None:
    """Offsets vanish with the features, so all that the broker has is counted anew, and once."""
    lines = real_lines(8_000)
    records = order_records(lines)
    produce(servers(deployment), "orders", records[:4_000])
    worker = WorkerProcess(deployment, tmp_path / "worker.log")
    try:
        wait_until(lambda: counted(redis_client) == 4_000, "counting the first half")
        redis_client.flushall()
        produce(servers(deployment), "orders", records[4_000:])
        wait_until(lambda: drained(redis_client, deployment, len(lines)), "counting anew")
        expected = recount(lines, bucket_ms=HOUR_MS)
        assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == expected
        assert worker.process.poll() is None
    finally:
        worker.kill()
