"""What is known of a topic partition by the consumer's assignment, without a broker."""

from types import SimpleNamespace
from typing import cast

import pytest
from faust.types import TP

from stream.ingest.idleness import InputStatus
from stream.ingest.owned_partition import OwnedPartition
from stream.kafka.broker_view import BrokerView
from stream.kafka.faust_app import SurgecastApp
from stream.kafka.reading.consumer_thread import BrokerAnswer
from stream.partition.partition import Partition
from stream.settings import Settings, WindowSettings

SECOND = 1_000


def broker(answers: dict[TP, BrokerAnswer], next_offsets: dict[TP, int]) -> BrokerView:
    """A broker whose last answers to the consumer are these."""
    app = SimpleNamespace(consumer=SimpleNamespace(last_answer=answers.get))
    return BrokerView(cast(SurgecastApp, app), Settings(), next_offset=next_offsets.get)


def test_lag_is_the_end_offset_less_the_next_offset_to_count() -> None:
    """Unknown before the first answer, zero for an unassigned partition."""
    orders, clicks, plans = TP("orders", 0), TP("clicks", 0), TP("plans", 0)
    view = broker({orders: BrokerAnswer(7, SECOND), clicks: BrokerAnswer()}, {orders: 4, clicks: 0})

    assert (view.lag(orders), view.last_answer_ms(orders)) == (3, SECOND)
    assert (view.lag(clicks), view.last_answer_ms(clicks)) == (None, None)
    assert view.lag(plans) == 0


def test_a_topic_without_this_partition_is_idle_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing will come of it; the others are waited for as long as the broker is away."""
    now_ns = 10**18
    monkeypatch.setattr("stream.clock.time.time_ns", lambda: now_ns)
    orders, inventory = TP("orders", 0), TP("inventory", 0)
    view = broker(
        {orders: BrokerAnswer(4, SECOND), inventory: BrokerAnswer(0, SECOND)},
        {orders: 4, inventory: 0},
    )
    inputs = InputStatus(view.lag, view.last_answer_ms, idle_timeout_ms=2 * SECOND)
    owned = OwnedPartition(Partition(0, WindowSettings(), retention_ms=10**9), 1, {})
    for _ in range(30):
        idle = owned.idle(inputs)
        now_ns += 10**8
    assert idle == {"clicks", "inventory"}
