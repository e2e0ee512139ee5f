"""What is known of a topic partition by the consumer's assignment, without a broker."""

from types import SimpleNamespace
from typing import cast

import pytest
from faust.types import TP

from stream.ingest.idleness import InputStatus
from stream.ingest.owned_partition import OwnedPartition
from stream.kafka.broker_view import BrokerView
from stream.kafka.consumer_thread import BrokerAnswer
from stream.kafka.faust_app import SurgecastApp
from stream.partition.partition import Partition
from stream.settings import Settings, WindowSettings

SECOND = 1_000


def broker(heard: dict[TP, BrokerAnswer], reached: dict[TP, int]) -> BrokerView:
    """A broker of whose partitions the consumer has heard this."""
    app = SimpleNamespace(consumer=SimpleNamespace(heard=heard.get))
    return BrokerView(cast(SurgecastApp, app), Settings(), reached=reached.get)


def test_lag_is_what_was_heard_of_less_what_is_counted() -> None:
    """Not known before the first answer; nothing where nothing is ours."""
    orders, clicks, plans = TP("orders", 0), TP("clicks", 0), TP("plans", 0)
    told = broker({orders: BrokerAnswer(7, SECOND), clicks: BrokerAnswer()}, {orders: 4, clicks: 0})

    assert (told.lag(orders), told.answered(orders)) == (3, SECOND)
    assert (told.lag(clicks), told.answered(clicks)) == (None, None)
    assert told.lag(plans) == 0


def test_a_topic_without_this_partition_is_idle_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing will come of it; the others are waited for as long as the broker is away."""
    now_ns = 10**18
    monkeypatch.setattr("stream.clock.time.time_ns", lambda: now_ns)
    orders, inventory = TP("orders", 0), TP("inventory", 0)
    told = broker(
        {orders: BrokerAnswer(4, SECOND), inventory: BrokerAnswer(0, SECOND)},
        {orders: 4, inventory: 0},
    )
    inputs = InputStatus(told.lag, told.answered, idle_timeout_ms=2 * SECOND)
    owned = OwnedPartition(Partition(0, WindowSettings(), retention_ms=10**9), 1, {})
    for _ in range(30):
        idle = owned.idle(inputs)
        now_ns += 10**8
    assert idle == {"clicks", "inventory"}
