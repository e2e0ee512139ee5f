"""Seeded mutations of valid records: of bytes, of JSON text and of values."""

import json
import random
from collections.abc import Iterator
from typing import Any

from model.durations import HOUR_MS
from stream.decoding.events import ClickDecoder, OrderDecoder
from stream.decoding.inventory import InventoryDecoder
from stream.kafka.reading.record_batch import RecordBatch
from stream.partition.partition import Partition
from stream.privacy import Pseudonyms
from stream.settings import WindowSettings
from stream.sinks.topic_records import dead_letter
from tests.support.batches import FakeRecord

FIRST_MS = 1_320_000_000_000
STEP_MS = 50
PEOPLE = Pseudonyms(b"fuzz")

#: Values that have broken decoders, ours or others'.
NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, -1e308, 2**31, 2**53 + 1, 2**63 - 1, 2**63,
    -(2**63) - 1, 10**400, "", " ", "\x00", "\ud800", "\udfff\ud800", "é" * 300, "𝒳", "\u202eabc",
    "a@b", "@", "total", "category:x", "2011-11-01T00:00:00Z", "2011-11-01T00:00:00", "9999-12-31",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "NaN", [], {}, [[]], {"a": {"a": {}}},
    [1] * 50, {"": None}, "13085", "x" * 5_000,
)  # fmt: skip
RAW = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1E400", b"0" * 400, b"9" * 5_000,
    b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xed\xa0\x80"', b'"\xff"', b"{" * 50, b"[" * 3_000,
    b"[" * 1_500 + b"]" * 1_500, b'{"a":' * 2_000 + b"1" + b"}" * 2_000, b"-", b"01", b"\x00", b"",
)  # fmt: skip


def mutations(rng: random.Random) -> Iterator[tuple[str, bytes | None, bytes | None]]:
    """Endless records as topic, key and value; a third of them are intact."""
    serial = 0
    while True:
        serial += 1
        topic = rng.choice(("orders", "clicks", "inventory"))
        document = _document(topic, serial, rng)
        sku = document["sku"]
        right = sku.encode()
        key: bytes | None = right
        kind = rng.randrange(14)
        if kind == 1:
            document[rng.choice(list(document))] = rng.choice(NASTY)
        elif kind == 2:
            del document[rng.choice(list(document))]
        elif kind == 3:
            key = rng.choice((None, b"", b"\xff", right, right + b"\x00", b"\xed\xa0\x80"))
        value: bytes | None = json.dumps(document).encode()
        if kind == 4:
            document[rng.choice(list(document))] = rng.choice(NASTY)
            value = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
        elif kind in (5, 6, 7, 8, 9):
            value = _mangled(kind, value or b"", document, rng)
        yield topic, key, value


def _document(topic: str, serial: int, rng: random.Random) -> dict[str, Any]:
    event_id = str(serial - (rng.randrange(min(serial, 500)) if rng.random() < 0.1 else 0))
    ts = FIRST_MS + serial * STEP_MS - int(rng.expovariate(1 / 30_000))
    document = {"event_id": event_id, "ts": ts, "sku": f"S{rng.randrange(300)}"}
    if topic == "orders":
        document |= {"quantity": rng.randrange(-3, 9), "unit_price": rng.randrange(999) / 100}
        document |= {"customer_id": str(rng.randrange(99)), "location": rng.choice((None, "Köln"))}
    elif topic == "inventory":
        document |= {"on_hand": rng.randrange(3), "on_order": rng.choice((None, 5))}
        document |= {"lead_time_days": rng.choice((None, 2, 1.5))}
    else:
        document |= {"action": rng.choice(("view", "cart", "remove", "purchase"))}
        document |= {"visitor_id": f"v{rng.randrange(99)}"}
    return document


def _mangled(kind: int, value: bytes, document: dict[str, Any], rng: random.Random) -> bytes | None:
    if kind == 5:  # bits
        flipped = bytearray(value)
        for _ in range(rng.randrange(1, 4)):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if kind == 6:  # cut off, or with bytes inserted
        at = rng.randrange(len(value))
        return value[:at] if rng.random() < 0.5 else value[:at] + rng.choice(RAW) + value[at:]
    if kind == 7:  # the text of a field replaced
        name = rng.choice(list(document))
        old = json.dumps(document[name]).encode()
        return value.replace(b'"%b": %b' % (name.encode(), old), b'"%b": %b' % (
            name.encode(), rng.choice(RAW)
        ), 1)  # fmt: skip
    if kind == 8:  # a duplicate key, or a deeply nested extra field
        extra = rng.choice((b'"ts": 1, ', b'"sku": "S1", ', b'"x": %b, ' % rng.choice(RAW)))
        return b"{" + extra + value[1:]
    return rng.choice((None, b"", b"null", b"[]", b'"x"', b"7", rng.choice(RAW), value[::-1]))


class Fuzzed:
    """A partition fed with mutated records; `letters` counts its dead letters."""

    def __init__(self) -> None:
        window = WindowSettings(allowed_lateness=120_000, dedup=900_000)
        self.partition = Partition(0, window, retention_ms=48 * HOUR_MS)
        self._decoders: dict[str, OrderDecoder | ClickDecoder | InventoryDecoder] = {
            "orders": OrderDecoder(),
            "clicks": ClickDecoder(),
            "inventory": InventoryDecoder(),
        }
        self.fed = 0
        self.letters = 0

    @property
    def judged(self) -> int:
        """Events with a verdict: counted, duplicate, late or rejected."""
        return sum(self.partition.state.counts.values())

    def feed(self, records: list[tuple[str, bytes | None, bytes | None]]) -> None:
        """Count records as the pipeline does, including dead letters and store writes."""
        for topic in ("orders", "clicks", "inventory"):
            fakes = [
                FakeRecord(self.fed + place, key, value)
                for place, (name, key, value) in enumerate(records)
                if name == topic
            ]
            if fakes:
                self._count(topic, fakes)
        self.fed += len(records)
        watermark = self.partition.watermark_ms()
        if watermark is not None:
            self.partition.close_through(watermark)
        self.partition.state.take_write()

    def _count(self, topic: str, fakes: list[FakeRecord]) -> None:
        latest_ms = FIRST_MS + fakes[-1].offset * STEP_MS + 60_000
        batch = RecordBatch(
            topic, 0, fakes, from_offset=fakes[0].offset, next_offset=fakes[-1].offset + 1,
            newest_timestamp_ms=0,
        )  # fmt: skip
        columns: Any = self._decoders[topic].columns(batch, latest_ms=latest_ms)
        if topic == "orders":
            judged = self.partition.count_orders(columns)
        elif topic == "clicks":
            judged = self.partition.count_clicks(columns, PEOPLE)
        else:
            judged = self.partition.take_readings(columns)
        assert judged.counted + judged.duplicates + len(judged.refused) == len(fakes)
        for one in judged.refused:
            letter = dead_letter(
                one, fakes[one.position].value, topic=topic, partition=0,
                offset=fakes[one.position].offset, received_ms=0, pseudonyms=PEOPLE,
            )  # fmt: skip
            json.loads(letter)
            self.letters += 1


def run(n_records: int, *, seed: int, portion: int = 500) -> Fuzzed:
    """Feed `n_records` mutated records; fails if one crashes or gets no verdict."""
    stream = mutations(random.Random(seed))
    fuzzed = Fuzzed()
    while fuzzed.fed < n_records:
        size = min(portion, n_records - fuzzed.fed)
        fuzzed.feed([next(stream) for _ in range(size)])
        assert fuzzed.judged == fuzzed.fed
    return fuzzed
