"""What a worker asks the broker: who it is, where its topics begin and end, how far behind we are.

The broker itself is asked for the identity, in a thread; all else is known to the app's consumer
(`stream/kafka/faust_transport.py`).
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import cast

from faust.types import TP

from stream.clock import wall_clock_ms
from stream.kafka.broker_identity import BrokerOffsets, Identity, read_identity
from stream.kafka.faust_app import SurgecastApp
from stream.kafka.faust_transport import BatchConsumer
from stream.settings import Settings


class BrokerView:
    """The broker as an app sees it.

    `reached` tells the next offset to be counted of a topic partition, None for one that is not
    owned.
    """

    def __init__(
        self, app: SurgecastApp, settings: Settings, *, reached: Callable[[TP], int | None]
    ) -> None:
        self._app = app
        self._settings = settings
        self._reached = reached

    @property
    def _consumer(self) -> BatchConsumer:
        return cast(BatchConsumer, self._app.consumer)

    async def identity(self, topics: Iterable[str]) -> Identity:
        """Ids of the cluster and of topics. Raises ServiceUnavailable."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, read_identity, self._settings, list(topics))

    async def places(self, assigned: set[TP]) -> BrokerOffsets:
        """Identity and offsets of the topic partitions assigned. Raises ServiceUnavailable."""
        identity = await self.identity(sorted({tp.topic for tp in assigned}))
        earliest, end = await self._consumer.places(assigned)
        return BrokerOffsets(identity, earliest, end)

    def rejoin(self) -> None:
        """Make the consumer group assign partitions once more."""
        self._consumer.rejoin()

    def lag(self, tp: TP) -> int | None:
        """Records of a topic partition that are not counted yet; None when not known."""
        heard = self._consumer.last_answer(tp)
        if heard is None:
            return 0
        reached = self._reached(tp)
        if heard.end is None or reached is None:
            return None
        return max(0, heard.end - reached)

    def answered(self, tp: TP) -> int | None:
        """When the broker last answered for a topic partition, in ms; None when it never did.

        Of one that is not ours nothing will come, and that is known at any time: its topic may be
        missing, or have fewer partitions.
        """
        heard = self._consumer.last_answer(tp)
        return wall_clock_ms() if heard is None else heard.at_ms
