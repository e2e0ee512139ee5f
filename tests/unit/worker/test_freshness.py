"""How fresh a worker's answers are follows from the broker's answers and the stored offsets."""

from faust.types import TP

from stream.kafka.reading.consumer_thread import BrokerAnswer
from stream.worker.freshness import Freshness

ORDERS, CLICKS = TP("orders", 0), TP("clicks", 0)


class Broker:
    """Answers, set by the test."""

    def __init__(self) -> None:
        self.answers = {ORDERS: BrokerAnswer(), CLICKS: BrokerAnswer()}
        self.freshness = Freshness(self.answers.get)

    def as_of(self, orders: int, clicks: int) -> int | None:
        return self.freshness.observe({0: {"orders": orders, "clicks": clicks}}).get(0)

    def answers_at(self, at_ms: int, *, orders: int, clicks: int) -> None:
        self.answers[ORDERS] = BrokerAnswer(orders, at_ms)
        self.answers[CLICKS] = BrokerAnswer(clicks, at_ms)


def test_it_is_unknown_until_every_input_was_read_to_its_end() -> None:
    broker = Broker()
    assert broker.as_of(0, 0) is None
    broker.answers_at(1_000, orders=5, clicks=0)
    assert broker.as_of(4, 0) is None
    assert broker.as_of(5, 0) == 1_000


def test_it_stands_still_while_the_broker_is_silent() -> None:
    broker = Broker()
    broker.answers_at(1_000, orders=0, clicks=0)

    assert [broker.as_of(0, 0) for _ in range(3)] == [1_000] * 3


def test_a_worker_under_load_is_as_old_as_the_records_it_has_reached() -> None:
    """It never catches up with the end, yet is never far behind it."""
    broker = Broker()
    for second in range(10):
        broker.answers_at(1_000 * second, orders=100 * second, clicks=0)
        broker.as_of(100 * max(0, second - 2), 0)

    assert broker.as_of(700, 0) == 7_000


def test_one_input_behind_is_enough() -> None:
    broker = Broker()
    for second in range(1, 5):
        broker.answers_at(1_000 * second, orders=0, clicks=10 * second)
        broker.as_of(0, 10)

    assert broker.as_of(0, 10) == 1_000
    assert broker.as_of(0, 40) == 4_000


def test_memory_is_bounded_over_a_long_backlog() -> None:
    """Thinned out, it errs towards older."""
    broker = Broker()
    for second in range(20_000):
        broker.answers_at(1_000 * second, orders=second, clicks=0)
        broker.as_of(0, 0)

    assert len(broker.freshness._ends[ORDERS]) <= 513
    as_of = broker.as_of(15_000, 0)
    assert as_of is not None
    assert 14_000_000 < as_of <= 15_000_000


def test_a_partition_taken_again_starts_over() -> None:
    """Another worker may have left it far behind."""
    broker = Broker()
    broker.answers_at(1_000, orders=5, clicks=0)
    assert broker.as_of(5, 0) == 1_000
    broker.freshness.observe({})
    broker.answers_at(9_000, orders=8, clicks=0)

    assert broker.as_of(5, 0) is None
