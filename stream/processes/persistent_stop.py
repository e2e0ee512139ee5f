"""A service whose tasks are told to stop until they have ended.

mode cancels each task once and then waits for it. Under Python 3.11 `asyncio.wait_for` loses a
cancellation that comes with the result waited for, and redis-py sends every command within it: a
loop that was just storing would go on for ever.
"""

import asyncio
from typing import Final

from mode import Service

#: A task that has not ended so long after it was cancelled is cancelled again; longer than its
#: farewell to broker and store usually takes.
AGAIN_S: Final = 1.0


class PersistentStopService(Service):
    """As mode's service, but an order to stop that a task has lost is repeated."""

    async def _stop_futures(self) -> None:
        while running := [future for future in self._futures if not future.done()]:
            for future in running:
                future.cancel()
            await asyncio.wait(running, timeout=AGAIN_S)
        await super()._stop_futures()
