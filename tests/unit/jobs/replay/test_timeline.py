"""Two files become one sequence in event-time order, and rows become records of the topics."""

import json

import numpy as np
import polars as pl
import pytest
from kafka.partitioner.default import DefaultPartitioner

from stream.jobs.files.synthetic_clicks import synthesize_clicks
from stream.jobs.replay.timeline import Encoder, Timeline, cut
from stream.kafka.partitioner import partition_of
from tests.support.samples import START_MS, small_orders

ORDERS = small_orders(800)
CLICKS = synthesize_clicks(ORDERS)


class FourPartitions:
    """The part of a cluster that Kafka's own partitioner uses."""

    def topics(self) -> set[str]:
        return {"orders"}

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0, 1, 2, 3}

    available_partitions_for_topic = partitions_for_topic


@pytest.mark.parametrize("sku", ["85123A", "22423", "x", "", "ÄÖ-77", "a" * 200])
def test_partitions_equal_those_of_kafkas_own_partitioner(sku: str) -> None:
    key = sku.encode()
    theirs = DefaultPartitioner().partition("orders", key, key, None, None, FourPartitions())

    assert partition_of(key, 4) == theirs


def test_the_sequence_is_in_event_time_order_orders_before_clicks() -> None:
    timeline = Timeline(ORDERS, CLICKS)
    records = list(timeline.records(0, len(timeline), Encoder(4)))
    times = [json.loads(value)["ts"] for _, _, value, _ in records]

    assert len(records) == ORDERS.height + CLICKS.height
    assert times == sorted(times) == timeline.event_time_N.tolist()
    for (topic, *_), (after, *_), at, then in zip(
        records, records[1:], times, times[1:], strict=False
    ):
        assert at < then or (topic, after) != ("clicks", "orders")


def test_any_cut_into_chunks_gives_the_same_records() -> None:
    timeline, rng = Timeline(ORDERS, CLICKS), np.random.default_rng(5)
    cuts = np.sort(rng.integers(0, len(timeline), 20)).tolist()
    encoder = Encoder(4)
    whole = list(timeline.records(0, len(timeline), encoder))
    parts = [
        record
        for first, stop in zip([0, *cuts], [*cuts, len(timeline)], strict=True)
        for record in timeline.records(first, stop, encoder)
    ]

    assert parts == whole


def test_counts_are_by_topic() -> None:
    timeline = Timeline(ORDERS, CLICKS)
    records = list(timeline.records(100, 400, Encoder(4)))

    counted = {topic: sum(r[0] == topic for r in records) for topic in ("orders", "clicks")}
    assert timeline.counts(100, 400) == counted


def test_a_record_holds_the_row_without_its_nulls() -> None:
    row = {"event_id": "a", "ts": START_MS, "sku": "1", "quantity": 2, "unit_price": 1.25}
    frame = pl.DataFrame([row | {"location": None, "note": "not of the contract"}])

    [(topic, key, value, partition)] = Encoder(8).records("orders", frame)

    assert (topic, key, partition) == ("orders", b"1", partition_of(b"1", 8))
    assert json.loads(value) == row


def test_a_price_that_is_no_number_stays_unreadable() -> None:
    """NaN has no JSON; the worker gets null and rejects the record."""
    frame = pl.DataFrame({"event_id": "a", "ts": 1, "sku": "1", "unit_price": float("nan")})
    [(_, _, value, _)] = Encoder(4).records("orders", frame)

    assert json.loads(value)["unit_price"] is None


def test_fingerprints_differ_when_events_do() -> None:
    prints = {
        Timeline(ORDERS, CLICKS).fingerprint,
        Timeline(ORDERS).fingerprint,
        Timeline(ORDERS.head(700), CLICKS).fingerprint,
        Timeline(ORDERS, synthesize_clicks(ORDERS, seed=9)).fingerprint,
        Timeline(ORDERS.with_columns(event_id="x" + pl.col("event_id")), CLICKS).fingerprint,
    }

    assert len(prints) == 5
    assert Timeline(ORDERS, CLICKS).fingerprint in prints


def test_a_cut_is_half_open() -> None:
    frame = pl.DataFrame({"ts": [1, 2, 2, 3, 4]})

    assert cut(frame, start_ms=2, end_ms=4)["ts"].to_list() == [2, 2, 3]
    assert cut(frame, start_ms=2, end_ms=None, limit=1)["ts"].to_list() == [2]
    assert cut(frame, start_ms=None, end_ms=None)["ts"].to_list() == [1, 2, 2, 3, 4]
    assert cut(frame, start_ms=9, end_ms=None).is_empty()
