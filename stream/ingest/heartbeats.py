"""Decoder of the topic `heartbeats`: marks that close buckets, checked like any other input."""

from collections.abc import Set
from typing import Final

import msgspec

from stream.decoding.fields import event_time_ms
from stream.decoding.input_decoder import require_value
from stream.decoding.schemas import Heartbeat
from stream.errors import UnreadableEvent

#: Longest heartbeat: it names a handful of topics.
MAX_BYTES: Final = 65_536
_MAX_OFFSET: Final = 2**63

_decode = msgspec.json.Decoder(Heartbeat).decode


def read_heartbeat(value: bytes | None, *, topics: Set[str], latest_ms: int) -> Heartbeat:
    """Return a heartbeat about `topics`.

    Raises UnreadableEvent or msgspec's errors for one that is malformed, later than `latest_ms` or
    about other topics, whose offsets would be waited for in vain.

    >>> read_heartbeat(b'{"event_time_ms": 5, "offsets": {"x": 1}}', topics={"a"}, latest_ms=9)
    Traceback (most recent call last):
        ...
    stream.errors.UnreadableEvent: unknown_topic: a heartbeat of 'x', which is not one of a
    """
    heartbeat = _decode(require_value(value, max_bytes=MAX_BYTES))
    event_time_ms(heartbeat.event_time_ms, latest_ms)
    for topic, offset in heartbeat.offsets.items():
        if topic not in topics:
            known = ", ".join(sorted(topics))
            raise UnreadableEvent(
                "unknown_topic", f"a heartbeat of {topic[:60]!r}, which is not one of {known}"
            )
        if not 0 <= offset < _MAX_OFFSET:
            raise UnreadableEvent("out_of_range", f"offset {offset} of {topic} is not an offset")
    return heartbeat
