"""A task that lost its cancellation is cancelled again; one that cleans up may finish."""

import asyncio

from mode import Service

from stream.processes.persistent_stop import PersistentStopService


class Busy(PersistentStopService):
    """Loses its first cancellation, as a task does inside `asyncio.wait_for`."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.lost = 0
        self.cleaned_up = False

    @Service.task
    async def _storing(self) -> None:
        while True:
            self.begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if self.lost:
                    raise
                self.lost += 1

    @Service.task
    async def _polite(self) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            self.cleaned_up = True


async def test_a_lost_cancellation_is_repeated() -> None:
    """After one cancellation only, the service would never stop."""
    busy = Busy()
    await busy.start()
    await busy.begun.wait()
    ended, _ = await asyncio.wait([asyncio.create_task(busy.stop())], timeout=10)
    assert ended
    assert busy.lost == 1
    assert busy.cleaned_up
