"""A mode service that cancels its tasks until they end.

mode cancels each task once and then waits for it. In Python 3.11 `asyncio.wait_for` loses a
cancellation that coincides with its result, and redis-py runs every command inside it: a loop that
was writing to the store would never end.
"""

import asyncio
from typing import Final

from mode import Service

#: Time between two cancellations of a task; longer than its clean-up usually takes.
CANCEL_EVERY_S: Final = 1.0


class PersistentStopService(Service):
    """As mode's service, but it cancels unfinished tasks again."""

    async def _stop_futures(self) -> None:
        while running := [future for future in self._futures if not future.done()]:
            for future in running:
                future.cancel()
            await asyncio.wait(running, timeout=CANCEL_EVERY_S)
        await super()._stop_futures()
