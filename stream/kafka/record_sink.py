"""The port through which records reach a topic."""

from collections.abc import Iterable
from typing import Protocol


class RecordSink(Protocol):
    """Sends records to output topics; `BatchProducer` is the one on Kafka."""

    async def send(self, topic: str, records: Iterable[tuple[str, bytes]]) -> int:
        """Send (key, value) pairs and wait for the broker; returns how many were sent.

        Raises ServiceUnavailable when the broker refuses or does not answer.
        """
        ...
