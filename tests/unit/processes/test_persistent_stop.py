"""A task that lost its order to stop gets another; one that says farewell is let finish."""

import asyncio

from mode import Service

from stream.processes.persistent_stop import PersistentStopService


class Busy(PersistentStopService):
    """Waits, over and over, for something that comes with the order to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.lost = 0
        self.farewell = False

    @Service.task
    async def _storing(self) -> None:
        while True:
            self.begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if self.lost:
                    raise
                self.lost += 1  # as asyncio.wait_for does, where the result is there as well

    @Service.task
    async def _polite(self) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            self.farewell = True


async def test_a_lost_order_to_stop_is_repeated() -> None:
    """Told once it would wait for ever."""
    busy = Busy()
    await busy.start()
    await busy.begun.wait()
    ended, _ = await asyncio.wait([asyncio.create_task(busy.stop())], timeout=10)
    assert ended
    assert busy.lost == 1
    assert busy.farewell
