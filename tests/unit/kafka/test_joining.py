"""Waiting for topics that do not exist yet, and a broker's refusals of a consumer."""

from collections.abc import Mapping

import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InvalidSessionTimeoutError,
    KafkaError,
    RebalanceInProgressError,
    TopicAuthorizationFailedError,
)
from structlog.testing import capture_logs

from stream.kafka.reading.joining import SAY_EVERY_S, SETTLE_S, group_refusal, wait_until_listed
from stream.settings import KafkaSettings


class Broker:
    """Topics that appear at times, in seconds; `wait` is the wait for them."""

    def __init__(self, appear_s: Mapping[str, float]) -> None:
        self.now_s = 0.0
        self._appear_s = appear_s

    def wait(self) -> dict[str, int]:
        def look() -> dict[str, int]:
            return {name: 4 * (at_s <= self.now_s) for name, at_s in self._appear_s.items()}

        return dict(
            wait_until_listed(look, needed="orders", now_s=lambda: self.now_s, sleep=self._sleep)
        )

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_existing_topics_are_not_waited_for() -> None:
    broker = Broker({"orders": 0, "clicks": 0})

    assert broker.wait() == {"orders": 4, "clicks": 4}
    assert broker.now_s == 0


def test_the_wait_ends_when_the_last_topic_appears() -> None:
    """One line says what is missing and how to create it, not one at each look."""
    broker = Broker({"orders": 20, "clicks": 21})
    with capture_logs() as lines:
        found = broker.wait()

    assert found == {"orders": 4, "clicks": 4}
    assert broker.now_s == 21
    assert [line["event"] for line in lines] == ["topics_missing"]
    assert lines[0]["topics"] == ["orders", "clicks"]
    assert "surgecast topics create" in lines[0]["reason"]


def test_a_topic_that_never_appears_does_not_stop_the_others() -> None:
    broker = Broker({"orders": 10, "clicks": 12, "plans": 10**9})
    with capture_logs() as lines:
        found = broker.wait()

    assert found == {"orders": 4, "clicks": 4, "plans": 0}
    assert broker.now_s == 12 + SETTLE_S
    assert lines[-1]["event"] == "topics_left_out"
    assert lines[-1]["topics"] == ["plans"]


def test_a_long_wait_is_repeated_in_the_log() -> None:
    broker = Broker({"orders": 2.5 * SAY_EVERY_S})
    with capture_logs() as lines:
        broker.wait()

    assert len(lines) == 3


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidSessionTimeoutError(), "session_timeout of 1s; set SURGECAST_KAFKA__SESSION_"),
        (GroupAuthorizationFailedError("g"), "user shop may not read as kafka.group g"),
        (TopicAuthorizationFailedError("orders"), "user shop may not read orders"),
    ],
)
def test_a_refusal_says_what_to_set(error: KafkaError, expected: str) -> None:
    kafka = KafkaSettings(session_timeout=1_000, username="shop")

    assert expected in str(group_refusal(error, kafka, group="g"))


def test_an_error_that_passes_is_no_refusal() -> None:
    assert group_refusal(RebalanceInProgressError(), KafkaSettings(), group="g") is None
