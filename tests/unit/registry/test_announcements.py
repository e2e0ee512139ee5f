"""Records of the topic `models` are checked: it steers every worker and trainer."""

import itertools
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.structs import TopicPartition

from stream.kafka.reading.inflation import TooInflated
from stream.registry.announcements import MAX_BYTES, ModelRecord, RetrainRequests
from stream.settings import Settings
from stream.topics import MODELS

NOW_MS = int(time.time() * 1_000)


def encoded(**fields: Any) -> bytes:
    return json.dumps(
        {"action": "promote", "model_id": "lstm-1", "at_ms": NOW_MS} | fields
    ).encode()


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b"[" * 5_000, b'{"a":' * 5_000 + b"1" + b"}" * 5_000, b"\xff\xfe",
        encoded(model_id="a\x07b"), encoded(model_id="x" * 500), encoded(at_ms=-1),
        encoded(at_ms=2**62), encoded(action="stop"), encoded(reason="x" * MAX_BYTES),
    ],
    ids=map(str, itertools.count()),
)  # fmt: skip
def test_a_record_that_no_role_writes_is_refused(value: bytes | None) -> None:
    """Nested ones used to end every worker and trainer."""
    assert ModelRecord.decode(value) is None
    assert ModelRecord.decode(encoded()) is not None


class _Consumer:
    """A consumer whose first batch is a bomb."""

    def __init__(self) -> None:
        self.polled: list[Any] = [
            TooInflated(5),
            {TopicPartition(MODELS.name, 0): [SimpleNamespace(value=encoded(action="retrain"))]},
        ]
        self.skipped = 0

    def poll(self, *, timeout_ms: int) -> Any:
        answer = self.polled.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def seek_to_end(self) -> None:
        self.skipped += 1


def test_a_batch_that_nobody_can_read_is_skipped() -> None:
    """The trainer reads on with the next request."""
    requests = RetrainRequests(Settings())
    requests._consumer = consumer = _Consumer()

    assert requests.newest(wait_ms=0) is None
    assert consumer.skipped == 1
    newest = requests.newest(wait_ms=0)
    assert newest is not None
    assert newest.action == "retrain"
