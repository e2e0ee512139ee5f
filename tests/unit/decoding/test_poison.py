"""Mutated records of every topic that the ingest's own fuzzing leaves out."""

import pytest

from tests.support.poison import VALID, poison


@pytest.mark.parametrize("topic", VALID)
def test_every_record_is_read_or_refused_with_a_reason(topic: str) -> None:
    verdicts = poison(topic, 4_000, seed=5)

    assert verdicts["read"] > 400
    assert verdicts.total() - verdicts["read"] > 1_000
