"""The broker's identity, offset ranges and lag, as a worker sees them.

Reads the identity from the broker, in a thread, and all else from the app's consumer.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import cast

import structlog
from faust.types import TP

from stream.clock import wall_clock_ms
from stream.kafka.broker_identity import BrokerOffsets, Identity, read_identity
from stream.kafka.faust_app import SurgecastApp
from stream.kafka.reading.consumer_thread import BrokerAnswer
from stream.kafka.reading.faust_transport import BatchConsumer
from stream.kafka.reading.joining import group_refusal
from stream.settings import Settings

log = structlog.get_logger(__name__)


class BrokerView:
    """The broker as an app sees it.

    `next_offset` returns the next offset to count of a topic partition; None if not owned.
    """

    def __init__(
        self, app: SurgecastApp, settings: Settings, *, next_offset: Callable[[TP], int | None]
    ) -> None:
        self._app = app
        self._settings = settings
        self._next_offset = next_offset

    @property
    def _consumer(self) -> BatchConsumer:
        return cast(BatchConsumer, self._app.consumer)

    async def identity(self, topics: Iterable[str]) -> Identity:
        """Return the ids of the cluster and of topics. Raises ServiceUnavailable."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, read_identity, self._settings, list(topics))

    async def offsets(self, assigned: set[TP]) -> BrokerOffsets:
        """Return identity and offsets of the assigned topic partitions.

        Raises ServiceUnavailable.
        """
        identity = await self.identity(sorted({tp.topic for tp in assigned}))
        earliest, end = await self._consumer.offset_range(assigned)
        return BrokerOffsets(identity, earliest, end)

    async def require_member(self) -> None:
        """Raise UsageError if the broker refuses this worker as a member of its group."""
        error = await self._consumer.group_error()
        if error is None:
            return
        kafka = self._settings.kafka
        refusal = group_refusal(error, kafka, group=kafka.group)
        if refusal is not None:
            raise refusal
        log.warning("group_left", reason=repr(error))

    def rejoin(self) -> None:
        """Make the consumer group assign its partitions again."""
        self._consumer.rejoin()

    def lag(self, tp: TP) -> int | None:
        """Return how many records of a topic partition are not counted yet; None if unknown."""
        answer = self._consumer.last_answer(tp)
        if answer is None:
            return 0
        next_offset = self._next_offset(tp)
        if answer.end is None or next_offset is None:
            return None
        return max(0, answer.end - next_offset)

    def answer(self, tp: TP) -> BrokerAnswer | None:
        """Return the broker's last answer for a topic partition; None if it is not assigned."""
        return self._consumer.last_answer(tp)

    def last_answer_ms(self, tp: TP) -> int | None:
        """Return when the broker last answered for a topic partition, in ms; None if never.

        An unassigned partition returns the current time: it brings no records, since its topic is
        missing or has fewer partitions.
        """
        answer = self._consumer.last_answer(tp)
        return wall_clock_ms() if answer is None else answer.at_ms
