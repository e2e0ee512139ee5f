"""Mutated records for every topic that a role reads, beside those of `fuzzing`.

Each decoder returns a result or a refusal with its reason; an error ends the test.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from stream.decoding.catalog import CatalogDecoder
from stream.decoding.plans import PlanDecoder
from stream.decoding.refusals import UNREADABLE, Refused, unreadable
from stream.ingest.heartbeats import read_heartbeat
from stream.ingest.pipeline import CONSUMERS
from stream.privacy import Pseudonyms
from stream.registry.announcements import ModelRecord
from stream.router.documents import DocumentReader
from stream.sinks.topic_records import dead_letter
from tests.support.batches import batch
from tests.support.fuzzing import NASTY, RAW

NOW_MS = 1_320_000_000_000
PEOPLE = Pseudonyms(b"poison")

#: A valid record of each topic; the key is the field named.
VALID: dict[str, tuple[str, dict[str, Any]]] = {
    "catalog": ("sku", {
        "sku": "A", "category": "bags", "brand": "Acme", "price": 2.5,
        "launched_at": "2011-10-01T00:00:00Z",
    }),
    "plans": ("plan_id", {
        "plan_id": "p", "kind": "promotion", "start": NOW_MS, "end": NOW_MS + 1, "sku": "A",
        "location": "Berlin", "value": 0.25,
    }),
    "heartbeats": ("", {"event_time_ms": NOW_MS, "offsets": {"orders": 5, "clicks": 3}}),
    "models": ("", {
        "action": "retrain", "model_id": "lstm-1", "reason": "drift", "at_ms": NOW_MS,
        "drift": True,
    }),
    "documents": ("", {
        "event_id": "7", "ts": NOW_MS, "order_id": 5, "customer_id": "13085", "location": "Berlin",
        "currency": "EUR", "lines": [{"sku": "A", "quantity": 2, "unit_price": 1.5}],
    }),
}  # fmt: skip


def mutated(topic: str, rng: random.Random) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Endless keys and values of a topic; one in eight is intact."""
    name, valid = VALID[topic]
    while True:
        document: Any = json.loads(json.dumps(valid))
        key: bytes | None = str(document.get(name, "")).encode()
        kind = rng.randrange(8)
        if kind in (1, 2):
            _somewhere(document, rng)[rng.choice(list(valid))] = rng.choice(NASTY)
        value: bytes | None = json.dumps(document).encode()
        if kind == 2:
            text = json.dumps(document, ensure_ascii=False)
            value = text.encode("utf-8", "surrogatepass")
        elif kind == 3:
            at = rng.randrange(len(value or b""))
            value = (value or b"")[:at] + rng.choice(RAW) + (value or b"")[at:]
        elif kind == 4:
            old = json.dumps(document[rng.choice(list(valid))]).encode()
            value = (value or b"").replace(old, rng.choice(RAW), 1)
        elif kind == 5:
            value = rng.choice((None, b"", b"null", b"[]", rng.choice(RAW)))
        elif kind == 6:
            flipped = bytearray(value or b"")
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            value = bytes(flipped)
        elif kind == 7:
            key = rng.choice((None, b"", b"\xff", b"\0", b"x" * 5_000))
        yield key, value


def _somewhere(document: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The document, or one within it."""
    inner = [document["offsets"]] if "offsets" in document else document.get("lines", [])
    return rng.choice([document, *inner])


def poison(topic: str, n_records: int, *, seed: int) -> Counter[str]:
    """Read `n_records` mutated records as the topic's role does; the number of each verdict."""
    records = mutated(topic, random.Random(seed))
    verdicts: Counter[str] = Counter()
    read = READERS[topic]()
    for _ in range(n_records):
        key, value = next(records)
        verdicts.update(read(key, value))
    return verdicts


Verdicts = list[str]
Read = Callable[[bytes | None, bytes | None], Verdicts]


def _catalog() -> Read:
    decoder = CatalogDecoder()

    def read(key: bytes | None, value: bytes | None) -> Verdicts:
        found = decoder.read(batch("catalog", [value], keys=[key]), now_ms=NOW_MS)
        return _refused(found.refused, value) or ["read"]

    return read


def _plans() -> Read:
    decoder = PlanDecoder()

    def read(key: bytes | None, value: bytes | None) -> Verdicts:
        found = decoder.read(batch("plans", [value], keys=[key]))
        return _refused(found.refused, value) or ["read"]

    return read


def _heartbeats() -> Read:
    def read(key: bytes | None, value: bytes | None) -> Verdicts:
        try:
            read_heartbeat(value, topics=CONSUMERS.keys(), latest_ms=NOW_MS)
        except UNREADABLE as error:
            return [unreadable(error).reason]
        return ["read"]

    return read


def _models() -> Read:
    def read(key: bytes | None, value: bytes | None) -> Verdicts:
        return ["refused" if ModelRecord.decode(value) is None else "read"]

    return read


def _documents() -> Read:
    reader = DocumentReader()

    def read(key: bytes | None, value: bytes | None) -> Verdicts:
        [routed] = reader.read([value])
        for _, line in routed.lines:
            json.loads(line)
        assert routed.lines or routed.refused
        return _refused(routed.refused, value) or ["read"]

    return read


def _refused(refused: list[Refused], value: bytes | None) -> Verdicts:
    """The reasons; each refusal has a dead letter of bounded length."""
    for one in refused:
        letter = dead_letter(
            one, value, topic="t", partition=0, offset=0, received_ms=0, pseudonyms=PEOPLE
        )
        assert len(json.loads(letter)["detail"]) < 1_100
    return [one.reason for one in refused]


READERS: dict[str, Callable[[], Read]] = {
    "catalog": _catalog,
    "plans": _plans,
    "heartbeats": _heartbeats,
    "models": _models,
    "documents": _documents,
}
