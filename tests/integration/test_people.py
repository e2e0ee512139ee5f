"""Ids of people, marked in every input, are found nowhere behind it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from model.durations import DAY_MS, HOUR_MS
from stream.kafka.admin import create_topics
from stream.topics import CLICKS, DEAD_LETTER, ORDERS, TOPICS, Topic
from tests.support.deployments import Deployment
from tests.support.stack import drained, produce, read_topic, stored_counts, wait_until

SOURCE = Topic("shop-orders", "input", DAY_MS, keyed_by="order_id")
MARK = "marked"
START_MS = 1_320_105_600_000


@pytest.fixture
def deployment_settings() -> dict[str, dict[str, Any]]:
    """A source of documents for the router; an input does not wait for the others for long."""
    return {"router": {"source": SOURCE.name}, "window": {"idle_timeout": "1s"}}


def marked(number: int) -> str:
    """An id of a person."""
    return f"{MARK}-{number}"


def order(number: int, **more: Any) -> dict[str, Any]:
    """An order line of one of three products, with ids of a person."""
    return {
        "event_id": f"e{number}", "ts": START_MS + number * HOUR_MS // 10, "sku": f"S{number % 3}",
        "quantity": 1, "unit_price": 2.5, "customer_id": marked(number),
    } | more  # fmt: skip


def keyed(*records: dict[str, Any]) -> list[tuple[bytes | None, bytes | None]]:
    """Records under their SKU."""
    return [(record["sku"].encode(), json.dumps(record).encode()) for record in records]


def refused(first: int) -> list[tuple[bytes | None, bytes | None]]:
    """Records that become dead letters, each with a marked id."""
    line = order(first)
    text = json.dumps(line).encode()
    return [
        *keyed(order(first, quantity=0), order(first, customerId=marked(1), quantity=0)),
        *keyed(order(first, email=f"{MARK}@shop.example", buyer={"name": MARK}, ts="yesterday")),
        *keyed(order(first, quantity=marked(2)), order(first, ts=marked(3))),
        *keyed(order(first, sku=f"{MARK}@shop.example"), order(first, ts=5)),
        (MARK.encode(), text),
        (None, text),
        (b"S0", text[:-3]),
        (b"S0", b"'" + MARK.encode() + b"'"),
        (b"S0", MARK.encode() + text),
        (b"S0", b"\0" + text),
        (b"S0", b"\xff" + text),
    ]


def test_marked_ids_are_found_nowhere(
    deployment: Deployment, redis_client: Redis, tmp_path: Path
) -> None:
    """Replayed, sent, refused and routed; only `orders` and `clicks` hold what was sent to them."""
    servers = deployment.servers
    create_topics(deployment.settings, [SOURCE])
    history = tmp_path / "input" / "orders.csv"
    history.parent.mkdir()
    rows = [order(number, email=f"{MARK}@shop.example") for number in range(60)]
    history.write_text(
        "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)])
    )
    deployment.start("worker")
    deployment.start("router", role="router")
    deployment.surgecast("replay", str(history))
    click = {"action": "view", "visitor_id": marked(9), "session": MARK}
    clicks = [
        {"event_id": f"c{n}", "ts": START_MS + n * HOUR_MS // 10, "sku": "S0"} | click
        for n in range(60)
    ]
    wrong = [clicks[0] | {"action": MARK, "event_id": "w1"}, clicks[0] | {"ts": MARK}]
    letters = produce(servers, ORDERS.name, refused(61))
    letters += produce(servers, CLICKS.name, keyed(*clicks, *wrong)) - len(clicks)
    lines = [{"sku": "S1", "quantity": 1, "unit_price": 1, "mail": MARK}, {"sku": "S2", MARK: MARK}]
    document = {
        "event_id": "routed", "ts": START_MS + 6 * HOUR_MS, "customer_id": marked(7),
        "order_id": {"of": MARK}, "lines": lines,
    }  # fmt: skip
    flat = order(60, event_id="routed-flat", email=MARK)
    documents = [json.dumps(document), json.dumps(flat), MARK, json.dumps(document)[:-2]]
    produce(servers, SOURCE.name, [(MARK.encode(), text.encode()) for text in documents])
    letters += 3  # of the router: a line, and two documents

    def letters_are_there() -> bool:
        return len(read_topic(servers, DEAD_LETTER.name)) >= letters

    wait_until(letters_are_there, f"{letters} dead letters")
    counted = len(rows) + len(clicks) + 2
    wait_until(lambda: stored_counts(redis_client, 4)["counted"] == counted, "counting")
    wait_until(lambda: drained(redis_client), "publishing")

    dead = read_topic(servers, DEAD_LETTER.name)
    assert len(dead) == letters
    assert found_in("dead letters", (record.value for record in dead)) == []
    routed = [
        record.value for record in read_topic(servers, ORDERS.name) if b"routed" in record.value
    ]
    assert len(routed) == 2
    assert found_in("orders of the router", routed) == []
    for topic in {topic.name for topic in TOPICS} - {ORDERS.name, CLICKS.name}:
        records = read_topic(servers, topic)
        assert found_in(topic, (part for one in records for part in (one.key, one.value))) == []
    assert found_in("store", stored(redis_client)) == []
    assert found_in("files", files(tmp_path, but=history.parent)) == []


def found_in(place: str, blobs: "Iterator[bytes | None] | list[bytes]") -> list[str]:
    """Where a marked id is found."""
    return [f"{place}: {blob!r}" for blob in blobs if blob and MARK.encode() in blob]


def stored(redis: Any) -> Iterator[bytes]:
    """Every key and value of the store."""
    for key in redis.scan_iter():
        yield key
        kind = redis.type(key)
        if kind == b"string":
            yield redis.get(key)
        elif kind == b"hash":
            for name, value in redis.hgetall(key).items():
                yield from (name, value)
        elif kind == b"list":
            yield from redis.lrange(key, 0, -1)
        else:
            yield from redis.smembers(key)


def files(folder: Path, *, but: Path) -> Iterator[bytes]:
    """Name and content of every file: logs, models, states of replays."""
    for path in folder.rglob("*"):
        if path.is_file() and but not in path.parents:
            yield str(path.relative_to(folder)).encode()
            yield path.read_bytes()
